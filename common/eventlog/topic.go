package eventlog

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// recent is how many records of each partition stay in memory for consumers of the same process.
const recent = 32

// maxRead limits how many records one read returns.
const maxRead = 500

// ErrMissing says that a log no longer has a record: all consumers that it knew had applied it. One that still needs it was forgotten
// by the operator (see Operator), or has lost what it had applied.
var ErrMissing = errors.New("the log no longer has it")

// Options of a Log.
type Options struct {
	Log    *logrus.Entry
	Tracer opentracing.Tracer
	// Sole says that no other process appends to this log while this one runs, but for tools, whose records may be seen a second
	// later: heads are then known without asking the database.
	Sole bool
}

// Log is the log of one component, as its producer.
type Log struct {
	db        *sqlutil.DB
	component string
	o         Options
	tables    producerTables

	mu     sync.Mutex
	topics map[string]*Topic
}

// New opens the log of a component in its database.
func New(ctx context.Context, db *sqlutil.DB, component string, o Options) (*Log, error) {
	if o.Tracer == nil {
		o.Tracer = opentracing.NoopTracer{}
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if err := createTables(ctx, db, component); err != nil {
		return nil, err
	}
	return &Log{db: db, component: component, o: o, tables: newProducerTables(db, component), topics: make(map[string]*Topic)}, nil
}

// Topic is one topic of a log.
type Topic struct {
	log   *Log
	name  string
	id    string
	store Store
	// pruned says that the records go when nobody needs them: they lie in the log's own table.
	pruned bool

	mu sync.Mutex
	// heads are the last sequences that this process knows of, and asked is when they were last read from the database.
	heads []int64
	asked time.Time
	// recent has the last records of each partition, without a gap and up to the head; or none.
	recent [Partitions][]Record
	wake   map[chan struct{}]struct{}
}

// Topic opens a topic of the log; store may be nil.
func (l *Log) Topic(ctx context.Context, name string, store Store) (*Topic, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.topics[name]; t != nil {
		return t, nil
	}
	t := &Topic{log: l, name: name, store: store, heads: make([]int64, Partitions), wake: make(map[chan struct{}]struct{})}
	if store == nil {
		t.store, t.pruned = &rowStore{l, name}, true
	}
	err := l.db.Write(ctx, "open topic", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := l.tables.logID.QueryRow(ctx, tx, name).Scan(&t.id); !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := l.tables.insertLogID.Exec(ctx, tx, [][]any{{name, rand.Text()}}); err != nil {
			return err
		}
		counters := make([][]any, Partitions)
		for p := range counters {
			counters[p] = []any{name, p, 0}
		}
		if _, err := l.tables.counters.Exec(ctx, tx, counters); err != nil {
			return err
		}
		return l.tables.logID.QueryRow(ctx, tx, name).Scan(&t.id)
	})
	if err == nil {
		_, err = t.readHeads(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("topic %s of %s: %w", name, l.component, err)
	}
	l.topics[name] = t
	return t, nil
}

// Name is the topic's name.
func (t *Topic) Name() string { return t.name }

// Component is whose log it is.
func (l *Log) Component() string { return l.component }

// Sole tells whether no other process appends to this log, but for tools.
func (l *Log) Sole() bool { return l.o.Sole }

// Failpoint is passed by transports at each of their named steps; see sqlutil.DB.SetFailpoints.
func (l *Log) Failpoint(name string) error { return l.db.Failpoint(name) }

// pending is what a transaction has appended.
type pending struct{ records []Appended }

type pendingKey struct{ t *Topic }

// Append adds a record to the transaction. It gets its place in the log when the transaction commits. A value with a method
// LogValue stands for what that returns; the Store gets the value itself.
func (t *Topic) Append(ctx context.Context, tx *sqlutil.Tx, key, typ string, value any) {
	p := tx.Value(pendingKey{t}, func() any {
		p := new(pending)
		tx.BeforeCommit(func(ctx context.Context, tx *sqlutil.Tx) error { return t.place(ctx, tx, p.records) })
		tx.OnRollback(t.doubt)
		return p
	}).(*pending)
	p.records = append(p.records, Appended{Partition: Partition(key), Key: key, Type: typ, Time: time.Now().UnixMilli(), Value: value, Trace: injectTrace(ctx, t.log.o.Tracer)})
}

// place takes the counters and inserts the records. It is the last thing that the transaction does.
func (t *Topic) place(ctx context.Context, tx *sqlutil.Tx, records []Appended) error {
	slices.SortStableFunc(records, func(a, b Appended) int { return cmp.Compare(a.Partition, b.Partition) })
	if err := t.log.db.Failpoint("append.before"); err != nil {
		return err
	}
	if err := t.take(ctx, tx, records); err != nil {
		return err
	}
	if err := t.store.Insert(ctx, tx, records); err != nil {
		return fmt.Errorf("append to %s: %w", t.name, err)
	}
	tx.AfterCommit(func() { t.committed(records) })
	return t.log.db.Failpoint("append.after")
}

// take takes the counters of the partitions that records are in, in their order, and gives the records their sequences. It does
// so with one statement, however many partitions there are.
func (t *Topic) take(ctx context.Context, tx *sqlutil.Tx, records []Appended) error {
	var counts, next [Partitions]int64
	var rows [][]any
	for from := 0; from < len(records); {
		p, to := records[from].Partition, from+1
		for to < len(records) && records[to].Partition == p {
			to++
		}
		counts[p] = int64(to - from)
		rows = append(rows, []any{t.name, p, counts[p]})
		from = to
	}
	var err error
	if tables := &t.log.tables; len(rows) == 1 {
		p := records[0].Partition
		err = tables.take.QueryRow(ctx, tx, t.name, p, counts[p]).Scan(&next[p])
	} else {
		err = tables.takeAll.Query(ctx, tx, rows, func(rows *sql.Rows) error { return scanPair(rows, next[:]) })
	}
	if err != nil {
		return fmt.Errorf("counters of %s: %w", t.name, err)
	}
	for p, n := range counts {
		next[p] -= n
	}
	for i := range records {
		p := records[i].Partition
		next[p]++
		records[i].Seq = next[p]
	}
	return nil
}

// committed keeps the records for consumers of this process, and wakes them.
func (t *Topic) committed(records []Appended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range records {
		p := r.Partition
		if r.Seq <= t.heads[p] {
			continue // a later commit was told of first, or the heads were read meanwhile
		}
		if r.Seq != t.heads[p]+1 {
			t.recent[p] = nil // another process has appended between, or an earlier commit is told of later
		}
		if len(t.recent[p]) == recent {
			t.recent[p] = append(t.recent[p][:0:0], t.recent[p][recent/2:]...)
		}
		value := r.Value
		if v, is := value.(interface{ LogValue() any }); is {
			value = v.LogValue()
		}
		t.recent[p] = append(t.recent[p], Record{Topic: t.name, Partition: p, Seq: r.Seq, Key: r.Key, Type: r.Type, Time: r.Time, Trace: r.Trace, Decoded: value})
		t.heads[p] = r.Seq
	}
	for c := range t.wake {
		nudge(c)
	}
}

// doubt makes the next Heads ask the database: a transaction that seems to have failed may have taken place.
func (t *Topic) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = time.Time{}
}

