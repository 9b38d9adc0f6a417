package eventlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/eventlog/eventlogtest"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// shared gives all processes of a test the same transport.
func shared[T eventlog.Transport](make func(t *testing.T) T) func(t *testing.T) eventlog.Transport {
	each := eventlogtest.Each(make)
	return func(t *testing.T) eventlog.Transport { return each(t) }
}

func TestEmbedded(t *testing.T) {
	eventlogtest.Run(t, eventlogtest.Harness{New: shared(func(*testing.T) *eventlog.Embedded { return eventlog.NewEmbedded() })})
}

func TestTransportThatLosesDoublesAndReorders(t *testing.T) {
	eventlogtest.Run(t, eventlogtest.Harness{New: shared(eventlogtest.NewLossy)})
}

func open(t *testing.T) *sqlutil.DB {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "test.db")}, sqlutil.Deps{})
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

func newTopic(t *testing.T, db *sqlutil.DB, sole bool) (*eventlog.Log, *eventlog.Topic) {
	t.Helper()
	log, err := eventlog.New(t.Context(), db, "test", eventlog.Options{Sole: sole})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := log.Topic(t.Context(), "things", nil)
	if err != nil {
		t.Fatal(err)
	}
	return log, topic
}

func appendTo(t *testing.T, db *sqlutil.DB, topic *eventlog.Topic, key string, value any) error {
	return db.Write(t.Context(), "append", func(ctx context.Context, tx *sqlutil.Tx) error {
		topic.Append(ctx, tx, key, "thing", value)
		return nil
	})
}

func head(t *testing.T, topic *eventlog.Topic, key string) int64 {
	t.Helper()
	heads, err := topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things"})
	if err != nil {
		t.Fatal(err)
	}
	return heads.Heads[eventlog.Partition(key)]
}

// within waits until something is so.
func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(limit); !is(); {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: waited in vain", what)
		}
	}
}

func TestSoleProducerSeesWhatAToolAppends(t *testing.T) {
	db := open(t)
	_, topic := newTopic(t, db, true)
	_, tool := newTopic(t, db, true)
	if err := appendTo(t, db, tool, "key", 1); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the head", func() bool { return head(t, topic, "key") == 1 })
}

func TestSoleProducerSeesACommitWhoseAnswerWasLost(t *testing.T) {
	db := open(t)
	_, topic := newTopic(t, db, true)
	lost := errors.New("lost")
	db.SetFailpoints(func(name string) error {
		if name == "commit.after" {
			return lost
		}
		return nil
	})
	if err := appendTo(t, db, topic, "key", 1); !errors.Is(err, sqlutil.ErrCommitUnknown) {
		t.Fatalf("got %v", err)
	}
	db.SetFailpoints(nil)
	if n := head(t, topic, "key"); n != 1 {
		t.Errorf("the head is %d", n)
	}
}

func TestReadIsWithoutGapsWhileManyAppend(t *testing.T) {
	eventlogtest.Databases(t, func(t *testing.T, openDB func(*testing.T) *sqlutil.DB) {
		db := openDB(t)
		if err := db.Script(t.Context(), dropTables); err != nil {
			t.Fatal(err)
		}
		_, topic := newTopic(t, db, false)
		const writers, each = 8, 40
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for n := range each {
					if err := appendTo(t, db, topic, "key", n); err != nil {
						t.Error(err)
					}
				}
			})
		}
		next := int64(1)
		within(t, 30*time.Second, "all records", func() bool {
			answer, err := topic.Read(t.Context(), eventlog.ReadRequest{Topic: "things", Partition: eventlog.Partition("key"), From: next})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range answer.Records {
				if r.Seq != next {
					t.Fatalf("record %d where %d should be", r.Seq, next)
				}
				next++
			}
			if len(answer.Records) == 0 && answer.Head >= next {
				t.Fatalf("nothing from %d on, although the head is %d", next, answer.Head)
			}
			return next > writers*each
		})
		all.Wait()
	})
}

