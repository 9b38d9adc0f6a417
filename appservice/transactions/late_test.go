package transactions

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// settled waits until no transaction is under way to a service.
func (b *bench) settled(service string) {
	b.t.Helper()
	for underWay := true; underWay; {
		err := b.store.DB.Read(b.t.Context(), "under way", func(ctx context.Context, tx *sqlutil.Tx) error {
			t, err := b.store.Transaction(ctx, tx, service)
			underWay = t != nil
			return err
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// A process that lost its lease while it made a transaction does not store it when others have sent, or skipped, what
// is in it.
func TestATransactionThatIsMadeLateIsNotSent(t *testing.T) {
	late := func(t *testing.T, b *bench, meanwhile func()) {
		t.Helper()
		asked, answer := make(chan struct{}), make(chan struct{})
		b.mu.Lock()
		b.asked = func() {
			close(asked)
			<-answer
		}
		b.mu.Unlock()
		b.queue("one", 3)
		<-asked
		meanwhile()
		close(answer)
		b.queue("one", 1)
		b.has("one")
		f := b.fakes["one"]
		f.mu.Lock()
		defer f.mu.Unlock()
		var all []string
		for _, txn := range f.order {
			all = append(all, eventsOf(f.bodies[txn])...)
		}
		if len(all) != len(b.queued["one"]) {
			t.Errorf("one was sent %d events, want %d: %v", len(all), len(b.queued["one"]), all)
		}
	}
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		late(t, b, func() {
			first, stop := b.sender, b.stop
			b.start() // another replica, which has the lease now
			b.sender.Wake("one")
			b.has("one")
			b.settled("one")
			b.stop()
			b.sender, b.stop = first, stop
		})
		late(t, b, func() {
			err := b.store.DB.Write(t.Context(), "skip", func(ctx context.Context, tx *sqlutil.Tx) error {
				_, err := b.store.Skip(ctx, tx, "one", true)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			b.queued["one"] = b.queued["one"][:len(b.queued["one"])-3]
		})
	})
}

// What is too large for a service is sent in smaller transactions, with all that rides with it.
func TestWhatIsTooLargeIsSentInParts(t *testing.T) {
	benches(t, []string{"one"}, func(t *testing.T, b *bench) {
		f := b.fakes["one"]
		const limit = 3000
		refused := make(map[string]bool)
		f.does(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			txn := path.Base(r.URL.Path)
			f.mu.Lock()
			body := f.bodies[txn]
			tooLarge := len(body) > limit
			if tooLarge {
				f.takes[txn] = true // another one may come, and it is never sent again
				if refused[txn] {
					t.Errorf("%s is sent again, which is too large", txn)
				}
				refused[txn] = true
			}
			f.mu.Unlock()
			if tooLarge {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return false
			}
			f.note(txn)
			_, _ = io.WriteString(w, "{}")
			return true
		})
		b.mu.Lock()
		b.bad["$one-3"] = nil
		b.mu.Unlock()
		b.queue("one", 150)
		b.queued["one"] = slices.Delete(b.queued["one"], 3, 4)
		b.has("one")
		b.settled("one")
	})
}

func TestHalfOfATransactionKeepsWhatRides(t *testing.T) {
	body, err := body([]json.RawMessage{[]byte(`{"event_id":"$1"}`), []byte(`{"event_id":"$2"}`),
		[]byte(`{"event_id":"$3"}`)}, []Part{{ToDevice: []json.RawMessage{[]byte(`{"type":"a"}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	shorter, events, err := half(body)
	want := `{"events":[{"event_id":"$1"}],"de.sorunome.msc2409.to_device":[{"type":"a"}],"to_device":[{"type":"a"}]}`
	if err != nil || string(shorter) != want || !slices.Equal(events, []id.EventID{"$1"}) {
		t.Errorf("half of a transaction: %s, %v, %v", shorter, events, err)
	}
}