// Topics lists the topics that are open.
func (l *Log) Topics() []*Topic {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.topics))
}

// Subscribe returns a channel that gets something after each commit, until cancel is called.
func (t *Topic) Subscribe() (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wake[c] = struct{}{}
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.wake, c)
	}
}

// Heads has the signature of a contract's call.
func (t *Topic) Heads(ctx context.Context, q HeadsRequest) (HeadsResponse, error) {
	if q.Report != nil {
		return t.note(ctx, q.Report)
	}
	if t.log.o.Sole {
		t.mu.Lock()
		heads, fresh := slices.Clone(t.heads), time.Since(t.asked) < pollHeads
		t.mu.Unlock()
		if fresh { // otherwise a tool may have appended
			return HeadsResponse{LogID: t.id, Heads: heads}, nil
		}
	}
	return t.readHeads(ctx)
}

// readHeads asks the database.
func (t *Topic) readHeads(ctx context.Context) (HeadsResponse, error) {
	heads := make([]int64, Partitions)
	began := time.Now()
	err := t.log.db.ReadOne(ctx, "log heads", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := t.log.tables.heads.Query(ctx, tx, t.name)
		if err != nil {
			return err
		}
		return scanPairs(rows, heads)
	})
	if err != nil {
		return HeadsResponse{}, fmt.Errorf("heads of %s: %w", t.name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = began
	for p, head := range heads {
		if head > t.heads[p] {
			t.heads[p], t.recent[p] = head, nil
		}
	}
	return HeadsResponse{LogID: t.id, Heads: slices.Clone(heads)}, nil
}

// Read has the signature of a contract's call.
func (t *Topic) Read(ctx context.Context, q ReadRequest) (ReadResponse, error) {
	records, head, err := t.read(ctx, q)
	if err != nil {
		return ReadResponse{}, fmt.Errorf("read %s/%d from %d: %w", t.name, q.Partition, q.From, err)
	}
	return ReadResponse{LogID: t.id, Head: head, Records: records}, nil
}

func (t *Topic) read(ctx context.Context, q ReadRequest) (records []Record, head int64, err error) {
	if q.Topic != t.name || q.Partition < 0 || q.Partition >= Partitions || q.From < 1 {
		return nil, 0, fmt.Errorf("there is no %s/%d from %d", q.Topic, q.Partition, q.From)
	}
	limit := q.Limit
	if limit <= 0 || limit > maxRead {
		limit = maxRead
	}
	t.mu.Lock()
	if held := t.recent[q.Partition]; len(held) > 0 && q.From >= held[0].Seq && q.From <= t.heads[q.Partition] {
		records = slices.Clone(held[q.From-held[0].Seq:])
		head = t.heads[q.Partition]
	}
	t.mu.Unlock()
	if records != nil {
		return records[:min(limit, len(records))], head, nil
	}
	err = t.log.db.Read(ctx, "read log", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := t.log.tables.head.QueryRow(ctx, tx, t.name, q.Partition).Scan(&head); err != nil {
			return err
		}
		records, err = t.store.Read(ctx, tx, q.Partition, q.From, limit)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	for i, r := range records {
		if r.Seq != q.From+int64(i) {
			return nil, head, fmt.Errorf("record %d: %w", q.From+int64(i), ErrMissing)
		}
	}
	if len(records) == 0 && q.From <= head {
		return nil, head, fmt.Errorf("record %d: %w", q.From, ErrMissing)
	}
	return records, head, nil
}

// rowStore keeps records in the log's own table.
type rowStore struct {
	log   *Log
	topic string
}

func (s *rowStore) Insert(ctx context.Context, tx *sqlutil.Tx, records []Appended) error {
	rows := make([][]any, len(records))
	for i, r := range records {
		value, err := json.Marshal(r.Value)
		if err != nil {
			return fmt.Errorf("encode a %s: %w", r.Type, err)
		}
		rows[i] = []any{s.topic, r.Partition, r.Seq, r.Key, r.Type, r.Time, value, r.Trace}
	}
	_, err := s.log.tables.rows.Exec(ctx, tx, rows)
	return err
}

func (s *rowStore) Read(ctx context.Context, tx *sqlutil.Tx, partition int32, from int64, limit int) ([]Record, error) {
	rows, err := s.log.tables.read.Query(ctx, tx, s.topic, partition, from, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Record, error) {
		r := Record{Topic: s.topic, Partition: partition}
		return r, rows.Scan(&r.Seq, &r.Key, &r.Type, &r.Time, (*[]byte)(&r.Value), &r.Trace)
	})
}
