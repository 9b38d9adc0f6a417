package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/eventlog"
)

const (
	compare    = 10 * time.Second // how often a consumer compares itself with the heads
	claims     = 8                // partitions that are claimed at once: each asks the producer and the database
	commitHint = 2 * time.Second  // how often the group's offsets are committed
	drain      = 100              // messages that are applied at once
)

// Follow runs a consumer as a member of its group. It returns when ctx ends, or with eventlog.ErrAnotherLog.
func (t *Transport) Follow(ctx context.Context, c *eventlog.Consumer) error {
	f := &follower{t: t, consumer: c, topic: t.topic(c.Topic), group: t.topic(c.Component + "." + c.Name),
		claiming: make(chan struct{}, claims), owned: make(map[int32]chan struct{}),
		outage: outage{log: t.o.Log.WithFields(logrus.Fields{"consumer": c.Name, "topic": c.Topic}), what: "following a topic of kafka"}}
	group, ctx := errgroup.WithContext(ctx)
	// The first partition that stops loudly stops all.
	ctx, f.stop = context.WithCancelCause(ctx)
	defer f.stop(nil)
	group.Go(func() error { f.compare(ctx); return nil })
	group.Go(func() error { c.Tend(ctx, f.wake); return nil })
	group.Go(func() error {
		for ctx.Err() == nil {
			if err := f.member(ctx); ctx.Err() == nil {
				pause(ctx, f.outage.failed(err))
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, eventlog.ErrAnotherLog) {
		return cause
	}
	return nil
}

// follower is one consumer in one process: the handler of its consumer group.
type follower struct {
	t        *Transport
	consumer *eventlog.Consumer
	topic    string // in Kafka
	group    string
	stop     context.CancelCauseFunc
	outage   outage
	claiming chan struct{}

	mu    sync.Mutex
	owned map[int32]chan struct{} // of each partition that is run here: tells it to compare itself with the head
}

// member joins the group, and stays in it until an error or until ctx ends.
func (f *follower) member(ctx context.Context) error {
	c := f.t.config()
	c.Consumer.Return.Errors = true
	c.Consumer.MaxWaitTime = 250 * time.Millisecond
	c.Consumer.Retry.Backoff = 250 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = commitHint
	c.Consumer.Offsets.Retry.Max = 1
	c.Consumer.Group.Session.Timeout = sessionTimeout
	c.Consumer.Group.Heartbeat.Interval = heartbeat
	c.Consumer.Group.Rebalance.Timeout = rebalanceLimit
	c.Consumer.Group.Rebalance.Retry.Max = 4
	c.Consumer.Group.Rebalance.Retry.Backoff = 250 * time.Millisecond
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	client, err := f.t.dial(c)
	if err != nil {
		return err
	}
	defer f.close(client.Close)
	if err := f.t.ensure(f.topic); err != nil {
		return err
	}
	group, err := sarama.NewConsumerGroupFromClient(f.group, client)
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", f.group, err)
	}
	var errorsRead sync.WaitGroup
	errorsRead.Go(func() {
		for err := range group.Errors() {
			f.outage.log.WithError(err).Debug("consumer group")
		}
	})
	defer errorsRead.Wait()
	defer f.close(group.Close)
	for ctx.Err() == nil {
		began := time.Now()
		if err := group.Consume(ctx, []string{f.topic}, f); err != nil {
			return fmt.Errorf("consumer group %s: %w", f.group, err)
		}
		if ctx.Err() == nil && time.Since(began) < time.Second {
			return fmt.Errorf("consumer group %s: the session ended at once", f.group)
		}
	}
	return nil
}

func (f *follower) close(what func() error) {
	if err := what(); err != nil {
		f.outage.log.WithError(err).Debug("leaving the consumer group")
	}
}

// Setup is called when the group has given this member its partitions.
func (f *follower) Setup(sarama.ConsumerGroupSession) error {
	f.outage.over()
	return nil
}

// Cleanup is called when all claims have ended.
func (f *follower) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim runs a partition, until the group takes it away.
func (f *follower) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	ctx, cancel := context.WithCancel(session.Context())
	defer cancel()
	// That the partition is taken away shows only in the channel, and must end even what waits for a database.
	messages := make(chan *sarama.ConsumerMessage, drain)
	go func() {
		defer cancel()
		for m := range claim.Messages() {
			select {
			case messages <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	p := claim.Partition()
	if err := f.run(ctx, p, messages, func(m *sarama.ConsumerMessage) { session.MarkMessage(m, "") }); err != nil {
		f.consumer.Log.WithError(err).WithField("partition", p).Error("the consumer stops")
		f.stop(err)
		return err
	}
	return nil
}

func (f *follower) run(ctx context.Context, p int32, messages <-chan *sarama.ConsumerMessage, mark func(*sarama.ConsumerMessage)) error {
	nudged := make(chan struct{}, 1)
	f.mu.Lock()
	f.owned[p] = nudged
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.owned, p)
		f.consumer.Release(p)
	}()
	if err := f.claim(ctx, p); err != nil || ctx.Err() != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-nudged:
			if err := f.consumer.Run(ctx, p, func(ctx context.Context) error { return f.consumer.CatchUp(ctx, p) }); err != nil {
				return err
			}
		case first := <-messages:
			batch := []*sarama.ConsumerMessage{first}
			for waiting := len(messages); waiting > 0 && len(batch) < drain; waiting-- {
				batch = append(batch, <-messages)
			}
			if err := f.take(ctx, p, batch); err != nil {
				return err
			}
			if ctx.Err() == nil {
				mark(batch[len(batch)-1])
			}
		}
	}
}

