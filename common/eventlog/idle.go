package eventlog

import (
	"context"
	"fmt"
)

// idleRecords is how many records of a partition an idle consumer passes over before it writes its offset.
const idleRecords = 1000

// unwanted tells whether nobody wants what new records say.
func (c *Consumer) unwanted() bool { return c.Idle != nil && c.Idle() }

// idle tells whether the records of a claimed partition can be passed over.
func (c *Consumer) idle(p int32) bool { return len(c.partitions[p].parked) == 0 && c.unwanted() }

// skip passes over all records of a claimed partition, without reading them. If they become wanted meanwhile, it has
// them read.
func (c *Consumer) skip(ctx context.Context, p int32) error {
	heads, err := c.Source.Heads(ctx, HeadsRequest{Topic: c.Topic})
	if err != nil {
		return fmt.Errorf("heads of %s: %w", c.Topic, err)
	}
	if len(heads.Heads) != Partitions {
		return fmt.Errorf("%s has %d partitions, not %d", c.Topic, len(heads.Heads), Partitions)
	}
	head, applied := heads.Heads[p], c.position(p)
	if heads.LogID != c.LogID(p) || head < applied {
		return fmt.Errorf("%s/%d: applied up to %d, the head is %d: %w", c.Topic, p, applied, head, ErrAnotherLog)
	}
	// What is asked for after the heads is true of all records up to there.
	if !c.idle(p) {
		return c.CatchUp(ctx, p)
	}
	if head > applied {
		err = c.passOver(ctx, p, head)
	}
	c.Observe(p, head)
	return err
}

// passOver takes the records of a claimed partition up to a sequence for applied.
func (c *Consumer) passOver(ctx context.Context, p int32, last int64) error {
	if last-c.partitions[p].written >= idleRecords {
		return c.commit(ctx, p, last, nil, nil)
	}
	c.moved(p, last)
	return nil
}
