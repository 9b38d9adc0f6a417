package eventlogtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
)

// Lossy is a transport that brings records late, twice, in any order, or not at all; and at times compares with the head.
type Lossy struct {
	*eventlog.Embedded
	chance func() *rand.Rand
}

// NewLossy makes one. Its chance is the test's own.
func NewLossy(t *testing.T) *Lossy {
	first := seeded(t)
	var mu sync.Mutex // followers that share it begin at the same time
	return &Lossy{eventlog.NewEmbedded(), func() *rand.Rand {
		mu.Lock()
		defer mu.Unlock()
		return rand.New(rand.NewPCG(first.Uint64(), 1))
	}}
}

// Follow runs all partitions of a consumer.
func (l *Lossy) Follow(ctx context.Context, c *eventlog.Consumer) error {
	for p := range int32(eventlog.Partitions) {
		release, err := c.Own(ctx, p)
		defer release()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
	chance := l.chance()
	var tending sync.WaitGroup
	defer tending.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	woken := make(chan int32, eventlog.Partitions)
	tending.Go(func() {
		c.Tend(ctx, func(p int32) {
			select {
			case woken <- p:
			default: // it is woken again a second later
			}
		})
	})
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		heads, err := c.Source.Heads(ctx, eventlog.HeadsRequest{Topic: c.Topic})
		if err == nil {
			for p, head := range heads.Heads {
				if head == 0 || chance.IntN(3) == 0 {
					continue
				}
				if err := l.bring(ctx, c, int32(p), head, chance); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case p := <-woken:
			if err := c.Run(ctx, p, func(ctx context.Context) error { return c.CatchUp(ctx, p) }); err != nil {
				return err
			}
		case <-ticker.C:
		}
	}
}

func (l *Lossy) bring(ctx context.Context, c *eventlog.Consumer, p int32, head int64, chance *rand.Rand) error {
	if chance.IntN(10) == 0 {
		return c.Run(ctx, p, func(ctx context.Context) error { return c.CatchUp(ctx, p) })
	}
	from := max(1, min(head, c.Applied(p)+1-chance.Int64N(4)+chance.Int64N(3)))
	answer, err := c.Source.Read(ctx, eventlog.ReadRequest{Topic: c.Topic, Partition: p, From: from, Limit: 1 + chance.IntN(8)})
	if err != nil {
		return nil // it is lost
	}
	records := answer.Records
	for range chance.IntN(4) {
		switch i := chance.IntN(len(records) + 1); {
		case i == len(records):
		case chance.IntN(2) == 0:
			records = slices.Delete(records, i, i+1)
		default:
			records = append(records, records[i])
		}
	}
	if chance.IntN(2) == 0 {
		chance.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	}
	return c.Run(ctx, p, func(ctx context.Context) error { return c.Take(ctx, p, records) })
}
