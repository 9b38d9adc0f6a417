package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/eventlog"
)

const (
	relayPoll   = time.Second      // a tool may append from another process, and a message that tells of a commit may be lost
	reread      = 10 * time.Second // how often the last records are read although nothing seems wrong
	relayBatch  = 200              // records of a partition that are produced at once
	relayReads  = 4                // reads of the log that run at once
	maxValue    = 900_000          // bytes; consumers read what is larger from the producer
	wakeTopic   = "relay_wakes"    // ephemeral: a replica that does not relay has committed
	wakeDivider = "/"              // between component and topic in the key of such a message
)

// relay is the relay of one component's log, in one process.
type relay struct {
	t       *Transport
	log     *eventlog.Log
	topics  []*topicRelay
	holding atomic.Bool
}

// Relay carries the records of a log's topics into Kafka, while this replica has the lease for that. It returns when ctx ends, or
// with eventlog.ErrAnotherLog when Kafka has another log's records, or later ones.
func (t *Transport) Relay(ctx context.Context, l *eventlog.Log) error {
	r := &relay{t: t, log: l}
	for _, topic := range l.Topics() {
		r.topics = append(r.topics, &topicRelay{relay: r, topic: topic, name: t.topic(topic.Name()), wake: make(chan struct{}, 1),
			outage: outage{log: t.o.Log.WithField("topic", topic.Name()), what: "relaying a topic into kafka"}})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.Hold(ctx, "relay", r.hold) })
	if !l.Sole() {
		for _, topic := range r.topics {
			group.Go(func() error { topic.tellHolder(ctx); return nil })
		}
	}
	return group.Wait()
}

// hold relays all topics while the lease lasts.
func (r *relay) hold(ctx context.Context) error {
	r.holding.Store(true)
	held := r.t.metrics.holder.WithLabelValues(r.log.Component())
	held.Set(1)
	defer func() {
		r.holding.Store(false)
		held.Set(0)
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { r.log.RunPruning(ctx); return nil })
	for _, topic := range r.topics {
		group.Go(func() error { return topic.run(ctx) })
	}
	if !r.log.Sole() {
		group.Go(func() error { return r.t.Subscribe(ctx, wakeTopic, r.told, nil) })
	}
	return group.Wait()
}

// told wakes a topic of which another replica has made a commit.
func (r *relay) told(key string, _ []byte) {
	for _, topic := range r.topics {
		if key == topic.wakeKey() {
			nudge(topic.wake)
		}
	}
}

// topicRelay is the relay of one topic. While this process has the lease, one goroutine runs it.
type topicRelay struct {
	relay  *relay
	topic  *eventlog.Topic
	name   string // in Kafka
	wake   chan struct{}
	outage outage

	client    sarama.Client
	producer  sarama.SyncProducer
	positions [eventlog.Partitions]position
	read      time.Time // when all positions were read
}

// position is where a partition goes on. It is forgotten when it may be wrong.
type position struct {
	known  bool
	next   int64 // sequence
	offset int64 // of the last record in Kafka
}

func (r *topicRelay) wakeKey() string {
	return strings.Join([]string{r.relay.log.Component(), r.topic.Name()}, wakeDivider)
}

// tellHolder tells the replica that has the lease of commits that this one makes.
func (r *topicRelay) tellHolder(ctx context.Context) {
	committed, cancel := r.topic.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case <-committed:
		}
		if r.relay.holding.Load() {
			continue
		}
		// Without it the holder looks a second later.
		if err := r.relay.t.Publish(ctx, wakeTopic, r.wakeKey(), nil); err != nil {
			r.relay.t.o.Log.WithError(err).Debug("the relay cannot be woken")
		}
	}
}

// run relays until ctx ends, with a new connection after each error.
func (r *topicRelay) run(ctx context.Context) error {
	committed, cancel := r.topic.Subscribe()
	defer cancel()
	for {
		err := r.connected(ctx, committed)
		r.disconnect()
		if errors.Is(err, eventlog.ErrAnotherLog) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		r.relay.t.metrics.errors.WithLabelValues(r.topic.Name()).Inc()
		pause(ctx, r.outage.failed(err))
	}
}

// connected relays until an error.
func (r *topicRelay) connected(ctx context.Context, committed <-chan struct{}) error {
	if err := r.connect(); err != nil {
		return err
	}
	ticker := time.NewTicker(relayPoll)
	defer ticker.Stop()
	for {
		if err := r.locate(ctx); err != nil {
			return err
		}
		produced, err := r.pass(ctx)
		if err != nil {
			return err
		}
		r.outage.over()
		if produced {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-committed:
		case <-r.wake:
		case <-ticker.C:
		}
	}
}

// connect makes a client of its own: what others ask of a broker must not stand before what is produced.
func (r *topicRelay) connect() error {
	c := r.relay.t.config()
	c.Net.MaxOpenRequests = 1
	c.Net.ReadTimeout, c.Net.WriteTimeout = netTimeout/2, netTimeout/2
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Timeout = netTimeout / 2
	c.Producer.Retry.Max, c.Producer.Retry.Backoff = 2, 50*time.Millisecond
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Return.Successes, c.Producer.Return.Errors = true, true
	// No Flush settings: a request leaves as soon as none is under way, with all that waits by then.
	client, err := r.relay.t.dial(c)
	if err != nil {
		return err
	}
	r.client = client
	r.positions = [eventlog.Partitions]position{}
	if err := r.relay.t.ensure(r.name); err != nil {
		return err
	}
	if r.producer, err = sarama.NewSyncProducerFromClient(client); err != nil {
		return fmt.Errorf("make a producer: %w", err)
	}
	return nil
}

