package kafka

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// world is one log in a database, and a broker.
type world struct {
	t       *testing.T
	fake    *fake
	db      *sqlutil.DB
	log     *eventlog.Log
	topic   *eventlog.Topic
	kafka   *Transport
	applied atomic.Int64
}

const key = "room"

func newWorld(t *testing.T) *world {
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
	w := &world{t: t, fake: newFake(t), db: db}
	if w.log, err = eventlog.New(t.Context(), db, "test", eventlog.Options{}); err != nil {
		t.Fatal(err)
	}
	if w.topic, err = w.log.Topic(t.Context(), "things", nil); err != nil {
		t.Fatal(err)
	}
	w.kafka = transport(t, w.fake.address(), "x_")
	return w
}

func (w *world) append(values ...any) {
	w.t.Helper()
	for _, v := range values {
		err := w.db.Write(w.t.Context(), "append", func(ctx context.Context, tx *sqlutil.Tx) error {
			w.topic.Append(ctx, tx, key, "thing", v)
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// run runs something until stop is called; stop returns how it ended.
func run(t *testing.T, what func(context.Context) error) (stop func() error, ended <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- what(ctx) }()
	t.Cleanup(cancel)
	return func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("it does not stop")
		}
	}, done
}

func (w *world) relay() (stop func() error, ended <-chan error) {
	return run(w.t, func(ctx context.Context) error { return w.kafka.Relay(ctx, w.log) })
}

func (w *world) follow() *eventlog.Consumer {
	w.t.Helper()
	c, err := eventlog.NewConsumer(w.t.Context(), eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test", DB: w.db,
		Source: eventlog.Source{Read: w.topic.Read, Heads: w.topic.Heads},
		Handle: func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			w.applied.Add(int64(len(records)))
			return nil, nil
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	stop, _ := run(w.t, func(ctx context.Context) error { return w.kafka.Follow(ctx, c) })
	w.t.Cleanup(func() {
		if err := stop(); err != nil {
			w.t.Error(err)
		}
	})
	return c
}

func (w *world) reached(c *eventlog.Consumer, seq int64, limit time.Duration) {
	w.t.Helper()
	heads := make([]int64, eventlog.Partitions)
	heads[eventlog.Partition(key)] = seq
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	if err := c.WaitFor(ctx, heads); err != nil {
		w.t.Fatal(err)
	}
}

// client is a client of the test's own.
func (w *world) client() sarama.Client {
	w.t.Helper()
	c := w.kafka.config()
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	client, err := w.kafka.dial(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

// lastSeq is the sequence of the partition's last record in Kafka, 0 if there is none.
func (w *world) lastSeq(client sarama.Client) int64 {
	p := eventlog.Partition(key)
	found, err := lastRecords(client, "x_things", []int32{p})
	if err != nil {
		return -1
	}
	return found[p].seq
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(20 * time.Second); !is(); {
		select {
		case <-ticker.C:
		case <-deadline:
			w.t.Fatalf("%s: waited in vain", what)
		}
	}
}

func TestRelayGoesOnAfterTheLastRecordInKafka(t *testing.T) {
	w := newWorld(t)
	stop, _ := w.relay()
	w.append(1, 2, 3)
	client := w.client()
	w.eventually("three records", func() bool { return w.lastSeq(client) == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	partition := func() int64 {
		return w.fake.cluster.PartitionInfo("x_things", eventlog.Partition(key)).HighWatermark
	}
	before := partition()
	w.append(4, 5)
	stop, _ = w.relay()
	w.eventually("five records", func() bool { return w.lastSeq(client) == 5 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := partition() - before; n != 2 {
		t.Errorf("%d more records were produced, not 2", n)
	}
}

// See the package's documentation: the head is produced once more, so that consumers see what they lack.
func TestRelayBeginsAnEmptyPartitionWithTheHead(t *testing.T) {
	w := newWorld(t)
	w.append(1, 2, 3)
	stop, _ := w.relay()
	client := w.client()
	w.eventually("the head", func() bool { return w.lastSeq(client) == 3 })
	if n := w.fake.cluster.PartitionInfo("x_things", eventlog.Partition(key)).HighWatermark; n != 1 {
		t.Errorf("kafka has %d records, not 1", n)
	}
	c := w.follow()
	w.append(4)
	w.reached(c, 4, 8*time.Second) // before it compares itself with the head
	if n := w.applied.Load(); n != 4 {
		t.Errorf("%d records are applied, not 4", n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// What a consumer lacks comes at once when the broker is wiped while nothing is appended to the partition.
func TestIdlePartitionOfAWipedBrokerTellsConsumersOfTheHead(t *testing.T) {
	w := newWorld(t)
	c := w.follow()
	stop, _ := w.relay()
	w.append(1)
	w.reached(c, 1, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.append(2, 3) // nobody relays them
	w.fake.wipe(t)
	_, _ = w.relay()
	w.reached(c, 3, 25*time.Second)
}

func TestFollowerPutsRecordsInOrder(t *testing.T) {
	w := newWorld(t)
	c := w.follow()
	w.append(1, 2, 3, 4, 5, 6, 7, 8)
	p := eventlog.Partition(key)
	answer, err := w.topic.Read(t.Context(), eventlog.ReadRequest{Topic: "things", Partition: p, From: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.kafka.ensure("x_things"); err != nil {
		t.Fatal(err)
	}
	producer, err := sarama.NewSyncProducerFromClient(w.client())
	if err != nil {
		t.Fatal(err)
	}
	r := &topicRelay{relay: &relay{t: w.kafka, log: w.log}, topic: w.topic, name: "x_things"}
	for _, i := range []int{3, 1, 1, 0, 5, 4, 7, 2, 7} {
		m, err := r.message(answer.LogID, &answer.Records[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := producer.SendMessage(m); err != nil {
			t.Fatal(err)
		}
	}
	w.reached(c, 8, 20*time.Second)
	if n := w.applied.Load(); n != 8 {
		t.Errorf("%d records are applied, not 8", n)
	}
	// The relay goes on after the last one, whatever else is there.
	_, _ = w.relay()
	w.append(9)
	w.reached(c, 9, 8*time.Second)
	if err := producer.Close(); err != nil {
		t.Error(err)
	}
}

func TestRecordThatIsTooLargeIsReadFromTheProducer(t *testing.T) {
	w := newWorld(t)
	c := w.follow()
	_, _ = w.relay()
	w.append(1)
	w.reached(c, 1, 20*time.Second)
	w.append(strings.Repeat("x", maxValue), 3)
	w.reached(c, 3, 8*time.Second)
	if n := w.applied.Load(); n != 3 {
		t.Errorf("%d records are applied, not 3", n)
	}
}

func TestRelayStopsAtRecordsOfAnotherLog(t *testing.T) {
	for name, h := range map[string][2]string{"another id": {"someone else's", "1"}, "a later record": {"", "7"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.append(1)
			heads, err := w.topic.Heads(t.Context(), eventlog.HeadsRequest{Topic: "things"})
			if err != nil {
				t.Fatal(err)
			}
			if h[0] == "" {
				h[0] = heads.LogID
			}
			if err := w.kafka.ensure("x_things"); err != nil {
				t.Fatal(err)
			}
			producer, err := sarama.NewSyncProducerFromClient(w.client())
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: "x_things", Partition: eventlog.Partition(key), Value: sarama.StringEncoder("{}"),
				Headers: []sarama.RecordHeader{{Key: []byte(headerLog), Value: []byte(h[0])}, {Key: []byte(headerSeq), Value: []byte(h[1])}}})
			if err = errors.Join(err, producer.Close()); err != nil {
				t.Fatal(err)
			}
			_, ended := w.relay()
			select {
			case err := <-ended:
				if !errors.Is(err, eventlog.ErrAnotherLog) {
					t.Errorf("the relay ends with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the relay goes on")
			}
		})
	}
}

func TestCommitsOfAReplicaWithoutTheLeaseAreRelayedAtOnce(t *testing.T) {
	w := newWorld(t)
	c := w.follow()
	_, _ = w.relay()
	w.append(0)
	w.reached(c, 1, 20*time.Second)
	// Another process with the same database.
	other, err := eventlog.New(t.Context(), w.db, "test", eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w.topic, err = other.Topic(t.Context(), "things", nil); err != nil {
		t.Fatal(err)
	}
	kafka := transport(t, w.fake.address(), "x_")
	stop, _ := run(t, func(ctx context.Context) error { return kafka.Relay(ctx, other) })
	w.append(1)
	w.reached(c, 2, 8*time.Second) // the wakes are heard by now, or the holder has looked
	quick := 0
	for n := range int64(10) {
		began := time.Now()
		w.append(n)
		w.reached(c, 3+n, 8*time.Second)
		if time.Since(began) < 200*time.Millisecond {
			quick++
		}
	}
	if quick < 7 {
		t.Errorf("%d of 10 commits were quick", quick)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTopicWithOtherPartitionsIsRefused(t *testing.T) {
	f := newFake(t)
	if err := f.cluster.CreateTopic("x_things", 3, nil); err != nil {
		t.Fatal(err)
	}
	k := transport(t, f.address(), "x_")
	if err := k.ensure("x_things"); err == nil || !strings.Contains(err.Error(), strconv.Itoa(eventlog.Partitions)) {
		t.Errorf("got %v", err)
	}
}
