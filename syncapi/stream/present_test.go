package stream

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

func TestWhoDoesNotComeBackAfterARestartIsToldToBeOffline(t *testing.T) {
	const bob, carol = id.UserID("@bob:test"), id.UserID("@carol:test")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "sync.db")}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	stored, err := storage.New(t.Context(), db, func(storage.Changes) {})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(replica string) *Hub {
		return New(Options{Storage: stored, Presence: presence.NewTracker(time.Now), Sole: true}, replica)
	}
	is := func(h *Hub, user id.UserID) presence.State {
		return h.PresenceOf(&storage.Presence{UserID: user}).State
	}

	first := begin("first")
	first.hearPresence(presenceMessage{Replica: "first", Users: []presence.Update{{UserID: alice, State: presence.Online, Active: 1000},
		{UserID: bob, State: presence.Unavailable}, {UserID: carol, State: presence.Online}}})
	first.keepPresent(t.Context())
	first.hearPresence(presenceMessage{Replica: "first", Users: []presence.Update{{UserID: carol, State: presence.Offline}}})
	first.keepPresent(t.Context())

	second := begin("second")
	second.restorePresent(t.Context())
	if a, b, c := is(second, alice), is(second, bob), is(second, carol); a != presence.Online || b != presence.Unavailable || c != presence.Offline {
		t.Errorf("after the restart: %s, %s, %s", a, b, c)
	}
	if got := second.presence.since(first.typing.number, nil); len(got) != 2 {
		t.Errorf("who comes with a token of before gets %v", got)
	}
	second.hearPresence(presenceMessage{Replica: "second", Users: []presence.Update{{UserID: alice, State: presence.Online}}})
	second.endPresence()
	if len(second.presence.pending) > 0 {
		t.Errorf("told without a change: %v", second.presence.pending)
	}
	for _, p := range second.presence.users {
		for replica, what := range p.by {
			what.at = what.at.Add(-presenceEnds - time.Second)
			p.by[replica] = what
		}
	}
	second.endPresence()
	if got := slices.Collect(maps.Keys(second.presence.pending)); !slices.Equal(got, []id.UserID{bob}) || is(second, bob) != presence.Offline || is(second, alice) != presence.Online {
		t.Errorf("after the wait %v is told; %s, %s", got, is(second, alice), is(second, bob))
	}
	second.announce(t.Context())
	if got := second.presence.users[bob].number; got <= first.typing.number {
		t.Errorf("it has the number %d, which clients have passed: it was %d", got, first.typing.number)
	}
	if got := second.presence.since(second.presence.first, nil); len(got) != 1 || got[0].UserID != bob {
		t.Errorf("since the restart there is %v", got)
	}
	second.keepPresent(t.Context())
	if kept, err := stored.Present(t.Context()); err != nil || len(kept) != 1 || kept[0].UserID != alice {
		t.Errorf("kept are %v, %v", kept, err)
	}
}
