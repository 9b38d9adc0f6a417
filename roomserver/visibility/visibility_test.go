package visibility

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const bob = id.UserID("@bob:here")

// fake is a room in memory that counts what it is asked.
type fake struct {
	room     storage.Room
	now      storage.Membership
	events   map[id.EventID]*storage.Event
	states   states
	erasures []storage.Erasure
	lookUps  int // calls of AtRoots
	entries  int // entries that they asked for
	eventIDs int // calls of EventsByID
}

func newFake() *fake {
	return &fake{room: storage.Room{NID: 1, ID: "!room:here"}, events: make(map[id.EventID]*storage.Event), states: make(states)}
}

func (f *fake) Membership(context.Context, int64, id.UserID) (storage.Membership, error) {
	return f.now, nil
}

func (f *fake) EventsByID(_ context.Context, ids []id.EventID, _ bool) (map[id.EventID]*storage.Event, error) {
	f.eventIDs++
	found := make(map[id.EventID]*storage.Event)
	for _, eventID := range ids {
		if e := f.events[eventID]; e != nil {
			found[eventID] = e
		}
	}
	return found, nil
}

func (f *fake) Erasures(context.Context, int64, []id.UserID) ([]storage.Erasure, error) {
	return f.erasures, nil
}

func (f *fake) AtRoots(_ context.Context, _ int64, wanted map[api.Root][]auth.Key) (states, error) {
	f.lookUps++
	found := make(states)
	for root, keys := range wanted {
		found[root] = make(map[auth.Key]*storage.Event)
		for _, k := range keys {
			f.entries++
			if e := f.states[root][k]; e != nil {
				found[root][k] = e
			}
		}
	}
	return found, nil
}

// add puts an event into the timeline, on a state that has these events.
func (f *fake) add(t *testing.T, visibility storage.Visibility, eventType, stateKey string, content any, on ...*storage.Event) *storage.Event {
	t.Helper()
	n := int64(len(f.events) + 1)
	raw := map[string]any{"type": eventType, "room_id": f.room.ID, "sender": "@alice:here", "content": content, "origin_server_ts": n, "depth": n,
		"auth_events": []string{}, "prev_events": []string{}}
	if eventType != "m.room.message" {
		raw["state_key"] = stateKey
	}
	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	e, err := pdu.ParseTrusted("11", id.EventID(fmt.Sprintf("$%d", n)), text)
	if err != nil {
		t.Fatal(err)
	}
	root := api.Root{byte(n)}
	if len(on) == 0 {
		root = api.Root{255}
	}
	state := make(map[auth.Key]*storage.Event)
	for _, s := range on {
		k, _ := s.PDU.StateKey()
		state[auth.Key{Type: s.PDU.Type(), StateKey: k}] = s
	}
	f.states[root] = state
	stored := &storage.Event{PDU: e, RoomNID: 1, InTimeline: true, Order: api.OrderKey{Index: n}, Root: root, Visibility: visibility}
	f.events[e.ID()] = stored
	return stored
}

func (f *fake) member(t *testing.T, membership string, on ...*storage.Event) *storage.Event {
	t.Helper()
	e := f.add(t, storage.Joined, pdu.TypeMember, string(bob), map[string]string{"membership": membership}, on...)
	f.now = storage.Membership{UserID: bob, Membership: membership, EventID: e.PDU.ID()}
	return e
}

func (f *fake) say(t *testing.T, visibility storage.Visibility, on ...*storage.Event) *storage.Event {
	t.Helper()
	return f.add(t, visibility, "m.room.message", "", map[string]string{"body": "hello"}, on...)
}

