package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// stalled is after how long without any progress of a partition that is behind its transport is thought to be away.
const stalled = time.Second

// rescued is how long a rescuer waits out what hinders it before others may try.
const rescued = 5 * time.Second

// The pauses between two questions how far partitions are applied: they grow from the first to the last. Where all that
// is waited for is run by this process, which hears of it, the question is only for what another has taken over
// meanwhile.
const (
	firstPause = 4 * time.Millisecond
	lastPause  = 50 * time.Millisecond
	ownPause   = 250 * time.Millisecond
)

// WaitFor waits until the records up to these heads are applied, by this replica or by another. It is the read barrier: who
// takes the heads when a request begins, and waits for them, answers with everything that was committed before. Where the transport
// brings nothing, it has the log read from the producer.
func (c *Consumer) WaitFor(ctx context.Context, heads []int64) error {
	for began := time.Now(); ; {
		s := c.subscribe(heads)
		if s == nil {
			return nil
		}
		err := c.await(ctx, s, began)
		s.Close()
		if err != nil {
			return err
		}
	}
}

// Waiting is how many calls of WaitFor wait now.
func (c *Consumer) Waiting() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.partitions {
		n += len(c.partitions[p].waiting)
	}
	return n
}

// subscription waits for a record of a partition to be applied. Whoever made it closes it.
type subscription struct {
	c    *Consumer
	p    int32
	seq  int64
	done chan struct{} // closed when the record is applied, or nobody can tell
	err  error         // why nobody can tell; to be read when done is closed
}

// subscribe makes a subscription to a partition that is not applied as far as its head; nil if there is none.
func (c *Consumer) subscribe(heads []int64) *subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, head := range heads[:min(len(heads), Partitions)] {
		part := &c.partitions[p]
		if head <= part.applied {
			continue
		}
		s := &subscription{c: c, p: int32(p), seq: head, done: make(chan struct{})}
		if part.waiting == nil {
			part.waiting = make(map[*subscription]struct{})
		}
		part.waiting[s] = struct{}{}
		nudge(c.arrived)
		return s
	}
	return nil
}

// Close ends a subscription, whether or not its record is applied.
func (s *subscription) Close() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	delete(s.c.partitions[s.p].waiting, s)
}

// settle lets those go who wait for records up to a sequence. The caller has the lock.
func (p *partition) settle(seq int64, err error) {
	for s := range p.waiting {
		if s.seq <= seq {
			s.err = err
			close(s.done)
			delete(p.waiting, s)
		}
	}
}

// await waits for a subscription's record. One of all who wait asks the database on behalf of them all; when it leaves,
// another does.
func (c *Consumer) await(ctx context.Context, s *subscription, began time.Time) error {
	tick := time.NewTicker(stalled)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s/%d: %w", c.Topic, s.p, ctx.Err())
		case <-tick.C:
		case c.asking <- struct{}{}:
			late := c.askUntil(ctx, s, tick.C)
			<-c.asking
			if !late {
				continue
			}
		}
		if err := c.help(ctx, s.p, began.Add(stalled)); errors.Is(err, ErrAnotherLog) {
			return err
		} else if err != nil {
			c.Log.WithError(err).WithField("partition", s.p).Debug("another may do better")
		}
	}
}

// askUntil asks the database again and again how far all partitions are applied, until it is time to see to the
// caller's own. That it cannot be told, everybody hears who waits.
func (c *Consumer) askUntil(ctx context.Context, s *subscription, enough <-chan time.Time) (late bool) {
	pause := firstPause
	next := func() time.Time {
		if c.waitsForOthers() {
			return time.Now().Add(pause)
		}
		return time.Now().Add(ownPause)
	}
	due := next()
	if !c.due.IsZero() && c.due.Before(due) {
		due = c.due
	}
	defer func() {
		if c.due = due; !c.waitsForOthers() {
			c.due = time.Time{}
		}
	}()
	for {
		select {
		case <-s.done:
			return false
		case <-ctx.Done():
			return false
		case <-enough:
			return true
		case <-c.arrived:
			pause = firstPause
			if sooner := next(); sooner.Before(due) {
				due = sooner // never later: there may be an arrival at any moment
			}
		case <-time.After(time.Until(due)):
			if err := c.Refresh(ctx); err != nil && ctx.Err() == nil {
				c.fail(err)
			}
			pause = min(2*pause, lastPause)
			due = next()
		}
	}
}

// fail ends all waits with an error.
func (c *Consumer) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.partitions {
		c.partitions[p].settle(math.MaxInt64, err)
	}
}

// waitsForOthers tells whether anybody waits for a partition that this process does not run.
func (c *Consumer) waitsForOthers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.partitions {
		if part := &c.partitions[p]; len(part.waiting) > 0 && !part.owned {
			return true
		}
	}
	return false
}

// help has a partition read the log if it does not move although it is behind, at the earliest at a time: by its owner if that is here,
// else by the caller. Whoever else owns it goes on from there, since the offset only moves on from where it is.
func (c *Consumer) help(ctx context.Context, p int32, earliest time.Time) error {
	c.mu.Lock()
	part := &c.partitions[p]
	owned, wake := part.owned, c.wake
	if at := part.moved.Add(stalled); at.After(earliest) {
		earliest = at
	}
	if time.Now().Before(earliest) {
		c.mu.Unlock()
		return nil
	}
	part.moved = time.Now() // it is being helped
	c.mu.Unlock()
	if owned {
		if wake != nil {
			wake(p)
		}
		return nil
	}
	return c.Rescue(ctx, p)
}

// Rescue applies what a partition lacks that nobody in this process runs: while its transport is away, or nobody was given it yet. It does
// nothing if somebody does run it.
func (c *Consumer) Rescue(ctx context.Context, p int32) error {
	select {
	case c.holds[p] <- struct{}{}:
	default:
		return nil
	}
	if err := c.claim(ctx, p); err != nil {
		return err
	}
	defer c.Release(p)
	ctx, cancel := context.WithTimeout(ctx, rescued)
	defer cancel()
	return c.Run(ctx, p, func(ctx context.Context) error {
		if err := c.CatchUp(ctx, p); !errors.Is(err, errLostClaim) {
			return err
		}
		return nil // it moves
	})
}

// Refresh reads from the database how far all partitions are applied, those of other replicas included.
func (c *Consumer) Refresh(ctx context.Context) error {
	_, err := c.refresh(ctx)
	return err
}

func (c *Consumer) refresh(ctx context.Context) ([]int64, error) {
	offsets := make([]int64, Partitions)
	err := c.DB.ReadOne(ctx, "offsets", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := c.tables.offsets.Query(ctx, tx, c.Name)
		if err != nil {
			return err
		}
		return scanPairs(rows, offsets)
	})
	if err != nil {
		return nil, fmt.Errorf("offsets of %s: %w", c.Name, err)
	}
	for p, seq := range offsets {
		c.advance(int32(p), seq)
	}
	return offsets, nil
}
