package eventlog

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Start says where a consumer begins that has never run.
type Start int

// The places to begin.
const (
	Oldest Start = iota // with the first record that the log still has
	Newest              // with the next record
)

const (
	batchSize    = 100 // records that are applied in one transaction
	panicsToPark = 3   // a record that makes its handler panic so often can never be applied
	maxBackoff   = 10 * time.Second
)

// ErrAnotherLog says that the producer's log is not the one that this consumer has followed: one of the two databases was
// replaced or restored. Nothing can be right from here on, so the consumer stops.
var ErrAnotherLog = errors.New("the log is another one than was followed so far, or has lost its end: was a database replaced or restored?")

// errLostClaim says that another replica has applied records of a partition that this one thought its own.
var errLostClaim = errors.New("another replica follows this partition")

// Apply writes what a batch of records means, in the transaction that moves the offset.
type Apply func(ctx context.Context, tx *sqlutil.Tx) error

// run turns a panic into an error.
func (a Apply) run(ctx context.Context, tx *sqlutil.Tx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return a(ctx, tx)
}

// ConsumerConfig says what follows which topic, and how.
type ConsumerConfig struct {
	// Name is the consumer's within its component. It must never change: the offsets are kept under it.
	Name  string
	Topic string
	// Component is whose tables in DB keep the offsets.
	Component string
	DB        *sqlutil.DB
	Source    Source
	Start     Start
	// Handle prepares a batch of consecutive records of one partition, outside any transaction: it decodes, asks others, computes.
	// It may be called again for the same records. An error that Permanent marked parks the key of the record; any other is
	// waited out. A nil Apply has nothing to write.
	Handle func(ctx context.Context, records []Record) (Apply, error)
	// Idle tells that nobody wants what the records say, so that they are passed over without a look, now and then, and
	// their offset is written even less often. When that ends, as many as pass before an offset is written may be handled
	// all the same. Nil: never.
	Idle func() bool
	// Commit runs a transaction; nil: DB.Write. A component that gathers transactions gives its own.
	Commit func(ctx context.Context, name string, fn func(ctx context.Context, tx *sqlutil.Tx) error) error

	Log     *logrus.Entry
	Tracer  opentracing.Tracer
	Metrics prometheus.Registerer
}

// Consumer applies the records of a topic, each exactly once and in the order of its partition.
type Consumer struct {
	ConsumerConfig
	tables consumerTables
	lag    *prometheus.GaugeVec
	parked prometheus.Gauge

	starting sync.Mutex // held while registering
	started  bool
	holds    [Partitions]chan struct{} // full while somebody in this process runs the partition
	asking   chan struct{}             // full while one of those who wait asks how far partitions are applied, for all
	due      time.Time                 // when the next such question is, as who asked before left it to who asks now
	arrived  chan struct{}             // full when somebody has begun to wait

	mu         sync.Mutex
	partitions [Partitions]partition
	wake       func(p int32) // makes the owner of a partition read the log, if it is here
	reported   []int64       // what the producer was told last
}

// partition is what a consumer knows of one partition. Whoever runs it is one goroutine; the lock is for those who wait.
type partition struct {
	owned bool
	logID string
	// at is the last record that is applied, as its owner knows it, and parked are the keys whose records were put aside until
	// there. The two are only read together: whoever moves the offset on from at has seen all that was parked before.
	at     int64
	parked map[string]bool
	// written is the offset in the database: at, or before it where the consumer was idle.
	written int64
	// again are parked keys that the operator wants to have tried again.
	again  []string
	panics int
	// applied is the last record that anybody is known to have applied.
	applied int64
	moved   time.Time // when that was seen, or help was called for last
	waiting map[*subscription]struct{}
}

