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

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: waited in vain", what)
		}
	}
}

// replaced ends processes in the middle of their work, again and again, and starts others.
func replaced(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	for round := range int64(4) {
		var sending sync.WaitGroup
		old := p
		sending.Go(func() { old.sendAll(8, round*6, round*6+6) })
		f.stop()
		f = w.follower(w.h.New(t))
		old.stop()
		p = w.producer(w.h.New(t))
		sending.Wait()
	}
	w.reached(f)
	w.exact()
}

// twoRelays takes the lease from a relay that goes on working.
func twoRelays(t *testing.T, w *world) {
	one, two := w.producer(w.h.New(t)), w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	expire := w.written.Stmt("UPDATE " + w.name + "_log_leases SET expires = 0")
	for round := range int64(5) {
		var sending sync.WaitGroup
		sending.Go(func() { one.sendAll(8, round*6, round*6+3) })
		sending.Wait()
		sending.Go(func() { two.sendAll(8, round*6+3, round*6+6) })
		err := w.written.Write(t.Context(), "expire leases", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := expire.Exec(ctx, tx)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		sending.Wait()
		w.reached(f)
	}
	w.exact()
	one.stop()
	two.sendAll(8, 30, 33)
	w.reached(f)
	w.exact()
}

// twoOwners has a second consumer that believes that it owns all partitions.
func twoOwners(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	zombie := w.consumer()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for from := range int32(4) {
		running.Go(func() {
			for claimed := make(map[int32]bool); ctx.Err() == nil; {
				for p := from; p < eventlog.Partitions; p += 4 {
					err := zombie.Run(ctx, p, func(ctx context.Context) error {
						if !claimed[p] {
							if err := zombie.Claim(ctx, p); err != nil {
								return err
							}
							claimed[p] = true
						}
						return zombie.CatchUp(ctx, p)
					})
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	p.sendAll(10, 0, 20)
	w.reached(f)
	cancel()
	running.Wait()
	p.sendAll(10, 20, 25)
	w.reached(f)
	w.exact()
}

func replicas(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	one := w.follower(w.h.New(t))
	sent := int64(0)
	send := func(meanwhile func()) {
		var sending sync.WaitGroup
		sending.Go(func() { p.sendAll(8, sent, sent+6) })
		meanwhile()
		sending.Wait()
		sent += 6
	}
	var two, three *follower
	send(func() { two = w.follower(w.h.New(t)) })
	w.reached(one)
	send(func() {})
	w.reached(two)
	send(one.stop)
	w.reached(two)
	send(func() { three = w.follower(w.h.New(t)) })
	w.reached(three)
	send(two.stop)
	w.reached(three)
	w.exact()
}

// othersFail has transactions beside that fail: where a database commits several together, they must not be seen, and must not
// take others with them.
func othersFail(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	ctx, cancel := context.WithCancel(t.Context())
	var failing sync.WaitGroup
	for range 3 {
		failing.Go(func() {
			for ctx.Err() == nil {
				err := w.read.Write(ctx, "fail", func(ctx context.Context, tx *sqlutil.Tx) error {
					if _, err := w.applying.Exec(ctx, tx, [][]any{{0, -1, "never", 0}}); err != nil {
						return err
					}
					return errInjected
				})
				if !errors.Is(err, errInjected) && ctx.Err() == nil {
					t.Error(err)
				}
				err = w.written.Write(ctx, "fail", func(ctx context.Context, tx *sqlutil.Tx) error {
					p.topic.Append(ctx, tx, "never", "thing", &value{})
					return errInjected
				})
				if !errors.Is(err, errInjected) && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	p.sendAll(10, 0, 20)
	w.reached(f)
	cancel()
	failing.Wait()
	w.exact()
}

// byKey makes sure that what is applied of each key is in order, and counts it.
func (w *world) byKey() map[string]int64 {
	w.t.Helper()
	next := make(map[string]int64)
	for _, l := range w.lines() {
		if l.n != next[l.key] {
			w.t.Fatalf("%s: record %d was applied where %d should have been", l.key, l.n, next[l.key])
		}
		next[l.key]++
	}
	return next
}

func (w *world) expect(t *testing.T, keys int, all int64, except map[string]int64) {
	t.Helper()
	applied := w.byKey()
	for k := range keys {
		key := fmt.Sprintf("key%d", k)
		want, excepted := except[key]
		if !excepted {
			want = all
		}
		if applied[key] != want {
			t.Errorf("%d records of %s are applied, not %d", applied[key], key, want)
		}
	}
}

// parkedKey has one record that can never be applied, until a release that can.
func parkedKey(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	w.fails(func(r *eventlog.Record) error {
		if v, err := eventlog.Decode[value](r); err != nil || r.Key == "key1" && v.N == 2 {
			return eventlog.Permanent(errors.Join(errInjected, err))
		}
		return nil
	}, nil)
	transport := w.h.New(t)
	f := w.follower(transport)
	p.sendAll(6, 0, 5)
	w.reached(f)
	w.expect(t, 6, 5, map[string]int64{"key1": 2})
	parked, err := f.Parked(t.Context(), eventlog.Partition("key1"), "key1", 0)
	if err != nil || len(parked) != 3 {
		t.Fatalf("%d records are parked, not 3: %v", len(parked), err)
	}
	// It stays parked when it is tried again in vain.
	f.stop()
	f = w.follower(transport)
	p.sendAll(6, 5, 7)
	w.reached(f)
	w.expect(t, 6, 7, map[string]int64{"key1": 2})
	f.stop()
	w.fails(nil, nil)
	f = w.follower(transport)
	eventually(t, "the parked key is applied", func() bool { return w.byKey()["key1"] == 7 })
	p.sendAll(6, 7, 9)
	w.reached(f)
	w.expect(t, 6, 9, nil)
}

func panics(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	when := func(key string) func(*eventlog.Record) error {
		return func(r *eventlog.Record) error {
			if r.Key == key {
				panic("a defect")
			}
			return nil
		}
	}
	w.fails(when("key1"), when("key2"))
	transport := w.h.New(t)
	f := w.follower(transport)
	p.sendAll(6, 0, 5)
	w.reached(f)
	w.expect(t, 6, 5, map[string]int64{"key1": 0, "key2": 0})
	f.stop()
	f = w.follower(transport) // panics again while it tries what is parked
	p.sendAll(6, 5, 6)
	w.reached(f)
	w.expect(t, 6, 6, map[string]int64{"key1": 0, "key2": 0})
	f.stop()
	w.fails(nil, nil)
	f = w.follower(transport)
	eventually(t, "the parked keys are applied", func() bool { n := w.byKey(); return n["key1"] == 6 && n["key2"] == 6 })
	p.sendAll(6, 6, 7)
	w.reached(f)
	w.expect(t, 6, 7, nil)
}

// anotherLog replaces the producer's log by one that begins anew.
func anotherLog(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	p.sendAll(6, 0, 3)
	w.reached(f)
	f.stop()
	p.stop()
	log, err := eventlog.New(t.Context(), w.written, w.name+"new", eventlog.Options{Log: w.log})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := log.Topic(t.Context(), topicName, nil)
	if err != nil {
		t.Fatal(err)
	}
	f = w.follower(w.h.New(t), func(c *eventlog.ConsumerConfig) { c.Source = eventlog.Source{Read: topic.Read, Heads: topic.Heads} })
	if err := f.err(); !errors.Is(err, eventlog.ErrAnotherLog) {
		t.Errorf("the consumer ends with %v", err)
	}
	w.exact()
}

func newest(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	p.sendAll(10, 0, 5)
	f := w.follower(w.h.New(t), func(c *eventlog.ConsumerConfig) { c.Start = eventlog.Newest })
	w.reached(f)
	p.sendAll(10, 5, 8)
	w.reached(f)
	lines := w.lines()
	if len(lines) != 30 {
		t.Errorf("%d records are applied, not 30", len(lines))
	}
	for _, l := range lines {
		if l.n < 5 {
			t.Errorf("record %d of %s is older than the consumer", l.n, l.key)
		}
	}
}

// ephemeral messages reach all who listen, once they do.
func ephemeral(t *testing.T, w *world) {
	topic := w.name + "typing"
	sender := w.h.New(t)
	heard := make(chan int, 10000)
	listening := make(chan struct{}, 100)
	for i := range 2 {
		transport := w.h.New(t)
		background(t, func(ctx context.Context) error {
			return transport.Subscribe(ctx, topic, func(key string, value []byte) {
				if key != "room" || string(value) != "hello" {
					t.Errorf("got %q %q", key, value)
				}
				heard <- i
			}, func() { listening <- struct{}{} })
		})
	}
	for range 2 {
		<-listening
	}
	if err := sender.Publish(t.Context(), topic, "room", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	by := make(map[int]bool)
	eventually(t, "both hear it", func() bool {
		for {
			select {
			case i := <-heard:
				by[i] = true
			default:
				return len(by) == 2
			}
		}
	})
	if err := sender.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func restarts(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	p.sendAll(8, 0, 3)
	w.reached(f)
	var sending sync.WaitGroup
	sending.Go(func() { p.sendAll(8, 3, 40) })
	w.h.Restart(t)
	sending.Wait()
	w.reached(f)
	p.sendAll(8, 40, 43)
	w.reached(f)
	w.exact()
}

// wiped empties the broker, while most partitions are idle and one goes on.
func wiped(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	f := w.follower(w.h.New(t))
	p.sendAll(20, 0, 3)
	w.reached(f)
	w.h.Wipe(t)
	p.sendAll(1, 3, 10) // the others are idle
	w.reached(f)
	w.exact()
	f.stop()
	p.stop()
	w.h.Wipe(t)
	// Nobody relays what is committed now, and the broker has nothing to go on from.
	p.sendAll(1, 10, 12)
	p = w.producer(w.h.New(t))
	f = w.follower(w.h.New(t))
	w.reached(f)
	for k := range 20 {
		if k == 0 {
			continue
		}
		if err := p.send(fmt.Sprintf("key%d", k), 3); err != nil {
			t.Fatal(err)
		}
	}
	w.reached(f)
	w.exact()
}
