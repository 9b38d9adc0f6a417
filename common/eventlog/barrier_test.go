package eventlog_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// stuck is a consumer whose producer is away, and heads that it cannot reach.
func stuck(t *testing.T, db *sqlutil.DB) (*eventlog.Consumer, []int64) {
	t.Helper()
	_, topic := newTopic(t, db, true)
	away := func(context.Context, eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
		return eventlog.HeadsResponse{}, errors.New("the producer is away")
	}
	c, err := eventlog.NewConsumer(t.Context(), eventlog.ConsumerConfig{Name: "reader", Topic: "things",
		Component: "test", DB: db, Source: eventlog.Source{Read: topic.Read, Heads: away}})
	if err != nil {
		t.Fatal(err)
	}
	heads := make([]int64, eventlog.Partitions)
	heads[3] = 10
	return c, heads
}

// statementsOfWaiting counts what it costs that so many wait for ten seconds. It also makes sure that nothing is kept
// of them afterwards.
func statementsOfWaiting(t *testing.T, waiters int) (statements int64) {
	synctest.Test(t, func(t *testing.T) {
		c, heads := stuck(t, open(t))
		before := c.DB.Count()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for range waiters {
			all.Go(func() {
				if err := c.WaitFor(ctx, heads); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("waiting ended with %v", err)
				}
			})
		}
		<-time.After(9 * time.Second) // of the test's clock
		if n := c.Waiting(); n != waiters {
			t.Errorf("after nine seconds %d entries are kept for %d calls that wait", n, waiters)
		}
		all.Wait()
		if n := c.Waiting(); n != 0 {
			t.Errorf("%d entries are kept after all calls have ended", n)
		}
		statements = c.DB.Count().Since(before).Statements
	})
	return statements
}

// However many wait for a partition that does not move, they are one entry each, and one of them asks for all.
func TestWhoWaitsForAStuckPartitionAsksTogether(t *testing.T) {
	few, many := statementsOfWaiting(t, 100), statementsOfWaiting(t, 1000)
	t.Logf("ten seconds cost %d statements for 100 waiters, %d for 1000", few, many)
	if few == 0 || many > few+few/10 {
		t.Errorf("1000 waiters cost %d statements where 100 cost %d", many, few)
	}
}

// However often somebody new begins to wait, the database is asked, and not for each of them. Each waits for 20 ms: were
// the question put off by those who arrive, it would hardly ever be asked. How often it is depends on who asks.
func TestThoseWhoArriveDoNotPutTheQuestionOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, heads := stuck(t, open(t))
		before := c.DB.Count()
		for range 900 {
			ctx, leave := context.WithTimeout(t.Context(), 20*time.Millisecond)
			go func() {
				defer leave()
				_ = c.WaitFor(ctx, heads) // nothing comes
			}()
			<-time.After(time.Millisecond)
		}
		if n := c.DB.Count().Since(before).Statements; n < 50 || n > 300 {
			t.Errorf("900 calls in 900 ms had the database asked %d times", n)
		}
	})
}

// A question that fails ends all waits: nobody can tell what is applied.
func TestAQuestionThatFailsEndsAllWaits(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "test.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: file}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	c, heads := stuck(t, db)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := c.WaitFor(t.Context(), heads); err == nil {
				t.Error("a call ended without an error")
			}
		})
	}
	for c.Waiting() == 0 {
		runtime.Gosched()
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if n := c.Waiting(); n != 0 {
		t.Errorf("%d entries are kept after all calls have ended", n)
	}
}

// A call that asks on behalf of all may end before the others: another goes on.
func TestTheOneWhoAsksForAllMayLeave(t *testing.T) {
	db := open(t)
	_, topic := newTopic(t, db, true)
	source := eventlog.Source{Read: topic.Read, Heads: topic.Heads}
	config := eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test", DB: db, Source: source,
		Handle: func(context.Context, []eventlog.Record) (eventlog.Apply, error) { return nil, nil }}
	waits, err := eventlog.NewConsumer(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	applies, err := eventlog.NewConsumer(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := appendTo(t, db, topic, "a", 1); err != nil {
		t.Fatal(err)
	}
	heads, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things"})
	if err != nil {
		t.Fatal(err)
	}
	first, leave := context.WithCancel(t.Context())
	left, reached := make(chan error), make(chan error)
	go func() { left <- waits.WaitFor(first, heads.Heads) }()
	for waits.Waiting() != 1 {
		runtime.Gosched()
	}
	go func() { reached <- waits.WaitFor(t.Context(), heads.Heads) }()
	for waits.Waiting() != 2 {
		runtime.Gosched()
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the first call ended with %v", err)
	}
	p := eventlog.Partition("a")
	if err := applies.Claim(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := applies.CatchUp(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := <-reached; err != nil {
		t.Errorf("the second call ended with %v", err)
	}
}
