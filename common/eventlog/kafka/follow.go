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
	alone      = time.Second      // how often it does while it is in no group
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

	mu      sync.Mutex
	inGroup bool
	owned   map[int32]chan struct{} // of each partition that is run here: tells it to compare itself with the head
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
	f.join(true)
	return nil
}

// Cleanup is called when all claims have ended.
func (f *follower) Cleanup(sarama.ConsumerGroupSession) error {
	f.join(false)
	return nil
}

func (f *follower) join(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inGroup = is
}

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
	release, err := f.claim(ctx, p)
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.owned, p)
		release()
	}()
	if err != nil || ctx.Err() != nil {
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
func (f *follower) claim(ctx context.Context, p int32) (release func(), err error) {
	select {
	case f.claiming <- struct{}{}:
	case <-ctx.Done():
		return func() {}, nil
	}
	defer func() { <-f.claiming }()
	if release, err = f.consumer.Own(ctx, p); err != nil || ctx.Err() != nil {
		return release, err
	}
	return release, f.consumer.Run(ctx, p, func(ctx context.Context) error { return f.consumer.CatchUp(ctx, p) })
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

// compare looks now and then which partitions are not at the head of the log, and has them read it: those that are run here at once, and
// while this consumer is in no group, because Kafka is away or has not let it in yet, also those that did not move since the last time, so
// that nothing is stuck until Kafka is back.
func (f *follower) compare(ctx context.Context) {
	before := make([]int64, eventlog.Partitions) // how far they were
	for waited := time.Duration(0); ; {
		pause(ctx, alone)
		if ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		inGroup := f.inGroup
		f.mu.Unlock()
		if waited += alone; inGroup && waited < compare {
			continue
		}
		waited = 0
		heads, err := f.consumer.Source.Heads(ctx, eventlog.HeadsRequest{Topic: f.consumer.Topic})
		if err == nil && !inGroup {
			err = f.consumer.Refresh(ctx)
		}
		if err != nil {
			if ctx.Err() == nil {
				f.consumer.Log.WithError(err).Warn("the heads of a log cannot be read now")
			}
			continue
		}
		for p, head := range heads.Heads[:min(len(heads.Heads), eventlog.Partitions)] {
			at := f.consumer.Applied(int32(p))
			if !f.look(int32(p), head, heads.LogID) && !inGroup && at < head && at == before[p] {
				err := f.consumer.Rescue(ctx, int32(p))
				if errors.Is(err, eventlog.ErrAnotherLog) {
					f.stop(err)
					return
				}
				if err != nil && ctx.Err() == nil {
					f.consumer.Log.WithError(err).WithField("partition", p).Warn("records cannot be applied now")
				}
			}
			before[p] = f.consumer.Applied(int32(p))
		}
	}
}

// look has a partition read the log if it is run here and not at the head, and tells whether it is run here.
func (f *follower) look(p int32, head int64, logID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	nudged := f.owned[p]
	if nudged == nil {
		return false
	}
	f.consumer.Observe(p, head)
	if head != f.consumer.Applied(p) || logID != f.consumer.LogID(p) {
		nudge(nudged)
	}
	return true
}