// seen are the ids of those events that bob sees, with his membership at them.
func (f *fake) seen(t *testing.T, viewer api.Viewer, events ...*storage.Event) string {
	t.Helper()
	f.lookUps, f.entries, f.eventIDs = 0, 0, 0
	shown, err := newChecker(f).Filter(t.Context(), &f.room, viewer, events)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range shown {
		all = append(all, strings.TrimSuffix(string(e.PDU.ID())+":"+e.Membership, ":"))
	}
	return strings.Join(all, " ")
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestOutcomes(t *testing.T) {
	f := newFake()
	join := f.member(t, "join")
	var events []*storage.Event
	for _, outcome := range []storage.Outcome{storage.Accepted, storage.SoftFailed, storage.Rejected, storage.Outlier, storage.RejectedOutlier} {
		e := f.say(t, storage.WorldReadable, join)
		e.Outcome, e.InTimeline = outcome, outcome < storage.Rejected
		events = append(events, e)
	}
	check(t, "a member sees", f.seen(t, api.Viewer{UserID: bob}, events...), "$2:join")
	check(t, "the server sees", f.seen(t, api.Viewer{}, events...), "$2 $3 $4 $5 $6")
}

// What a member of a room with shared history sees after their join costs no look-up, and what they saw before it one in all.
func TestCost(t *testing.T) {
	f := newFake()
	before := []*storage.Event{f.say(t, storage.Shared), f.say(t, storage.Shared), f.say(t, storage.Joined)}
	join := f.member(t, "join")
	after := []*storage.Event{f.say(t, storage.Shared, join), f.say(t, storage.WorldReadable, join)}
	check(t, "after the join", f.seen(t, api.Viewer{UserID: bob}, after...), "$5:join $6:join")
	if f.lookUps != 0 || f.eventIDs != 1 {
		t.Errorf("%d look-ups of state, %d of events", f.lookUps, f.eventIDs)
	}
	check(t, "before the join", f.seen(t, api.Viewer{UserID: bob}, append(before, after...)...), "$1:leave $2:leave $5:join $6:join")
	if f.lookUps != 1 || f.entries != 1 {
		t.Errorf("%d look-ups of state for %d entries: the events before the join are on the same state", f.lookUps, f.entries)
	}
	var narrow []*storage.Event
	for range 50 {
		narrow = append(narrow, f.say(t, storage.Joined, join))
	}
	if f.seen(t, api.Viewer{UserID: bob}, narrow...); f.lookUps != 1 || f.entries != 50 {
		t.Errorf("%d look-ups for %d entries, of 50 states", f.lookUps, f.entries)
	}
	f.now = storage.Membership{}
	if f.seen(t, api.Viewer{UserID: "@stranger:here"}, append(narrow, after...)...); f.lookUps != 0 {
		t.Errorf("%d look-ups for a stranger", f.lookUps)
	}
}

// An event of a fork that does not know of the join is not for the member, although it arrived after it; unless history is shared.
func TestForks(t *testing.T) {
	f := newFake()
	join := f.member(t, "join")
	narrow, invited, shared := f.say(t, storage.Joined), f.say(t, storage.Invited), f.say(t, storage.Shared)
	known := f.say(t, storage.Joined, join)
	check(t, "a member sees", f.seen(t, api.Viewer{UserID: bob}, narrow, invited, shared, known), "$4:join $5:join")
	leave := f.member(t, "leave", join)
	late := f.say(t, storage.Joined, join)
	check(t, "who left sees", f.seen(t, api.Viewer{UserID: bob}, shared, known, leave, late), "$4:leave $5:join $6:leave")
}

func TestLeaves(t *testing.T) {
	f := newFake()
	join := f.member(t, "join")
	said := f.say(t, storage.Shared, join)
	left := f.member(t, "leave", join)
	for range 5 {
		left = f.member(t, "leave", f.member(t, "invite", left))
	}
	check(t, "after many invites", f.seen(t, api.Viewer{UserID: bob}, said, f.say(t, storage.Shared, left)), "$2:join")

	f.now = storage.Membership{UserID: bob, Membership: "leave"} // a state reset took the member event away
	check(t, "after a reset", f.seen(t, api.Viewer{UserID: bob}, said), "")

	f = newFake()
	said = f.say(t, storage.Shared)
	f.member(t, "leave", f.member(t, "invite"))
	check(t, "after a rejected invite", f.seen(t, api.Viewer{UserID: bob}, said), "")

	f = newFake()
	said = f.say(t, storage.Shared)
	invite := f.member(t, "invite")
	invite.InTimeline, invite.Outcome = false, storage.Outlier
	check(t, "with an invite from elsewhere", f.seen(t, api.Viewer{UserID: bob}, said, invite), "")
}

// The previous content is shown to those who were in the room, or may see the event that had it.
func TestPreviousContent(t *testing.T) {
	f := newFake()
	first := f.add(t, storage.Joined, "m.room.topic", "", map[string]string{"topic": "secret"})
	second := f.add(t, storage.Shared, "m.room.topic", "", map[string]string{"topic": "known"}, first)
	third := f.add(t, storage.Shared, "m.room.topic", "", map[string]string{"topic": "new"}, second)
	f.member(t, "join")
	shown, err := newChecker(f).Filter(t.Context(), &f.room, api.Viewer{UserID: bob}, []*storage.Event{second, third})
	if err != nil || len(shown) != 2 {
		t.Fatal(shown, err)
	}
	if e := shown[0]; e.ReplacesState != "$1" || e.PrevContent != nil {
		t.Errorf("replaces %s, which had %s", e.ReplacesState, e.PrevContent)
	}
	if e := shown[1]; e.ReplacesState != "$2" || string(e.PrevContent) != `{"topic":"known"}` {
		t.Errorf("replaces %s, which had %s", e.ReplacesState, e.PrevContent)
	}
}

func TestErasedSenders(t *testing.T) {
	bodies := func(f *fake, viewer id.UserID, events ...*storage.Event) string {
		t.Helper()
		shown, err := newChecker(f).Filter(t.Context(), &f.room, api.Viewer{UserID: viewer}, events)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range shown {
			all = append(all, string(e.PDU.ID())+string(e.PDU.Content()))
		}
		return strings.Join(all, " ")
	}
	const whole = `{"body":"hello"}`
	for what, c := range map[string]struct {
		order    string // of what happens: s says something, j joins, l leaves, e erases the sender
		want     string
		readable bool
	}{
		"who joins later":               {"sej", "$1{}", false},
		"who was joined":                {"jse", "$2" + whole, false},
		"who had joined meanwhile":      {"sje", "$1" + whole, false},
		"who left before":               {"sjle", "$1" + whole, false},
		"who joins, leaves, comes back": {"sejlj", "$1{}", false},
		"who joined, then left":         {"sjel", "$1" + whole, false},
		"who never was there":           {"se", "$1{}", true},
		"without an erasure":            {"sj", "$1" + whole, false},
	} {
		f := newFake()
		var said *storage.Event
		var on []*storage.Event
		visibility := storage.Shared
		if c.readable {
			visibility = storage.WorldReadable
		}
		for _, step := range c.order {
			switch step {
			case 's':
				said = f.say(t, visibility, on...)
			case 'j':
				on = []*storage.Event{f.member(t, "join", on...)}
			case 'l':
				on = []*storage.Event{f.member(t, "leave", on...)}
			case 'e':
				n := int64(len(f.events))
				f.erasures = []storage.Erasure{{UserID: "@alice:here", Root: f.say(t, storage.Shared, on...).Root, Last: api.OrderKey{Index: n}}}
			}
		}
		check(t, what, bodies(f, bob, said), c.want)
	}
}
