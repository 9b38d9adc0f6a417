package eventlog_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// parkedKey parks so many large records of one key.
type parkedKey struct {
	t       *testing.T
	config  eventlog.ConsumerConfig
	broken  bool
	applied []int64
}

func newParkedKey(t *testing.T, records int) *parkedKey {
	t.Helper()
	db := open(t)
	_, topic := newTopic(t, db, true)
	k := &parkedKey{t: t, broken: true}
	k.config = eventlog.ConsumerConfig{Name: "reader", Topic: "things", Component: "test", DB: db, Handle: k.handle,
		Source: eventlog.Source{Read: topic.Read, Heads: topic.Heads}}
	for range records {
		if err := appendTo(t, db, topic, "key", strings.Repeat("x", 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	c := k.claim()
	if err := c.CatchUp(t.Context(), eventlog.Partition("key")); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *parkedKey) handle(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	if k.broken {
		return nil, eventlog.Permanent(errors.New("broken"))
	}
	return func(context.Context, *sqlutil.Tx) error {
		for i := range records {
			k.applied = append(k.applied, records[i].Seq)
		}
		return nil
	}, nil
}

// claim has a new process take the partition, which tries what is parked again.
func (k *parkedKey) claim() *eventlog.Consumer {
	k.t.Helper()
	c, err := eventlog.NewConsumer(k.t.Context(), k.config)
	if err == nil {
		err = c.Claim(k.t.Context(), eventlog.Partition("key"))
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return c
}

func (k *parkedKey) costOfClaim() int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	k.claim()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// A claim tries the first record of a key again. That it stays parked costs the same, however many are parked behind
// it.
func TestAKeyThatStaysParkedCostsTheSameHoweverLongItIs(t *testing.T) {
	few, many := newParkedKey(t, 40).costOfClaim(), newParkedKey(t, 400).costOfClaim()
	t.Logf("a claim allocates %d bytes with 40 parked records, %d with 400", few, many)
	if many > few+few/2 {
		t.Errorf("a claim allocates %d bytes with 40 parked records, %d with 400", few, many)
	}
}

func TestAllPagesOfAParkedKeyAreTriedAgainInOrder(t *testing.T) {
	const records = 100
	k := newParkedKey(t, records)
	k.broken = false
	c := k.claim()
	if len(k.applied) != records {
		t.Fatalf("%d records were applied of %d", len(k.applied), records)
	}
	for i, seq := range k.applied {
		if seq != int64(i)+1 {
			t.Fatalf("record %d was applied where %d should have been", seq, i+1)
		}
	}
	left, err := c.Parked(t.Context(), eventlog.Partition("key"), "key", 0)
	if err != nil || len(left) != 0 {
		t.Errorf("%d records are still parked, %v", len(left), err)
	}
}