// NewConsumer makes the tables of the offsets, where they are missing. A Transport runs the consumer.
func NewConsumer(ctx context.Context, c ConsumerConfig) (*Consumer, error) {
	if c.Commit == nil {
		c.Commit = c.DB.Write
	}
	if c.Tracer == nil {
		c.Tracer = opentracing.NoopTracer{}
	}
	if c.Log == nil {
		c.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	c.Log = c.Log.WithFields(logrus.Fields{"consumer": c.Name, "topic": c.Topic})
	if err := createTables(ctx, c.DB, c.Component); err != nil {
		return nil, err
	}
	labels := prometheus.Labels{"consumer": c.Name, "topic": c.Topic}
	k := &Consumer{ConsumerConfig: c, tables: newConsumerTables(c.DB, c.Component),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dendrite_log_lag_records", ConstLabels: labels,
			Help: "Records of a partition that are committed and not applied yet."}, []string{"partition"}),
		parked: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dendrite_log_parked_keys", ConstLabels: labels,
			Help: "Keys whose records are put aside because one of them cannot be applied."}),
		asking: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
	for p := range k.holds {
		k.holds[p] = make(chan struct{}, 1)
	}
	if c.Metrics != nil {
		for _, collector := range []prometheus.Collector{k.lag, k.parked} {
			if err := c.Metrics.Register(collector); err != nil {
				return nil, fmt.Errorf("consumer %s: %w", c.Name, err)
			}
		}
	}
	return k, k.Refresh(ctx)
}

// Claim takes a partition: it reads how far it has been applied, makes sure that the log is the same, and tries parked records
// again. The first claim of a process registers the consumer with the producer. It waits until nobody else in this process runs the
// partition.
func (c *Consumer) Claim(ctx context.Context, p int32) error {
	select {
	case c.holds[p] <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("claim %s/%d: %w", c.Topic, p, ctx.Err())
	}
	return c.claim(ctx, p)
}

// claim is Claim for who has the hold of the partition, which is given up on an error.
func (c *Consumer) claim(ctx context.Context, p int32) (err error) {
	defer func() {
		if err != nil {
			c.Release(p)
		}
	}()
	heads, err := c.begin(ctx)
	if err != nil {
		return err
	}
	if err := c.reload(ctx, p); err != nil {
		return err
	}
	part := &c.partitions[p]
	if part.logID == heads.LogID && part.at > heads.Heads[p] {
		// Another replica may have gone on since the heads were read.
		if heads, err = c.Source.Heads(ctx, HeadsRequest{Topic: c.Topic}); err != nil {
			return fmt.Errorf("heads of %s: %w", c.Topic, err)
		}
	}
	if part.logID != heads.LogID || part.at > heads.Heads[p] {
		return fmt.Errorf("%s/%d: applied up to %d of log %s, the head is %d of log %s: %w", c.Topic, p, part.at, part.logID, heads.Heads[p], heads.LogID, ErrAnotherLog)
	}
	c.mu.Lock()
	part.owned, part.panics = true, 0
	c.mu.Unlock()
	return c.retryParked(ctx, p)
}

// reload reads how far a partition is applied and what is parked, in one snapshot.
func (c *Consumer) reload(ctx context.Context, p int32) error {
	var state offset
	var keys map[string]bool
	err := c.DB.Read(ctx, "offset", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		keys = make(map[string]bool)
		if state, err = c.tables.offset(ctx, tx, c.Name, p); err != nil {
			return err
		}
		return c.tables.keysParked(ctx, tx, c.Name, p, keys)
	})
	if err != nil {
		return fmt.Errorf("offset of %s/%d: %w", c.Topic, p, err)
	}
	c.mu.Lock()
	part := &c.partitions[p]
	c.parked.Add(float64(len(keys) - len(part.parked)))
	part.logID, part.at, part.written, part.parked, part.again = state.logID, state.seq, state.seq, keys, nil
	c.mu.Unlock()
	c.advance(p, state.seq)
	return nil
}

// Release gives a claimed partition up.
func (c *Consumer) Release(p int32) {
	c.mu.Lock()
	part := &c.partitions[p]
	c.parked.Sub(float64(len(part.parked)))
	part.owned, part.parked, part.again = false, nil, nil
	c.mu.Unlock()
	<-c.holds[p]
}

