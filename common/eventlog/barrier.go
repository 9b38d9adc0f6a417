package eventlog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// WaitFor waits until the records up to these heads are applied, by this replica or by another. It is the read barrier: who
// takes the heads when a request begins, and waits for them, answers with everything that was committed before.
func (c *Consumer) WaitFor(ctx context.Context, heads []int64) error {
	for {
		p, done := c.behind(heads)
		if p < 0 {
			return nil
		}
		// Who owns a partition hears of it, unless another has taken it over and this one does not know yet.
		again := 3 * time.Millisecond
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
