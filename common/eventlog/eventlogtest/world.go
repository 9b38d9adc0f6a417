// Package eventlogtest has the conformance suite of the transports of common/eventlog: one body for all. Whatever is killed, lost,
// doubled or reordered, every appended record is applied exactly once and in order.
//
// A transport's test calls Run with a Harness that says how to make transports and what can be done to what lies between them.
package eventlogtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Harness is a kind of transport, as the suite needs it.
type Harness struct {
	// New makes a transport as a process of its own has it. All that are made during one test reach each other.
	New func(t *testing.T) eventlog.Transport
	// Restart ends and starts what lies between the processes; Wipe also empties it. Nil where there is nothing, or where it
	// cannot be done.
	Restart, Wipe func(t *testing.T)
	// Failpoints are the transport's own named steps.
	Failpoints []string
	Log        *logrus.Entry
}

// patience is how long a test waits for something that must happen.
const patience = 40 * time.Second

// Databases runs a test on SQLite, and on Postgres where DENDRITE_TEST_POSTGRES names one.
func Databases(t *testing.T, body func(t *testing.T, open func(t *testing.T) *sqlutil.DB)) {
	t.Run("sqlite", func(t *testing.T) {
		body(t, openSQLite)
	})
	t.Run("postgres", func(t *testing.T) {
		address := os.Getenv("DENDRITE_TEST_POSTGRES")
		if address == "" {
			if os.Getenv("DENDRITE_TEST_REQUIRE") == "1" {
				t.Fatal("DENDRITE_TEST_POSTGRES is not set")
			}
			t.Skip("DENDRITE_TEST_POSTGRES is not set")
		}
		body(t, func(t *testing.T) *sqlutil.DB { return open(t, address) })
	})
}

func openSQLite(t *testing.T) *sqlutil.DB {
	return open(t, "file:"+filepath.Join(t.TempDir(), "test.db"))
}

func open(t *testing.T, connection string) *sqlutil.DB {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection, MaxOpenConns: 8}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// world is a log with those who append to it and those who follow it. Each of the two sides has a database.
type world struct {
	t       *testing.T
	h       Harness
	name    string // of both components: no other test has it
	written *sqlutil.DB
	read    *sqlutil.DB
	log     *logrus.Entry
	sent    atomic.Int64

	sending  *sqlutil.Insert
	applying *sqlutil.Insert
	applied  *sqlutil.Stmt

	mu     sync.Mutex
	handle func(*eventlog.Record) error // may fail before a record is applied
	apply  func(*eventlog.Record) error // may fail while it is
	source *eventlog.Topic
}

const topicName = "things"

