package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	maxGroup   = 64   // writes that one transaction carries
	maxWaiting = 5000 // writes that wait at a time
)

// Place makes the rows of a write, once its first position is known. It runs under the lock of the position, and must
// be short. It may run again with another first position.
//
// A place that reads (Write, AddReading) sees everything with a smaller position, what its own transaction carries
// included, and nothing can change it before the commit. So of two changes of one value the later has seen the earlier,
// whether both are in one transaction, in two, or come from two processes.
type Place func(ctx context.Context, tx *sqlutil.Tx, first int64) (*Changes, error)

// committer runs all writes of a process that wait, as one transaction which takes their positions together.
type committer struct {
	onCommit func(Changes)

	mu      sync.Mutex
	waiting []*write
	running bool

	// unknown counts the transactions of which it is not known whether they took place, settled those of them that it
	// was found out of.
	unknown, settled atomic.Int64
	underWay         atomic.Int64 // transactions that have begun, and of which onCommit was not told
}

type write struct {
	ctx  context.Context // its caller's, who may go before it begins
	name string
	fn   func(ctx context.Context, tx *sqlutil.Tx) error
	err  error
	done chan struct{}
}

// placements are what the writes of a transaction have asked for.
type placements struct {
	positions int64
	places    []placement
}

type placement struct {
	offset int64
	reads  bool
	make   Place
}

type placementsKey struct{}

// Commit runs fn with other writes that wait, in one transaction. fn calls Add or AddReading for the rows that need
// positions. All functions fn of a group run before its places: what fn itself reads may be older than what other
// writes of the group place. If a write of the group fails, each is tried alone. A write that has not begun when ctx
// ends does not happen. Where too many wait, it is mxerr.Unavailable.
func (d *Database) Commit(ctx context.Context, name string, fn func(ctx context.Context, tx *sqlutil.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w := &write{ctx: ctx, name: name, fn: fn, done: make(chan struct{})}
	c := &d.committer
	c.mu.Lock()
	if len(c.waiting) >= maxWaiting {
		c.mu.Unlock()
		return fmt.Errorf("%s: %w", name, mxerr.Unavailable("too much waits to be written: try again later"))
	}
	c.waiting = append(c.waiting, w)
	if !c.running {
		c.running = true
		go d.commitWaiting()
	}
	c.mu.Unlock()
	// Whoever waits learns the outcome, even of a transaction that takes long: a write that may yet happen has no other
	// answer.
	<-w.done
	return w.err
}

// Write is a Commit of rows that need nothing else in their transaction. place may read.
func (d *Database) Write(ctx context.Context, name string, positions int, place Place) error {
	return d.Commit(ctx, name, func(_ context.Context, tx *sqlutil.Tx) error {
		AddReading(tx, positions, place)
		return nil
	})
}

// Add asks for consecutive positions and for the rows that place makes of them. place must not read: rows of places
// before it may not be there yet, since the rows of consecutive places are inserted together.
func Add(tx *sqlutil.Tx, positions int, place Place) { pendingOf(tx).add(positions, false, place) }

// AddReading is Add for a place that reads.
func AddReading(tx *sqlutil.Tx, positions int, place Place) {
	pendingOf(tx).add(positions, true, place)
}

func (p *placements) add(positions int, reads bool, place Place) {
	p.places = append(p.places, placement{p.positions, reads, place})
	p.positions += int64(positions)
}

func pendingOf(tx *sqlutil.Tx) *placements {
	return tx.Value(placementsKey{}, func() any { return new(placements) }).(*placements)
}

// commitWaiting runs until nothing waits. Each Commit waits for its own write, so nobody has to wait for this
// goroutine.
func (d *Database) commitWaiting() {
	c := &d.committer
	for {
		c.mu.Lock()
		group := c.waiting[:min(len(c.waiting), maxGroup)]
		c.waiting = c.waiting[len(group):]
		if len(group) == 0 {
			c.waiting, c.running = nil, false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if group = wanted(group); len(group) > 0 {
			d.commitGroup(group)
		}
	}
}

// wanted drops the writes whose callers have gone. None of them has begun.
func wanted(group []*write) []*write {
	var still []*write
	for _, w := range group {
		if err := w.ctx.Err(); err != nil {
			w.err = fmt.Errorf("%s: %w", w.name, err)
			close(w.done)
			continue
		}
		still = append(still, w)
	}
	return still
}

func (d *Database) commitGroup(group []*write) {
	err := d.commitOnce(group)
	if err != nil && len(group) > 1 {
		for i := range group {
			d.commitGroup(group[i : i+1])
		}
		return
	}
	for _, w := range group {
		w.err = err
		close(w.done)
	}
}

func (d *Database) commitOnce(group []*write) error {
	ctx, cancel := context.WithTimeout(context.Background(), sqlutil.DefaultTimeout)
	defer cancel()
	d.committer.underWay.Add(1)
	defer d.committer.underWay.Add(-1) // onCommit has been called
	err := d.db.Write(ctx, group[0].name, func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, w := range group {
			if err := w.fn(ctx, tx); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		// Added last, this runs after the logs have taken their counters: nothing is locked after the position.
		tx.BeforeCommit(d.place)
		return nil
	})
	if errors.Is(err, sqlutil.ErrCommitUnknown) {
		d.committer.unknown.Add(1)
	}
	return err
}

// Uncertain tells whether there may be a commit of this process that onCommit was not told of: its answer was lost, or is
// on its way, while whoever reads the database sees the commit already.
func (d *Database) Uncertain() bool {
	return d.committer.underWay.Load() > 0 || d.committer.unknown.Load() != d.committer.settled.Load()
}

// Settle takes a position for nothing where there may be such a commit. It waits for that one's end, and onCommit sees
// by the position before it that something was committed.
func (d *Database) Settle(ctx context.Context) error {
	unknown := d.committer.unknown.Load()
	if unknown == d.committer.settled.Load() {
		return nil
	}
	nothing := func(context.Context, *sqlutil.Tx, int64) (*Changes, error) { return new(Changes), nil }
	if err := d.Write(ctx, "after an unknown outcome", 1, nothing); err != nil {
		return err
	}
	d.committer.settled.Store(unknown)
	return nil
}

// place takes the positions and inserts the rows, those of all places before one that reads.
func (d *Database) place(ctx context.Context, tx *sqlutil.Tx) error {
	p := pendingOf(tx)
	if p.positions == 0 {
		return nil
	}
	var all, gathered Changes
	if err := d.position.take.QueryRow(ctx, tx, p.positions).Scan(&all.Prev, &all.Pos); err != nil {
		return fmt.Errorf("take positions: %w", err)
	}
	insert := func() error {
		err := d.insert(ctx, tx, &gathered)
		all.add(&gathered)
		gathered = Changes{}
		return err
	}
	first := all.Pos - p.positions + 1
	for _, one := range p.places {
		if one.reads {
			if err := insert(); err != nil {
				return err
			}
		}
		changes, err := one.make(ctx, tx, first+one.offset)
		if err != nil {
			return err
		}
		gathered.add(changes)
	}
	if err := insert(); err != nil {
		return err
	}
	tx.AfterCommit(func() { d.committer.onCommit(all) })
	return nil
}