// LogID is the id of the log that a claimed partition follows.
func (c *Consumer) LogID(p int32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[p].logID
}

// position is the last record that the owner of a partition has applied.
func (c *Consumer) position(p int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[p].at
}

// moved notes that the owner of a partition has applied its records so far.
func (c *Consumer) moved(p int32, seq int64) {
	c.mu.Lock()
	c.partitions[p].at = seq
	c.mu.Unlock()
	c.advance(p, seq)
}

// Applied is the last record of a partition that is applied, as far as this process knows.
func (c *Consumer) Applied(p int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partitions[p].applied
}

// Observe tells the metric of the lag where the head of a partition is.
func (c *Consumer) Observe(p int32, head int64) {
	c.lag.WithLabelValues(strconv.Itoa(int(p))).Set(float64(max(0, head-c.Applied(p))))
}

// CatchUp reads the log of a claimed partition from the producer and applies it, until the head is reached; where the
// consumer is idle, it reads nothing. Before, it tries the parked keys again that the operator has named.
func (c *Consumer) CatchUp(ctx context.Context, p int32) error {
	if err := c.retryAsked(ctx, p); err != nil {
		return err
	}
	if c.idle(p) {
		return c.skip(ctx, p)
	}
	for {
		applied := c.position(p)
		answer, err := c.Source.Read(ctx, ReadRequest{Topic: c.Topic, Partition: p, From: applied + 1, Limit: batchSize})
		if err != nil {
			return fmt.Errorf("read %s/%d: %w", c.Topic, p, err)
		}
		if answer.LogID != c.LogID(p) || answer.Head < applied {
			return fmt.Errorf("%s/%d: applied up to %d, the head is %d: %w", c.Topic, p, applied, answer.Head, ErrAnotherLog)
		}
		c.Observe(p, answer.Head)
		if len(answer.Records) == 0 {
			return nil
		}
		if err := c.Take(ctx, p, answer.Records); err != nil {
			return err
		}
		if c.position(p) >= answer.Head {
			c.Observe(p, answer.Head)
			return nil
		}
	}
}

