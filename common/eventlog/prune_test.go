package eventlog_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// follow runs a consumer that has nothing to write.
func follow(t *testing.T, db *sqlutil.DB, log *eventlog.Log, topic *eventlog.Topic) *eventlog.Consumer {
	t.Helper()
	c, err := eventlog.NewConsumer(t.Context(), eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test", DB: db,
		Source: eventlog.Source{Read: topic.Read, Heads: topic.Heads},
		Handle: func(context.Context, []eventlog.Record) (eventlog.Apply, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	transport := eventlog.NewEmbedded()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- transport.Relay(ctx, log) }()
	go func() { done <- transport.Follow(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

func TestAnIdleLogWritesNothingAndIsReadOnceASecondAtMost(t *testing.T) {
	db := open(t)
	log, topic := newTopic(t, db, true)
	c := follow(t, db, log, topic)
	if err := appendTo(t, db, topic, "key", 1); err != nil {
		t.Fatal(err)
	}
	heads := make([]int64, eventlog.Partitions)
	heads[eventlog.Partition("key")] = 1
	if err := c.WaitFor(t.Context(), heads); err != nil {
		t.Fatal(err)
	}
	before := db.Count()
	idle := time.NewTimer(3 * time.Second)
	<-idle.C
	if cost := db.Count().Since(before); cost.Commits != 0 || cost.Rows != 0 || cost.Statements > 4 {
		t.Errorf("three seconds cost %+v", cost)
	}
}

func TestReportIsKeptOnlyOfTheSameLog(t *testing.T) {
	db := open(t)
	log, topic := newTopic(t, db, false)
	report := func(logID string, seq int64) []int64 {
		t.Helper()
		answer, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things", Report: &eventlog.Report{Component: "far", Consumer: "reader",
			LogID: logID, Offsets: slices.Repeat([]int64{seq}, eventlog.Partitions)}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Pruned
	}
	for range 3 {
		if err := appendTo(t, db, topic, "key", 1); err != nil {
			t.Fatal(err)
		}
	}
	prune := func(at time.Duration) {
		t.Helper()
		if err := log.Prune(t.Context(), time.Now().Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	p := eventlog.Partition("key")
	report("", -1)
	report("another", 3)
	prune(0)
	prune(9 * day)
	if pruned := report("", 2); pruned[p] != 0 {
		t.Errorf("pruned up to %d for a consumer of another log", pruned[p])
	}
	prune(10 * day)
	// A consumer that was set back keeps what it needs once more.
	report("", 1)
	prune(12 * day)
	prune(14 * day)
	if pruned := report("", 1); pruned[p] != 1 {
		t.Errorf("pruned up to %d, not 1", pruned[p])
	}
	_, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things", Report: &eventlog.Report{Component: "far", Consumer: "reader"}})
	if err == nil {
		t.Error("a report without offsets was taken")
	}
}