// claim takes the partition and brings it up to date.
func (f *follower) claim(ctx context.Context, p int32) error {
	select {
	case f.claiming <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-f.claiming }()
	if err := f.consumer.Run(ctx, p, func(ctx context.Context) error { return f.consumer.Claim(ctx, p) }); err != nil || ctx.Err() != nil {
		return err
	}
	return f.consumer.Run(ctx, p, func(ctx context.Context) error { return f.consumer.CatchUp(ctx, p) })
}

// take applies what messages bring. One that cannot be used only tells that there is something to read from the producer.
func (f *follower) take(ctx context.Context, p int32, batch []*sarama.ConsumerMessage) error {
	records := make([]eventlog.Record, 0, len(batch))
	hint := false
	for _, m := range batch {
		logID, seq, err := headers(m.Headers)
		if err == nil && logID != f.consumer.LogID(p) {
			return fmt.Errorf("record %d of partition %d in kafka is of log %s, and %s is followed: %w", m.Offset, p, logID, f.consumer.LogID(p), eventlog.ErrAnotherLog)
		}
		var r eventlog.Record
		if err == nil && m.Value != nil {
			err = json.Unmarshal(m.Value, &r)
		}
		if err != nil || m.Value == nil || r.Partition != p || r.Seq != seq || r.Topic != f.consumer.Topic {
			hint = true
			continue
		}
		records = append(records, r)
	}
	return f.consumer.Run(ctx, p, func(ctx context.Context) error {
		if hint {
			return f.consumer.CatchUp(ctx, p)
		}
		return f.consumer.Take(ctx, p, records)
	})
}

// wake has a partition read the log, if it is run here.
func (f *follower) wake(p int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if nudged := f.owned[p]; nudged != nil {
		nudge(nudged)
	}
}

// compare looks every ten seconds which partitions are not at the head of the log, and has them read it.
func (f *follower) compare(ctx context.Context) {
	ticker := time.NewTicker(compare)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		heads, err := f.consumer.Source.Heads(ctx, eventlog.HeadsRequest{Topic: f.consumer.Topic})
		if err != nil {
			if ctx.Err() == nil {
				f.consumer.Log.WithError(err).Warn("the heads of a log cannot be read now")
			}
			continue
		}
		f.mu.Lock()
		for p, nudged := range f.owned {
			if int(p) < len(heads.Heads) {
				f.consumer.Observe(p, heads.Heads[p])
			}
			if int(p) >= len(heads.Heads) || heads.Heads[p] != f.consumer.Applied(p) || heads.LogID != f.consumer.LogID(p) {
				nudge(nudged)
			}
		}
		f.mu.Unlock()
	}
}