// Take applies records of a claimed partition that a transport has brought: what is applied already is left out, and what is
// missing before them is read from the producer.
func (c *Consumer) Take(ctx context.Context, p int32, records []Record) error {
	for len(records) > 0 {
		applied := c.position(p)
		switch first := records[0].Seq; {
		case first <= applied:
			records = records[1:]
			continue
		case first > applied+1:
			if err := c.CatchUp(ctx, p); err != nil {
				return err
			}
			if c.position(p) == applied {
				return fmt.Errorf("%s/%d: record %d was brought, and the producer has none after %d: %w", c.Topic, p, first, applied, ErrAnotherLog)
			}
			continue
		}
		n := 1
		for n < len(records) && n < batchSize && records[n].Seq == records[0].Seq+int64(n) {
			n++
		}
		if err := c.apply(ctx, p, records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
}

// Own claims a partition as soon as that can be done, or ctx ends. release gives it up; it does nothing where the claim failed.
func (c *Consumer) Own(ctx context.Context, p int32) (release func(), err error) {
	release = func() {}
	err = c.Run(ctx, p, func(ctx context.Context) error {
		err := c.Claim(ctx, p)
		if err == nil {
			release = func() { c.Release(p) }
		}
		return err
	})
	return release, err
}

// Run brings a claimed partition up to date, as often as it is called for, and waits out whatever passes. It returns when ctx
// ends, or with ErrAnotherLog. step is CatchUp, or a Take of what a transport has brought.
func (c *Consumer) Run(ctx context.Context, p int32, step func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, maxBackoff) {
		err := step(ctx)
		if err == nil || errors.Is(err, ErrAnotherLog) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errLostClaim) {
			c.Log.WithField("partition", p).Debug("another replica is ahead")
			err = c.reload(ctx, p)
		}
		if err != nil {
			c.Log.WithError(err).WithFields(logrus.Fields{"partition": p, "again_in": wait}).Warn("records cannot be applied now")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// apply applies consecutive records. Those of a parked key are put aside. If one of several can never be applied, they are
// applied one by one.
func (c *Consumer) apply(ctx context.Context, p int32, records []Record) error {
	part := &c.partitions[p]
	err := c.applyBatch(ctx, p, records)
	if err == nil {
		part.panics = 0
		return nil
	}
	if !IsPermanent(err) && !isPanic(err) {
		return err
	}
	if len(records) > 1 {
		for i := range records {
			if err := c.apply(ctx, p, records[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	if isPanic(err) {
		if part.panics++; part.panics < panicsToPark {
			return err
		}
	}
	part.panics = 0
	return c.park(ctx, p, &records[0], err)
}

type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

func isPanic(err error) bool {
	_, is := errors.AsType[*panicked](err)
	return is
}

func (c *Consumer) applyBatch(ctx context.Context, p int32, records []Record) (err error) {
	ctx, finish := Span(ctx, c.Tracer, "apply "+c.Topic+" by "+c.Component, records)
	defer func() { finish(err) }()
	last := records[len(records)-1].Seq
	if c.idle(p) {
		return c.passOver(ctx, p, last)
	}
	wanted, aside := c.split(p, records)
	var write Apply
	if len(wanted) > 0 {
		if write, err = c.handle(ctx, wanted); err != nil {
			return err
		}
	}
	if err := c.DB.Failpoint("consumer.handled"); err != nil {
		return err
	}
	return c.commit(ctx, p, last, aside, write)
}

// commit moves the offset of a partition on, and writes what was found on the way.
func (c *Consumer) commit(ctx context.Context, p int32, last int64, aside [][]any, write Apply) error {
	part := &c.partitions[p]
	err := c.Commit(ctx, "apply "+c.Topic, func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		moved, err := c.tables.move.Exec(ctx, tx, c.Name, p, part.written, last)
		if err != nil {
			return err
		}
		if moved == 0 {
			return errLostClaim
		}
		if err := c.DB.Failpoint("consumer.moved"); err != nil {
			return err
		}
		if len(aside) > 0 {
			if _, err := c.tables.park.Exec(ctx, tx, aside); err != nil {
				return err
			}
		}
		if write != nil {
			if err := write.run(ctx, tx); err != nil {
				return err
			}
		}
		return c.DB.Failpoint("consumer.written")
	})
	if err != nil {
		if errors.Is(err, sqlutil.ErrCommitUnknown) {
			// The offset says whether it took place.
			if reload := c.reload(ctx, p); reload != nil {
				return errors.Join(err, reload)
			}
			if c.position(p) >= last {
				return nil
			}
		}
		return err
	}
	part.written = last
	c.moved(p, last)
	return c.DB.Failpoint("consumer.committed")
}

// handle runs the handler and turns a panic into an error.
func (c *Consumer) handle(ctx context.Context, records []Record) (write Apply, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return c.Handle(ctx, records)
}

// split separates the records of parked keys, as rows of the parked table.
func (c *Consumer) split(p int32, records []Record) (wanted []Record, aside [][]any) {
	parked := c.partitions[p].parked
	if len(parked) == 0 {
		return records, nil
	}
	for i := range records {
		if r := &records[i]; parked[r.Key] {
			aside = append(aside, c.parkedRow(r, "an earlier record of its key is parked"))
		} else {
			wanted = append(wanted, *r)
		}
	}
	return wanted, aside
}

// advance notes how far a partition is applied, and lets go those who waited for that.
func (c *Consumer) advance(p int32, seq int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if part := &c.partitions[p]; seq > part.applied {
		part.applied, part.moved = seq, time.Now()
		part.settle(seq, nil)
	}
}