func newWorld(t *testing.T, h Harness, openDB func(*testing.T) *sqlutil.DB) *world {
	t.Helper()
	w := &world{t: t, h: h, name: "t" + strings.ToLower(rand.Text()[:12]), written: openDB(t), read: openDB(t)}
	log := logrus.New()
	log.SetOutput(t.Output())
	log.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	w.log = logrus.NewEntry(log)
	const tables = `CREATE TABLE COMPONENT_sent (name TEXT PRIMARY KEY)`
	const results = `CREATE TABLE COMPONENT_applied (n BIGSERIAL PRIMARY KEY, part BIGINT NOT NULL, seq BIGINT NOT NULL, key TEXT NOT NULL, value BIGINT NOT NULL)`
	for db, text := range map[*sqlutil.DB]string{w.written: tables, w.read: results} {
		if err := db.Script(t.Context(), strings.ReplaceAll(text, "COMPONENT", w.name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(w.drop)
	w.sending = w.written.Insert(w.name+"_sent", []string{"name"}, "")
	w.applying = w.read.Insert(w.name+"_applied", []string{"part", "seq", "key", "value"}, "")
	w.applied = w.read.Stmt("SELECT part, seq, key, value FROM " + w.name + "_applied ORDER BY n")
	return w
}

func (w *world) drop() {
	w.written.SetFailpoints(nil)
	w.read.SetFailpoints(nil)
	if w.written.Dialect() == sqlutil.SQLite {
		return // its file goes
	}
	for _, table := range []string{"sent", "applied", "log_topics", "log_counters", "log_rows", "log_leases", "log_offsets", "log_parked",
		"log_retries", "log_consumers", "log_pruned"} {
		if err := w.written.Script(context.Background(), "DROP TABLE IF EXISTS "+w.name+"_"+table); err != nil {
			w.t.Error(err)
		}
	}
}

// both arms the failpoints of both databases.
func (w *world) both(fail func(string) error) {
	w.written.SetFailpoints(fail)
	w.read.SetFailpoints(fail)
}

// producer is a process that appends.
type producer struct {
	w     *world
	log   *eventlog.Log
	topic *eventlog.Topic
	stop  func()
	err   func() error
}

func (w *world) producer(transport eventlog.Transport) *producer {
	w.t.Helper()
	log, err := eventlog.New(w.t.Context(), w.written, w.name, eventlog.Options{Log: w.log})
	if err != nil {
		w.t.Fatal(err)
	}
	topic, err := log.Topic(w.t.Context(), topicName, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &producer{w: w, log: log, topic: topic}
	p.stop, p.err = background(w.t, func(ctx context.Context) error { return transport.Relay(ctx, log) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.source == nil {
		w.source = topic
	}
	return p
}

// background runs something until stop is called or the test ends. err waits for its end and tells how it was.
func background(t *testing.T, run func(context.Context) error) (stop func(), err func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = run(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("it does not stop")
		}
	}
	t.Cleanup(stop)
	return stop, func() error {
		select {
		case <-done:
			return failed
		case <-time.After(patience):
			return errors.New("it does not end")
		}
	}
}

type value struct {
	N int64 `json:"n"`
}

// send appends the nth record of a key. It tries until it knows that the record is committed.
func (p *producer) send(key string, n int64) error {
	name := fmt.Sprintf("%s %d", key, n)
	deadline := time.Now().Add(patience)
	for {
		err := p.w.written.Write(p.w.t.Context(), "send", func(ctx context.Context, tx *sqlutil.Tx) error {
			if _, err := p.w.sending.Exec(ctx, tx, [][]any{{name}}); err != nil {
				return err
			}
			p.topic.Append(ctx, tx, key, "thing", &value{n})
			return nil
		})
		if err == nil || sqlutil.IsUniqueViolation(err) {
			p.w.sent.Add(1)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// sendAll sends records from to before to of some keys, those of different keys at the same time.
func (p *producer) sendAll(keys int, from, to int64) {
	p.w.t.Helper()
	var all sync.WaitGroup
	for k := range keys {
		all.Go(func() {
			for n := from; n < to; n++ {
				if err := p.send(fmt.Sprintf("key%d", k), n); err != nil {
					p.w.t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// follower is a process that follows.
type follower struct {
	*eventlog.Consumer
	stop func()
	err  func() error
}

func (w *world) consumer(change ...func(*eventlog.ConsumerConfig)) *eventlog.Consumer {
	w.t.Helper()
	w.mu.Lock()
	source := w.source
	w.mu.Unlock()
	c := eventlog.ConsumerConfig{Name: "reader", Topic: topicName, Component: w.name, DB: w.read, Log: w.log, Handle: w.handler,
		Source: eventlog.Source{Read: source.Read, Heads: source.Heads}}
	for _, change := range change {
		change(&c)
	}
	consumer, err := eventlog.NewConsumer(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return consumer
}

func (w *world) follower(transport eventlog.Transport, change ...func(*eventlog.ConsumerConfig)) *follower {
	w.t.Helper()
	return w.follow(transport, w.consumer(change...))
}

func (w *world) follow(transport eventlog.Transport, c *eventlog.Consumer) *follower {
	w.t.Helper()
	f := &follower{Consumer: c}
	f.stop, f.err = background(w.t, func(ctx context.Context) error { return transport.Follow(ctx, f.Consumer) })
	return f
}

func (w *world) fails(handle, apply func(*eventlog.Record) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle, w.apply = handle, apply
}

func (w *world) handler(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	w.mu.Lock()
	handle, apply := w.handle, w.apply
	w.mu.Unlock()
	rows := make([][]any, len(records))
	for i := range records {
		r := &records[i]
		if handle != nil {
			if err := handle(r); err != nil {
				return nil, err
			}
		}
		v, err := eventlog.Decode[value](r)
		if err != nil {
			return nil, err
		}
		rows[i] = []any{r.Partition, r.Seq, r.Key, v.N}
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error {
		if apply != nil {
			for i := range records {
				if err := apply(&records[i]); err != nil {
					return err
				}
			}
		}
		_, err := w.applying.Exec(ctx, tx, rows)
		return err
	}, nil
}

// line is a record that has been applied.
type line struct {
	part, seq int64
	key       string
	n         int64
}

func (w *world) lines() []line {
	w.t.Helper()
	var all []line
	err := w.read.ReadOne(w.t.Context(), "applied", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := w.applied.Query(ctx, tx)
		all, err = sqlutil.Collect(rows, err, func(r *sql.Rows) (l line, err error) {
			return l, r.Scan(&l.part, &l.seq, &l.key, &l.n)
		})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// reached waits until a consumer has applied or parked all that is committed.
func (w *world) reached(f *follower) {
	w.t.Helper()
	w.within(f, patience)
}

func (w *world) within(f *follower, limit time.Duration) {
	w.t.Helper()
	heads, err := w.source.Heads(w.t.Context(), eventlog.HeadsRequest{Topic: topicName})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	if err := f.WaitFor(ctx, heads.Heads); err != nil {
		text, _ := json.Marshal(heads.Heads)
		w.t.Fatalf("%v; heads %s", err, text)
	}
}

// exact makes sure that everything that was sent has been applied, once and in order.
func (w *world) exact() {
	w.t.Helper()
	seqs := make(map[int64]int64)
	next := make(map[string]int64)
	lines := w.lines()
	for _, l := range lines {
		if seqs[l.part]++; l.seq != seqs[l.part] {
			w.t.Fatalf("partition %d: record %d was applied where %d should have been", l.part, l.seq, seqs[l.part])
		}
		if l.n != next[l.key] {
			w.t.Fatalf("%s: record %d was applied where %d should have been", l.key, l.n, next[l.key])
		}
		next[l.key]++
	}
	if sent := w.sent.Load(); int64(len(lines)) != sent {
		w.t.Fatalf("%d records were applied of %d", len(lines), sent)
	}
}