func (r *topicRelay) disconnect() {
	var err error
	if r.producer != nil {
		err = r.producer.Close()
	}
	if r.client != nil {
		err = errors.Join(err, r.client.Close())
	}
	if err != nil {
		r.outage.log.WithError(err).Debug("closing a connection to kafka")
	}
	r.producer, r.client = nil, nil
}

// locate finds out where the partitions go on whose positions are not known, and every ten seconds where all do.
func (r *topicRelay) locate(ctx context.Context) error {
	if now := time.Now(); now.Sub(r.read) > reread {
		r.read = now
		r.positions = [eventlog.Partitions]position{}
	}
	var unknown []int32
	for p := range r.positions {
		if !r.positions[p].known {
			unknown = append(unknown, int32(p))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	r.relay.t.metrics.rereads.WithLabelValues(r.topic.Name()).Add(float64(len(unknown)))
	found, err := lastRecords(r.client, r.name, unknown)
	if err != nil {
		return err
	}
	// The heads are read after the records: whatever Kafka has was committed by now.
	heads, err := r.topic.Heads(ctx, eventlog.HeadsRequest{Topic: r.topic.Name()})
	if err != nil {
		return err
	}
	for p, l := range found {
		head := heads.Heads[p]
		switch {
		case !l.found:
			r.positions[p] = position{known: true, next: max(head, 1), offset: l.offset}
		case l.logID != heads.LogID || l.seq > head:
			return fmt.Errorf("topic %s of kafka has record %d of log %s in partition %d, the head is %d of log %s: %w If the database is right, stop all components and delete the topic",
				r.name, l.seq, l.logID, p, head, heads.LogID, eventlog.ErrAnotherLog)
		default:
			r.positions[p] = position{known: true, next: l.seq + 1, offset: l.offset}
		}
	}
	return nil
}

// pass produces what waits in all partitions, and tells whether there was anything.
func (r *topicRelay) pass(ctx context.Context) (bool, error) {
	heads, err := r.topic.Heads(ctx, eventlog.HeadsRequest{Topic: r.topic.Name()})
	if err != nil {
		return false, err
	}
	var records [eventlog.Partitions][]eventlog.Record
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(relayReads)
	for p := range int32(eventlog.Partitions) {
		if r.positions[p].known && r.positions[p].next <= heads.Heads[p] {
			group.Go(func() (err error) {
				records[p], err = r.waiting(reading, p, heads.Heads[p])
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	var all []eventlog.Record
	for p := range records {
		all = append(all, records[p]...)
	}
	if len(all) == 0 {
		return false, nil
	}
	if err := r.relay.log.Failpoint("relay.read"); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, ctx.Err() // the lease may be lost
	}
	if err := r.produce(ctx, heads.LogID, all); err != nil {
		return false, err
	}
	return true, r.relay.log.Failpoint("relay.produced")
}

// waiting reads what a partition waits with.
func (r *topicRelay) waiting(ctx context.Context, p int32, head int64) ([]eventlog.Record, error) {
	answer, err := r.topic.Read(ctx, eventlog.ReadRequest{Topic: r.topic.Name(), Partition: p, From: r.positions[p].next, Limit: relayBatch})
	if errors.Is(err, eventlog.ErrMissing) {
		// Every consumer has applied it. Nobody misses what lies between either, or whoever does reads it from here.
		r.positions[p].next = head + 1
		return nil, nil
	}
	return answer.Records, err
}

// produce sends the records, and moves the positions if they came to lie where they should.
func (r *topicRelay) produce(ctx context.Context, logID string, records []eventlog.Record) (err error) {
	_, finish := eventlog.Span(ctx, r.relay.t.o.Tracer, "relay "+r.topic.Name(), records)
	defer func() { finish(err) }()
	messages := make([]*sarama.ProducerMessage, len(records))
	for i := range records {
		if messages[i], err = r.message(logID, &records[i]); err != nil {
			return err
		}
	}
	if err := r.producer.SendMessages(messages); err != nil {
		if all, is := errors.AsType[sarama.ProducerErrors](err); is && len(all) > 0 {
			err = all[0].Err
		}
		return fmt.Errorf("produce to %s: %w", r.name, err)
	}
	for i, m := range messages {
		at := &r.positions[m.Partition]
		if !at.known {
			continue
		}
		if m.Offset != at.offset+1 {
			at.known = false // somebody else has produced, or the partition is another one
			continue
		}
		at.offset, at.next = m.Offset, records[i].Seq+1
	}
	r.relay.t.metrics.produced.WithLabelValues(r.topic.Name()).Add(float64(len(records)))
	return nil
}

func (r *topicRelay) message(logID string, record *eventlog.Record) (*sarama.ProducerMessage, error) {
	value, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("record %s/%d/%d: %w", record.Topic, record.Partition, record.Seq, err)
	}
	m := &sarama.ProducerMessage{Topic: r.name, Partition: record.Partition, Key: sarama.StringEncoder(record.Key),
		Headers: []sarama.RecordHeader{{Key: []byte(headerLog), Value: []byte(logID)},
			{Key: []byte(headerSeq), Value: strconv.AppendInt(nil, record.Seq, 10)}}}
	if len(value) <= maxValue {
		m.Value = sarama.ByteEncoder(value)
	}
	return m, nil
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
