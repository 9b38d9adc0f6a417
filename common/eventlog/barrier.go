package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// stalled is after how long without any progress of a partition that is behind its transport is thought to be away.
const stalled = time.Second

// rescued is how long a rescuer waits out what hinders it before others may try.
const rescued = 5 * time.Second

// WaitFor waits until the records up to these heads are applied, by this replica or by another. It is the read barrier: who
// takes the heads when a request begins, and waits for them, answers with everything that was committed before. Where the transport
// brings nothing, it has the log read from the producer.
func (c *Consumer) WaitFor(ctx context.Context, heads []int64) error {
	began, pause := time.Now(), 2*time.Millisecond
	for {
		p, done := c.behind(heads)
		if p < 0 {
			return nil
		}
		if err := c.help(ctx, p, began.Add(stalled)); errors.Is(err, ErrAnotherLog) {
			return err
		} else if err != nil {
			c.Log.WithError(err).WithField("partition", p).Debug("another may do better")
		}
		// Who owns a partition hears of it, unless another has taken it over and this one does not know yet.
		pause = min(2*pause, 50*time.Millisecond)
		again := pause
		if c.owns(p) {
			again = 250 * time.Millisecond
		}
		select {
		case <-done:
		case <-time.After(again):
			if err := c.Refresh(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s/%d: %w", c.Topic, p, ctx.Err())
		}
	}
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

// behind finds a partition that is not applied that far, and a channel that is closed when it is.
func (c *Consumer) behind(heads []int64) (int32, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, head := range heads[:min(len(heads), Partitions)] {
		part := &c.partitions[i]
		if head <= part.applied {
			continue
		}
		w := waiter{head, make(chan struct{})}
		part.waiting = append(slices.DeleteFunc(part.waiting, func(w waiter) bool { return w.seq <= part.applied }), w)
		return int32(i), w.done
	}
	return -1, nil
}

func (c *Consumer) owns(p int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[p].owned
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
