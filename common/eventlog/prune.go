package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	pruneFirst = time.Minute
	pruneEvery = 10 * time.Minute
	pruneBatch = 500 // records that one transaction removes

	// keepBeyond is how long records stay after every registered consumer has applied them: a consumer whose database was restored
	// to where it was some hours ago finds what it has to apply once more.
	keepBeyond = 24 * time.Hour
	// keepUnfollowed is how long the records of a topic stay that nobody follows: a consumer that is added later and begins at the
	// oldest record gets the first that there is.
	keepUnfollowed = 7 * 24 * time.Hour
)

// RunPruning prunes the log every ten minutes, until ctx ends. A transport runs it in one process, as long as it can tell which; two
// do no harm.
func (l *Log) RunPruning(ctx context.Context) {
	timer := time.NewTimer(pruneFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			if err := l.Prune(ctx, now); err != nil && ctx.Err() == nil {
				l.o.Log.WithError(err).Warn("old records of the log cannot be removed now")
			}
			timer.Reset(pruneEvery)
		}
	}
}

// Prune removes the records that at this time nobody needs any more: those of which an earlier call, a day before, has seen that
// every registered consumer had applied them; where nobody follows a topic, a week before. A topic with a Store keeps everything.
func (l *Log) Prune(ctx context.Context, now time.Time) error {
	var failed []error
	for _, t := range l.Topics() {
		for more := t.pruned; more && ctx.Err() == nil; {
			var err error
			if more, err = t.prune(ctx, now); err != nil {
				failed = append(failed, fmt.Errorf("prune %s: %w", t.name, err))
				break
			}
		}
	}
	return errors.Join(failed...)
}

// mark says how far a partition is pruned.
type mark struct {
	part  int32
	seq   int64 // the last record that is gone
	due   int64 // the last one that nobody has needed
	since int64 // from this time on, ms
}

// prune does a step, and tells whether there may be more to do. Where there is nothing to do, it writes nothing.
func (t *Topic) prune(ctx context.Context, now time.Time) (more bool, err error) {
	var plan []mark
	err = t.log.db.Read(ctx, "plan pruning", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		plan, err = t.planPruning(ctx, tx, now)
		return err
	})
	if err != nil || len(plan) == 0 {
		return false, err
	}
	err = t.log.db.Write(ctx, "prune", func(ctx context.Context, tx *sqlutil.Tx) error {
		tables := &t.log.tables
		// Consumers that register queue here as well. What was planned before may be wrong by now.
		if _, err := tables.queue.Exec(ctx, tx, t.name); err != nil {
			return err
		}
		if plan, err = t.planPruning(ctx, tx, now); err != nil || len(plan) == 0 {
			return err
		}
		marks := make([][]any, len(plan))
		for i, m := range plan {
			if _, err := tables.prune.Exec(ctx, tx, t.name, m.part, m.seq); err != nil {
				return err
			}
			marks[i] = []any{t.name, m.part, m.seq, m.due, m.since}
		}
		_, err := tables.mark.Exec(ctx, tx, marks)
		return err
	})
	return len(plan) > 0, err
}

// planPruning returns the marks that change.
func (t *Topic) planPruning(ctx context.Context, tx *sqlutil.Tx, now time.Time) (plan []mark, err error) {
	tables := &t.log.tables
	marks, err := tables.readMarks(ctx, tx, t.name)
	if err != nil {
		return nil, err
	}
	rows, err := tables.needed.Query(ctx, tx, t.name)
	if err != nil {
		return nil, err
	}
	applied := slices.Repeat([]int64{-1}, Partitions) // by everybody
	if err := scanPairs(rows, applied); err != nil {
		return nil, err
	}
	keep := keepBeyond
	if slices.Max(applied) < 0 {
		keep = keepUnfollowed
		if rows, err = tables.heads.Query(ctx, tx, t.name); err != nil {
			return nil, err
		}
		if err := scanPairs(rows, applied); err != nil {
			return nil, err
		}
	}
	batch := int64(pruneBatch)
	for p := range marks {
		m := &marks[p]
		before := *m
		if applied[p] < m.due { // somebody needs again what nobody needed
			m.due, m.since = max(applied[p], m.seq), now.UnixMilli()
		}
		if now.UnixMilli()-m.since >= keep.Milliseconds() {
			n := min(m.due-m.seq, batch)
			m.seq, batch = m.seq+n, batch-n
		}
		if m.seq >= m.due && applied[p] > m.due {
			m.due, m.since = applied[p], now.UnixMilli()
		}
		if *m != before {
			plan = append(plan, *m)
		}
	}
	return plan, nil
}

// readMarks reads the marks of all partitions.
func (t *producerTables) readMarks(ctx context.Context, tx *sqlutil.Tx, topic string) ([]mark, error) {
	all := make([]mark, Partitions)
	for p := range all {
		all[p].part = int32(p)
	}
	rows, err := t.marks.Query(ctx, tx, topic)
	found, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (m mark, err error) {
		return m, rows.Scan(&m.part, &m.seq, &m.due, &m.since)
	})
	for _, m := range found {
		if m.part >= 0 && m.part < Partitions {
			all[m.part] = m
		}
	}
	return all, err
}
