package input

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

var errUndone = errors.New("this input is undone")

// rootOfEvents is the root of a state that is built at once, from nothing.
func (w *world) rootOfEvents(now map[auth.Key]id.EventID) statetrie.Hash {
	w.t.Helper()
	keys, err := w.in.Storage.KeyNIDs(w.t.Context(), slices.Collect(maps.Keys(now)))
	must(w.t, err)
	events, err := w.in.Storage.EventsByID(w.t.Context(), slices.Collect(maps.Values(now)))
	must(w.t, err)
	nids := make(map[id.EventID]statetrie.EventNID)
	for _, e := range events {
		nids[e.PDU.ID()] = e.NID
	}
	var entries []statetrie.Entry
	for k, eventID := range now {
		entries = append(entries, statetrie.Entry{Key: keys[k], Event: nids[eventID]})
	}
	root, _, err := statetrie.New(nil, statetrie.NewCache(0)).Update(w.t.Context(), statetrie.Hash{}, entries)
	must(w.t, err)
	return root
}

// another makes the commit under way fail, as one does that finds a room which another replica has changed.
func another(d *draft) {
	d.also = append(d.also, func(context.Context, *sqlutil.Tx) error { return errRaced })
}

// Whatever inputs a transaction has, whichever of them are undone, and however often it is made again, each state has
// the root of one that is built from nothing, and all its nodes are stored.
func TestStatesOfDraftsAreThoseOfStatesBuiltFromNothing(t *testing.T) {
	chance := rand.New(rand.NewPCG(test.Seed(t), 0))
	w := newWorld(t)
	roomID := w.room("11")
	now := make(map[auth.Key]id.EventID) // as the log has it
	for round := range 30 {
		letGo := w.hold(roomID)
		var all sync.WaitGroup
		inputs := 1 + chance.IntN(8)
		for n := range inputs {
			var protos []Proto
			for range 1 + chance.IntN(30) {
				key := fmt.Sprint("key", chance.IntN(400))
				protos = append(protos, proto(alice, "org.test", &key, fmt.Sprintf(`{"by":"%d %d"}`, round, n)))
			}
			undone, races := chance.IntN(3) == 0, chance.IntN(8)
			all.Go(func() {
				_, err := w.in.submit(t.Context(), roomID, &job{run: func(ctx context.Context, d *draft) (any, error) {
					if d.overlay == nil { // nothing but the draft has its nodes
						d.overlay = statetrie.New(w.in.Storage.Nodes(d.room.NID), statetrie.NewCache(0))
					}
					if races--; races == 0 {
						another(d)
					}
					for i := range protos {
						if _, err := w.in.add(ctx, d, &protos[i], nil); err != nil {
							return nil, err
						}
					}
					if undone {
						return nil, errUndone
					}
					return nil, nil
				}})
				if undone != errors.Is(err, errUndone) || !undone && err != nil {
					t.Errorf("an input ended with %v", err)
				}
			})
		}
		w.waits(roomID, inputs)
		letGo()
		all.Wait()
	}
	cold, err := state.NewReader(w.in.Storage, false)
	must(t, err)
	log := w.log(roomID)
	chained(t, log)
	for i, e := range log {
		for _, c := range e.Changes {
			if was := now[auth.Key{Type: c.Type, StateKey: c.StateKey}]; c.Old != was {
				t.Fatalf("event %d replaces %q in place of %q", i, c.Old, was)
			}
			now[auth.Key{Type: c.Type, StateKey: c.StateKey}] = c.New
		}
		if i%20 != 0 && i != len(log)-1 {
			continue
		}
		if want := w.rootOfEvents(now); e.RootAfter != want {
			t.Fatalf("after event %d the root is %s, built from nothing %s", i, e.RootAfter, want)
		}
		room, err := cold.Room(t.Context(), roomID)
		must(t, err)
		stored, err := cold.Entries(t.Context(), room.NID, e.RootAfter, statetrie.All)
		if err != nil || len(stored) != len(now) {
			t.Fatalf("of %d entries after event %d, %d are stored: %v", len(now), i, len(stored), err)
		}
	}
	t.Logf("%d events, %d entries", len(log), len(now))
}

// Whoever made a room may be told of it later than others, who have changed it since. What is in memory is the room as
// it is.
func TestARoomThatWasChangedBeforeItsMakerHeardOfItStaysChanged(t *testing.T) {
	w := newWorld(t)
	roomID := w.room("11")
	made, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	_, err = w.say(roomID, "", "at once")
	must(t, err)
	d := w.in.newDraft(made)
	d.room, d.isNew = *made, true
	w.in.committed(d)
	cached, err := w.in.Reader.Room(t.Context(), roomID)
	must(t, err)
	stored, err := w.in.Storage.Room(t.Context(), roomID)
	must(t, err)
	if cached.RowVersion != stored.RowVersion || cached.Last != stored.Last {
		t.Errorf("in memory the room ends at %v, in the database at %v", cached.Last, stored.Last)
	}
}