// Transactions that append to many partitions take these in one order, whatever theirs is: none has to be run again.
func TestManyAppendToManyPartitions(t *testing.T) {
	eventlogtest.Databases(t, func(t *testing.T, openDB func(*testing.T) *sqlutil.DB) {
		db := openDB(t)
		if err := db.Script(t.Context(), dropTables); err != nil {
			t.Fatal(err)
		}
		_, topic := newTopic(t, db, false)
		const writers, each, keys = 8, 15, 100
		r := rand.New(rand.NewPCG(test.Seed(t), 1))
		before := db.Count()
		var all sync.WaitGroup
		for range writers {
			order := r.Perm(keys)
			all.Go(func() {
				for range each {
					err := db.Write(t.Context(), "append", func(ctx context.Context, tx *sqlutil.Tx) error {
						for n, key := range order {
							topic.Append(ctx, tx, strconv.Itoa(key), "thing", n)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if n := db.Count().Since(before).Transactions; n > writers*each {
			t.Errorf("%d transactions were run, want %d", n, writers*each)
		}
		seen := make(map[string]int)
		for p := range int32(eventlog.Partitions) {
			for next, head := int64(1), int64(1); next <= head; {
				answer, err := topic.Read(t.Context(), eventlog.ReadRequest{Topic: "things", Partition: p, From: next})
				if err != nil {
					t.Fatal(err)
				}
				for i := range answer.Records {
					if answer.Records[i].Seq != next {
						t.Fatalf("record %d of partition %d where %d should be", answer.Records[i].Seq, p, next)
					}
					seen[answer.Records[i].Key]++
					next++
				}
				head = answer.Head
			}
		}
		for key := range keys {
			if n := seen[strconv.Itoa(key)]; n != writers*each {
				t.Errorf("%d records of key %d, want %d", n, key, writers*each)
			}
		}
	})
}

const dropTables = `DROP TABLE IF EXISTS test_log_topics;
DROP TABLE IF EXISTS test_log_counters;
DROP TABLE IF EXISTS test_log_rows;
DROP TABLE IF EXISTS test_log_leases;
DROP TABLE IF EXISTS test_log_pruned;
DROP TABLE IF EXISTS test_log_consumers;`

func TestLeaseIsHeldByOneAndPassesOn(t *testing.T) {
	db := open(t)
	log, _ := newTopic(t, db, false)
	var holders atomic.Int32
	taken := make(chan int, 10)
	hold := func(i int) (cancel func()) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- log.Hold(ctx, "work", func(ctx context.Context) error {
				if holders.Add(1) > 1 {
					t.Error("two hold the lease")
				}
				taken <- i
				<-ctx.Done()
				holders.Add(-1)
				return nil
			})
		}()
		return func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	one := hold(1)
	if i := <-taken; i != 1 {
		t.Fatalf("%d holds the lease", i)
	}
	two := hold(2)
	began := time.Now()
	one()
	if i := <-taken; i != 2 {
		t.Fatalf("%d holds the lease", i)
	}
	if waited := time.Since(began); waited > 4*time.Second {
		t.Errorf("a lease that was given back was taken after %s", waited)
	}
	two()
}

func TestLeaseThatCannotBeRenewedEndsTheWorkBeforeAnotherBegins(t *testing.T) {
	db, log := open(t), (*eventlog.Log)(nil)
	log, _ = newTopic(t, db, false)
	working, ended := make(chan struct{}), make(chan time.Time, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- log.Hold(ctx, "work", func(ctx context.Context) error {
			select {
			case <-working:
				return nil // it has it once more
			default:
			}
			close(working)
			<-ctx.Done()
			ended <- time.Now()
			return nil
		})
	}()
	<-working
	db.SetFailpoints(func(string) error { return errors.New("the database is away") })
	began := time.Now()
	at := <-ended
	if lasted := at.Sub(began); lasted > 5*time.Second {
		t.Errorf("the work went on for %s without the lease", lasted)
	}
	db.SetFailpoints(nil)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A database that has stopped answering, as behind a network that has failed, is no reason to go on without a lease, or
// not to end.
func TestADatabaseThatDoesNotAnswerHoldsNoLease(t *testing.T) {
	db := open(t)
	log, _ := newTopic(t, db, false)
	working, ended, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		done <- log.Hold(ctx, "work", func(ctx context.Context) error {
			close(working)
			<-ctx.Done()
			close(ended)
			return nil
		})
	}()
	<-working
	answering := make(chan struct{})
	db.SetFailpoints(func(string) error { <-answering; return nil })
	defer close(answering)
	const long = 20 * time.Second // a lease lasts for a quarter of it
	select {
	case <-ended:
	case <-time.After(long):
		t.Fatal("the work goes on without the lease")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(long):
		t.Fatal("who held the lease does not end")
	}
}

func TestRecordsTravelDecodedInAProcessAndEncodedBeyond(t *testing.T) {
	db := open(t)
	_, topic := newTopic(t, db, false)
	type thing struct{ Name string }
	sent := &thing{"a"}
	if err := appendTo(t, db, topic, "key", sent); err != nil {
		t.Fatal(err)
	}
	if err := appendTo(t, db, topic, "key", nil); err != nil {
		t.Fatal(err)
	}
	p := eventlog.Partition("key")
	answer, err := topic.Read(t.Context(), eventlog.ReadRequest{Topic: "things", Partition: p, From: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := eventlog.Decode[thing](&answer.Records[0]); err != nil || got != sent {
		t.Errorf("got %v, %v, not the same value", got, err)
	}
	text, err := json.Marshal(answer.Records)
	if err != nil {
		t.Fatal(err)
	}
	var far []eventlog.Record
	if err := json.Unmarshal(text, &far); err != nil {
		t.Fatal(err)
	}
	if got, err := eventlog.Decode[thing](&far[0]); err != nil || *got != *sent {
		t.Errorf("got %v, %v", got, err)
	}
	if string(far[1].Value) != "null" {
		t.Errorf("nothing became %q", far[1].Value)
	}
	if _, err := eventlog.Decode[int](&far[0]); !eventlog.IsPermanent(err) {
		t.Errorf("a value of another kind: %v", err)
	}
}
