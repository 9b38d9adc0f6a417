package eventlog_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// An idle consumer reads and writes nothing while records pass, and handles those that come when it no longer is.
func TestAnIdleConsumerPassesRecordsOver(t *testing.T) {
	db := open(t)
	_, topic := newTopic(t, db, true)
	idle, handled := true, []int64(nil)
	config := eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test", DB: db,
		Idle:   func() bool { return idle },
		Source: eventlog.Source{Read: topic.Read, Heads: topic.Heads},
		Handle: func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			return func(context.Context, *sqlutil.Tx) error {
				for i := range records {
					handled = append(handled, records[i].Seq)
				}
				return nil
			}, nil
		}}
	p := eventlog.Partition("key")
	claim := func() *eventlog.Consumer {
		t.Helper()
		c, err := eventlog.NewConsumer(t.Context(), config)
		if err == nil {
			err = c.Claim(t.Context(), p)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	add := func(c *eventlog.Consumer, n int) sqlutil.Count {
		t.Helper()
		for range n {
			if err := appendTo(t, db, topic, "key", "x"); err != nil {
				t.Fatal(err)
			}
		}
		before := db.Count()
		if err := c.CatchUp(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return db.Count().Since(before)
	}
	c := claim()
	if n := add(c, 250); n.Statements != 0 || handled != nil {
		t.Errorf("an idle consumer executes %d statements and handles %v", n.Statements, handled)
	}
	idle = false
	add(c, 2)
	if !slices.Equal(handled, []int64{251, 252}) {
		t.Errorf("after that it handles %v, want 251 and 252", handled)
	}
	idle = true
	if n := add(c, 1100); n.Commits != 1 {
		t.Errorf("it commits %d times for 1,100 records that it passes over, want once", n.Commits)
	}
	c.Release(p)
	// Another process begins where the offset was written last.
	handled, idle = nil, false
	c = claim()
	add(c, 1)
	if n := len(handled); n < 1 || n > 1001 || handled[n-1] != 1353 {
		t.Errorf("another process handles %d records, up to the last", n)
	}
	for i := range handled[1:] {
		if handled[i+1] != handled[i]+1 {
			t.Fatalf("record %d is handled after %d", handled[i+1], handled[i])
		}
	}
}

// An idle consumer of one process is not woken by commits, and gets what is committed when it no longer is idle.
func TestCommitsWakeNoIdleConsumer(t *testing.T) {
	db := open(t)
	log, topic := newTopic(t, db, true)
	var idle atomic.Bool
	idle.Store(true)
	handled := make(chan int64, 10)
	c, err := eventlog.NewConsumer(t.Context(), eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test",
		DB: db, Start: eventlog.Newest, Idle: idle.Load, Source: eventlog.Source{Read: topic.Read, Heads: topic.Heads},
		Handle: func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			for i := range records {
				handled <- records[i].Seq
			}
			return nil, nil
		}})
	if err == nil {
		err = c.Begin(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	transport := eventlog.NewEmbedded()
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = transport.Relay(ctx, log) })
	all.Go(func() { _ = transport.Follow(ctx, c) })
	t.Cleanup(func() { stop(); all.Wait() })
	add := func() {
		if err := appendTo(t, db, topic, "key", "x"); err != nil {
			t.Fatal(err)
		}
	}
	add()
	idle.Store(false)
	add()
	// What came while it was idle may be handled, if it was not passed over by then.
	for {
		if seq := <-handled; seq == 2 {
			break
		} else if seq != 1 {
			t.Fatalf("record %d is handled", seq)
		}
	}
}
