package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// reportEvery is how often, at most, a consumer that goes on tells the producer how far it is.
const reportEvery = time.Minute

// Begin registers a consumer before it is run, so that one that starts with the next record starts now. It does nothing
// where that was done.
func (c *Consumer) Begin(ctx context.Context) error {
	_, err := c.begin(ctx)
	return err
}

// begin returns the heads. The first time in a process it also registers the consumer, so that from here on the producer keeps what
// the consumer has not applied, and gives an offset to the partitions that have none.
func (c *Consumer) begin(ctx context.Context) (HeadsResponse, error) {
	c.starting.Lock()
	defer c.starting.Unlock()
	request := HeadsRequest{Topic: c.Topic}
	if !c.started {
		report, err := c.firstReport(ctx)
		if err != nil {
			return HeadsResponse{}, err
		}
		request.Report = report
	}
	heads, err := c.Source.Heads(ctx, request)
	if err != nil {
		return HeadsResponse{}, fmt.Errorf("heads of %s: %w", c.Topic, err)
	}
	if len(heads.Heads) != Partitions {
		return HeadsResponse{}, fmt.Errorf("%s has %d partitions, not %d: do all components run the same release?", c.Topic, len(heads.Heads), Partitions)
	}
	if c.started {
		return heads, nil
	}
	var missing [][]any
	for p, seq := range request.Report.Offsets {
		if seq >= 0 {
			continue
		}
		switch {
		case c.Start == Newest:
			seq = heads.Heads[p]
		case len(heads.Pruned) == Partitions:
			seq = heads.Pruned[p]
		default: // the log has everything
			seq = 0
		}
		missing = append(missing, []any{c.Name, p, heads.LogID, seq})
	}
	if len(missing) > 0 {
		err := c.DB.Write(ctx, "begin to follow", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := c.tables.insertOffset.Exec(ctx, tx, missing)
			return err
		})
		if err != nil {
			return HeadsResponse{}, fmt.Errorf("begin to follow %s: %w", c.Topic, err)
		}
	}
	c.mu.Lock()
	c.reported = request.Report.Offsets
	c.mu.Unlock()
	c.started = true
	return heads, nil
}

// firstReport reads what the consumer has applied in its earlier lives.
func (c *Consumer) firstReport(ctx context.Context) (*Report, error) {
	r := &Report{Component: c.Component, Consumer: c.Name}
	err := c.DB.Read(ctx, "offsets", func(ctx context.Context, tx *sqlutil.Tx) error {
		r.Offsets = slices.Repeat([]int64{-1}, Partitions)
		rows, err := c.tables.offsets.Query(ctx, tx, c.Name)
		if err != nil {
			return err
		}
		if err := scanPairs(rows, r.Offsets); err != nil {
			return err
		}
		rows, err = c.tables.logIDs.Query(ctx, tx, c.Name)
		ids, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (id string, err error) { return id, rows.Scan(&id) })
		if len(ids) > 0 {
			r.LogID = ids[0] // if there are two, claims find out which is wrong
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", c.Name, err)
	}
	return r, nil
}

// Tend does what a consumer needs besides records, until ctx ends: it tells the producer now and then how far it is, and has parked
// keys tried again when the operator asks for that. Every transport runs it while it follows; wake makes it call CatchUp for a
// partition, if it runs that. A consumer that is idle, with nothing parked, asks for nothing and writes nothing.
func (c *Consumer) Tend(ctx context.Context, wake func(p int32)) {
	c.mu.Lock()
	c.wake = wake
	c.mu.Unlock()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for told := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := c.lookForRetries(ctx, wake); err != nil && ctx.Err() == nil {
			c.Log.WithError(err).Warn("what the operator asks for cannot be read now")
		}
		if time.Since(told) < reportEvery {
			continue
		}
		told = time.Now()
		if !c.hasMoved() {
			continue
		}
		if err := c.Report(ctx); err != nil && ctx.Err() == nil {
			c.Log.WithError(err).WithFields(logrus.Fields{"again_in": reportEvery}).Warn("the producer cannot be told how far its log is applied")
		}
	}
}

// hasMoved tells whether this process has applied anything since the last report.
func (c *Consumer) hasMoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.partitions {
		if part := &c.partitions[p]; part.owned && c.reported != nil && part.at != c.reported[p] {
			return true
		}
	}
	return false
}

// Report tells the producer how far all replicas together have applied its log.
func (c *Consumer) Report(ctx context.Context) error {
	offsets, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	r := &Report{Component: c.Component, Consumer: c.Name, Offsets: offsets}
	c.mu.Lock()
	for p := range c.partitions {
		if c.partitions[p].owned {
			r.LogID = c.partitions[p].logID
		}
	}
	c.mu.Unlock()
	if _, err := c.Source.Heads(ctx, HeadsRequest{Topic: c.Topic, Report: r}); err != nil {
		return fmt.Errorf("report to %s: %w", c.Topic, err)
	}
	c.mu.Lock()
	c.reported = offsets
	c.mu.Unlock()
	return nil
}

// note keeps what a consumer reports.
func (t *Topic) note(ctx context.Context, r *Report) (HeadsResponse, error) {
	if r.Component == "" || r.Consumer == "" || len(r.Offsets) != Partitions {
		return HeadsResponse{}, fmt.Errorf("the report of %s.%s to %s has %d offsets, not %d", r.Component, r.Consumer, t.name, len(r.Offsets), Partitions)
	}
	answer, err := t.readHeads(ctx)
	if err != nil || r.LogID != "" && r.LogID != t.id {
		return answer, err // a consumer of another log stops when it sees the answer
	}
	now := time.Now().UnixMilli()
	err = t.log.db.Write(ctx, "note consumer", func(ctx context.Context, tx *sqlutil.Tx) error {
		tables := &t.log.tables
		// Pruning queues here as well: what is the oldest record stays so until the consumer is known.
		if _, err := tables.queue.Exec(ctx, tx, t.name); err != nil {
			return err
		}
		marks, err := tables.readMarks(ctx, tx, t.name)
		if err != nil {
			return err
		}
		noted := slices.Repeat([]int64{-1}, Partitions)
		rows, err := tables.noted.Query(ctx, tx, t.name, r.Component, r.Consumer)
		if err != nil {
			return err
		}
		if err := scanPairs(rows, noted); err != nil {
			return err
		}
		answer.Pruned = make([]int64, Partitions)
		var changed [][]any
		for p, seq := range r.Offsets {
			answer.Pruned[p] = marks[p].seq
			if seq < 0 {
				seq = marks[p].seq
			}
			if seq != noted[p] {
				changed = append(changed, []any{t.name, r.Component, r.Consumer, p, seq, now})
			}
		}
		if len(changed) == 0 {
			return nil
		}
		_, err = tables.note.Exec(ctx, tx, changed)
		return err
	})
	if err != nil {
		return HeadsResponse{}, fmt.Errorf("report of %s.%s to %s: %w", r.Component, r.Consumer, t.name, err)
	}
	return answer, nil
}
