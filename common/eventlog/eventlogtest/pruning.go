package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const day = 24 * time.Hour

// prune prunes as if this time had passed since everybody's last report.
func (p *producer) prune(later time.Duration) {
	p.w.t.Helper()
	for _, at := range []time.Duration{0, later} {
		if err := p.log.Prune(p.w.t.Context(), time.Now().Add(at)); err != nil {
			p.w.t.Fatal(err)
		}
	}
}

// rows counts the records that the log still has.
func (w *world) rows() (n int64) {
	w.t.Helper()
	count := w.written.Stmt("SELECT COUNT(*) FROM " + w.name + "_log_rows")
	err := w.written.ReadOne(w.t.Context(), "rows", func(ctx context.Context, tx *sqlutil.Tx) error {
		return count.QueryRow(ctx, tx).Scan(&n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// reader is a consumer that only sees to it that nothing is missing.
type reader struct {
	mu   sync.Mutex
	last [eventlog.Partitions]int64
	seen int64
}

// as makes a consumer of that name feed the reader.
func (r *reader) as(t *testing.T, name string) func(*eventlog.ConsumerConfig) {
	return func(c *eventlog.ConsumerConfig) {
		c.Name = name
		c.Handle = func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for i := range records {
				p, seq := records[i].Partition, records[i].Seq
				if r.last[p] == 0 {
					r.last[p] = seq - 1 // it begins here
				}
				if seq > r.last[p]+1 {
					t.Errorf("%s: record %d of partition %d comes after %d", name, seq, p, r.last[p])
				}
				if seq > r.last[p] { // the same may come again before it is committed
					r.last[p], r.seen = seq, r.seen+1
				}
			}
			return nil, nil
		}
	}
}

func (r *reader) count() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

func (w *world) report(all ...*follower) {
	w.t.Helper()
	for _, f := range all {
		if err := f.Report(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) expectRows(want int64, why string) {
	w.t.Helper()
	if n := w.rows(); n != want {
		w.t.Errorf("%s: the log has %d records, not %d", why, n, want)
	}
}

func (w *world) operator(db *sqlutil.DB) *eventlog.Operator {
	w.t.Helper()
	o, err := eventlog.NewOperator(w.t.Context(), map[string]*sqlutil.DB{w.name: db})
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func pruning(t *testing.T, w *world) {
	transport := w.h.New(t)
	p := w.producer(transport)
	f := w.follower(transport)
	var lagging reader
	slow := w.follower(transport, lagging.as(t, "slow"))
	p.sendAll(10, 0, 3)
	w.reached(f)
	w.reached(slow)
	p.prune(2 * day)
	w.expectRows(30, "nobody has reported")
	w.report(f, slow)
	p.prune(day / 2)
	w.expectRows(30, "no day has passed")
	p.prune(2 * day)
	w.expectRows(0, "everybody has applied it, a day ago")

	slow.stop()
	p.sendAll(10, 3, 8)
	w.reached(f)
	w.report(f)
	p.prune(30 * day)
	w.expectRows(50, "one is behind")
	w.exact()

	// One that is new begins with the first record that there is, and holds it.
	var added reader
	fresh := w.follower(transport, added.as(t, "fresh"))
	w.reached(fresh)
	if n := added.count(); n != 50 {
		t.Errorf("a new consumer has seen %d records, not 50", n)
	}
	fresh.stop()
	slow = w.follower(transport, lagging.as(t, "slow"))
	w.reached(slow)
	if n := lagging.count(); n != 80 {
		t.Errorf("the consumer that was behind has seen %d records, not 80", n)
	}
	w.report(slow)
	p.prune(2 * day)
	w.expectRows(50, "the new one has not reported")

	// One that does not come back is forgotten.
	all, err := w.operator(w.written).Consumers(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d consumers are registered, not 3: %v", len(all), err)
	}
	if err := w.operator(w.written).Forget(t.Context(), w.name, "fresh"); err != nil {
		t.Fatal(err)
	}
	p.prune(2 * day)
	w.expectRows(0, "who was behind is forgotten")
	p.sendAll(10, 8, 9)
	w.reached(f)
	w.reached(slow)
	w.report(f, slow)
	p.prune(2 * day)
	w.expectRows(0, "only those that are registered count")

	// Should it come back where it was long ago, it says what it misses and applies nothing.
	restarted := w.producer(transport).topic // with nothing in memory
	back := w.consumer(added.as(t, "fresh"), func(c *eventlog.ConsumerConfig) {
		c.Source = eventlog.Source{Read: restarted.Read, Heads: restarted.Heads}
	})
	part := eventlog.Partition("key0")
	if err := back.Claim(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	if err := back.CatchUp(t.Context(), part); !errors.Is(err, eventlog.ErrMissing) {
		t.Errorf("it lacks records that are gone, and says %v", err)
	}
	back.Release(part)
	w.exact()
}

// pruningMeanwhile has new consumers all the time, of which each must find all records from its first one on.
func pruningMeanwhile(t *testing.T, w *world) {
	transport := w.h.New(t)
	p := w.producer(transport)
	f := w.follower(transport)
	ctx, cancel := context.WithCancel(t.Context())
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	often := func(what func() error) {
		beside.Go(func() {
			ticker := time.NewTicker(2 * time.Millisecond)
			defer ticker.Stop()
			for ctx.Err() == nil {
				if err := what(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				<-ticker.C
			}
		})
	}
	later := time.Duration(0)
	often(func() error {
		later += 2 * day
		return p.log.Prune(ctx, time.Now().Add(later))
	})
	often(func() error { return f.Report(ctx) })
	operator := w.operator(w.written)
	for round := range int64(4) {
		var sending sync.WaitGroup
		sending.Go(func() { p.sendAll(8, round*10, round*10+10) })
		name := fmt.Sprintf("guest%d", round)
		guest := w.follower(transport, new(reader).as(t, name))
		sending.Wait()
		w.reached(guest)
		guest.stop()
		if err := operator.Forget(t.Context(), w.name, name); err != nil {
			t.Fatal(err)
		}
	}
	w.reached(f)
	w.exact()
	eventually(t, "everything is pruned", func() bool { return w.rows() == 0 })
}

func pruningUnfollowed(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	p.sendAll(10, 0, 70)
	p.prune(6 * day)
	w.expectRows(700, "it is kept for a week")
	p.prune(8 * day)
	w.expectRows(0, "a week has passed")
	f := w.follower(w.h.New(t))
	w.reached(f)
	p.sendAll(10, 70, 72)
	w.reached(f)
	if n := len(w.lines()); n != 20 {
		t.Errorf("%d records are applied, not 20", n)
	}
}

// parkOne has one record of key1 that cannot be applied, and returns what the operator sees of it.
func parkOne(t *testing.T, w *world, p *producer, f *follower) (*eventlog.Operator, eventlog.DeadLetters) {
	w.fails(func(r *eventlog.Record) error {
		if v, err := eventlog.Decode[value](r); err != nil || r.Key == "key1" && v.N == 2 {
			return eventlog.Permanent(errors.Join(errInjected, err))
		}
		return nil
	}, nil)
	p.sendAll(6, 0, 5)
	w.reached(f)
	operator := w.operator(w.read)
	dead, err := operator.DeadLetters(t.Context())
	if err != nil || len(dead) != 1 {
		t.Fatalf("%d keys are parked, not 1: %v", len(dead), err)
	}
	d := dead[0]
	if d.Key != "key1" || d.Count != 3 || d.Error != errInjected.Error() || d.Consumer != "reader" || d.Topic != topicName || time.Since(d.Since) > time.Minute {
		t.Errorf("the operator sees %+v", d)
	}
	return operator, d
}

func noneParked(t *testing.T, operator *eventlog.Operator) {
	t.Helper()
	if dead, err := operator.DeadLetters(t.Context()); err != nil || len(dead) != 0 {
		t.Errorf("%d keys are parked: %v", len(dead), err)
	}
}

func retriedKey(t *testing.T, w *world) {
	transport := w.h.New(t)
	p, f := w.producer(transport), w.follower(transport)
	operator, dead := parkOne(t, w, p, f)
	var tries sync.WaitGroup
	tries.Add(1)
	once := sync.OnceFunc(tries.Done)
	w.fails(func(r *eventlog.Record) error {
		if r.Key == "key1" {
			once()
			return eventlog.Permanent(errInjected)
		}
		return nil
	}, nil)
	retry := func() {
		if err := operator.Retry(t.Context(), dead); err != nil {
			t.Fatal(err)
		}
	}
	retry()
	tries.Wait() // in vain
	p.sendAll(6, 5, 7)
	w.reached(f)
	w.expect(t, 6, 7, map[string]int64{"key1": 2})
	w.fails(nil, nil)
	retry()
	eventually(t, "the key is applied", func() bool { return w.byKey()["key1"] == 7 })
	p.sendAll(6, 7, 9)
	w.reached(f)
	eventually(t, "the key is followed", func() bool { return w.byKey()["key1"] == 9 })
	w.expect(t, 6, 9, nil)
	noneParked(t, operator)
}

func droppedKey(t *testing.T, w *world) {
	transport := w.h.New(t)
	p, f := w.producer(transport), w.follower(transport)
	operator, dead := parkOne(t, w, p, f)
	if n, err := operator.Drop(t.Context(), dead); err != nil || n != 3 {
		t.Errorf("%d records are dropped, not 3: %v", n, err)
	}
	// What comes after, the consumer applies, whether it has heard of it by then or not.
	p.sendAll(6, 5, 7)
	w.reached(f)
	var applied []int64
	eventually(t, "later records are applied", func() bool {
		applied = nil
		for _, l := range w.lines() {
			if l.key == "key1" {
				applied = append(applied, l.n)
			}
		}
		return len(applied) >= 4
	})
	if fmt.Sprint(applied) != "[0 1 5 6]" {
		t.Errorf("%v are applied", applied)
	}
	noneParked(t, operator)
}
