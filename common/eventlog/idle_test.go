package eventlog_test

import (
	"context"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// An idle consumer writes nothing while records pass, and handles those that come when it no longer is.
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
	add := func(c *eventlog.Consumer, n int) (commits int64) {
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
		return db.Count().Since(before).Commits
	}
	c := claim()
	if n := add(c, 250); n != 0 || handled != nil {
		t.Errorf("an idle consumer commits %d times and handles %v", n, handled)
	}
	idle = false
	add(c, 2)
	if !slices.Equal(handled, []int64{251, 252}) {
		t.Errorf("after that it handles %v, want 251 and 252", handled)
	}
	idle = true
	if n := add(c, 1100); n != 1 {
		t.Errorf("it commits %d times for 1,100 records that it passes over, want once", n)
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
