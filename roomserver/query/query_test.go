package query_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	. "github.com/matrix-org/dendrite/test/roomtest"
)

// pages reads a room in one direction until there is no more, and counts the calls.
func pages(t *testing.T, w *World, req api.QueryMessagesRequest) (bodies []string, calls int) {
	t.Helper()
	for calls = 1; ; calls++ {
		res := Must(w, w.QueryMessages, req)
		if req.From != nil && res.Start != *req.From {
			t.Errorf("start is %v, from was %v", res.Start, *req.From)
		}
		if len(res.Chunk) > req.Limit {
			t.Errorf("%d events for a limit of %d", len(res.Chunk), req.Limit)
		}
		bodies = append(bodies, Bodies(res.Chunk)...)
		if res.End == nil {
			return bodies, calls
		}
		if calls > 1000 {
			t.Fatal("no end")
		}
		req.From = res.End
	}
}

func TestMessagesPagination(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		room := w.Room("shared")
		var want []string
		for i := range 30 {
			body := fmt.Sprint(i)
			w.Say(room, Alice, body)
			want = append(want, body)
		}
		backward := slices.Clone(want)
		slices.Reverse(backward)
		for _, limit := range []int{1, 7, 10, 30, 500} {
			got, _ := pages(t, w, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: limit, Filter: Messages()})
			if !slices.Equal(got, want) {
				t.Errorf("forward by %d: %v", limit, got)
			}
			got, _ = pages(t, w, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: limit, Filter: Messages(), Backward: true})
			if !slices.Equal(got, backward) {
				t.Errorf("backward by %d: %v", limit, got)
			}
		}
		everything, _ := pages(t, w, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 5})
		if everything[0] != pdu.TypeCreate || !slices.Equal(everything[len(everything)-30:], want) {
			t.Errorf("the whole room is %v", everything)
		}
		if _, calls := pages(t, w, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: len(everything)}); calls != 1 {
			t.Errorf("a page with all of the room names an end")
		}
	})
}

// A token is a gap: reading on in the other direction returns the same events, and to ends a walk.
func TestMessagesTokens(t *testing.T) {
	w := New(t, true)
	room := w.Room("shared")
	for i := range 10 {
		w.Say(room, Alice, fmt.Sprint(i))
	}
	first := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 4, Backward: true})
	if got := strings.Join(Bodies(first.Chunk), ""); got != "9876" {
		t.Fatalf("got %s", got)
	}
	back := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: first.End, Limit: 10})
	if got := strings.Join(Bodies(back.Chunk), ""); got != "6789" || back.End != nil {
		t.Errorf("forward from there: %s, end %v", got, back.End)
	}
	second := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: first.End, Limit: 2, Backward: true})
	upTo := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: &first.Start, To: second.End, Limit: 100, Backward: true})
	if got := strings.Join(Bodies(upTo.Chunk), ""); got != "987654" || upTo.End != nil {
		t.Errorf("backward up to: %s, end %v", got, upTo.End)
	}
	upTo = Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: second.End, To: first.End, Limit: 100})
	if got := strings.Join(Bodies(upTo.Chunk), ""); got != "45" || upTo.End != nil {
		t.Errorf("forward up to: %s, end %v", got, upTo.End)
	}
	Fails(w, "M_FORBIDDEN", w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Bob), RoomID: room, Limit: 1})
	Fails(w, "M_FORBIDDEN", w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Bob), RoomID: "!none:here", Limit: 1})
}

// A rare event is found over many calls, each of which reads a bounded part of the room.
func TestMessagesRareEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("stores thousands of events")
	}
	w := New(t, true)
	room := w.Room("shared")
	w.Set(room, Alice, "org.example.rare", "", `{"body":"rare"}`)
	for i := range 2500 {
		w.Say(room, Alice, fmt.Sprint(i))
	}
	got, calls := pages(t, w, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 1, Backward: true,
		Filter: &api.EventFilter{Types: []string{"org.example.*"}}})
	if !slices.Equal(got, []string{"rare"}) || calls < 2 || calls > 4 {
		t.Errorf("%v after %d calls", got, calls)
	}
}

func TestMessagesLazyMembers(t *testing.T) {
	w := New(t, true)
	room := w.Room("shared")
	w.Join(room, Bob)
	w.Join(room, Carol)
	w.Say(room, Alice, "a")
	w.Say(room, Bob, "b")
	for _, backward := range []bool{true, false} {
		res := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 10, Backward: backward,
			Filter: &api.EventFilter{Types: []string{"m.room.message"}, LazyLoadMembers: true}})
		if got := members(res.State); len(res.State) != 2 || got[string(Alice)] != "join" || got[string(Bob)] != "join" {
			t.Errorf("backward %t: members %v", backward, got)
		}
		res = Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 10, Backward: backward})
		if len(res.State) > 0 {
			t.Errorf("state %v that nobody asked for", ids(res.State))
		}
	}
}

func TestContext(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		room := w.Room("shared")
		w.Join(room, Bob)
		var sent []id.EventID
		for i := range 9 {
			sent = append(sent, w.Say(room, Alice, fmt.Sprint(i)))
			if i == 5 {
				w.Set(room, Alice, "m.room.topic", "", `{"topic":"later"}`)
			}
		}
		for limit, want := range map[int]string{0: " 4 ", 1: " 4 5", 2: "3 4 5", 5: "32 4 567", 100: "3210 4 5678"} {
			res := Must(w, w.QueryContext, api.QueryContextRequest{Viewer: as(Bob), RoomID: room, EventID: sent[4], Limit: limit, Filter: Messages()})
			got := fmt.Sprintf("%s %s %s", strings.Join(Bodies(res.Before), ""), Bodies([]api.Event{res.Event})[0], strings.Join(Bodies(res.After), ""))
			if got != want {
				t.Errorf("limit %d: %q, want %q", limit, got, want)
			}
			if len(res.State) > 0 {
				t.Errorf("the filter selects no state, got %v", ids(res.State))
			}
			before := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Bob), RoomID: room, From: &res.Start, Backward: true, Limit: 100, Filter: Messages()})
			after := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Bob), RoomID: room, From: &res.End, Limit: 100, Filter: Messages()})
			if all := len(before.Chunk) + len(after.Chunk) + len(res.Before) + len(res.After) + 1; all != len(sent) {
				t.Errorf("limit %d: with start and end, %d of %d events are reached", limit, all, len(sent))
			}
		}
		topic := func(limit int) int {
			res := Must(w, w.QueryContext, api.QueryContextRequest{Viewer: as(Bob), RoomID: room, EventID: sent[4], Limit: limit})
			n := 0
			for _, e := range res.State {
				if e.PDU.Is("m.room.topic", "") {
					n++
				}
			}
			return n
		}
		if topic(2) != 0 || topic(5) != 1 || topic(100) != 1 {
			t.Errorf("state is not that at the last event: %d %d %d", topic(2), topic(5), topic(100))
		}
		lazy := Must(w, w.QueryContext, api.QueryContextRequest{Viewer: as(Bob), RoomID: room, EventID: sent[4], Limit: 2, Filter: &api.EventFilter{LazyLoadMembers: true}})
		if got := members(lazy.State); len(got) != 1 || got[string(Alice)] != "join" {
			t.Errorf("lazily loaded members are %v", got)
		}
		Fails(w, "M_NOT_FOUND", w.QueryContext, api.QueryContextRequest{Viewer: as(Bob), RoomID: room, EventID: "$none"})
		Fails(w, "M_FORBIDDEN", w.QueryContext, api.QueryContextRequest{Viewer: as(Carol), RoomID: room, EventID: sent[4]})
	})
}

func topicOf(events []api.Event) string {
	for _, e := range events {
		if e.PDU.Is("m.room.topic", "") {
			topic, _ := pdu.String(pdu.Member(e.PDU.Content(), "topic"))
			return topic
		}
	}
	return ""
}

func TestStateAndMembersOverTime(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		room := w.Room("shared")
		state := func(user id.UserID) []api.Event {
			t.Helper()
			return Must(w, w.QueryState, api.QueryStateRequest{Viewer: as(user), RoomID: room}).Events
		}
		Fails(w, "M_FORBIDDEN", w.QueryState, api.QueryStateRequest{Viewer: as(Bob), RoomID: room})
		Fails(w, "M_FORBIDDEN", w.QueryState, api.QueryStateRequest{Viewer: as(Bob), RoomID: "!none:here"})
		w.Do(api.ActionInvite, room, Alice, Bob)
		Fails(w, "M_FORBIDDEN", w.QueryState, api.QueryStateRequest{Viewer: as(Bob), RoomID: room})
		w.Set(room, Alice, "m.room.topic", "", `{"topic":"one"}`)
		w.Join(room, Bob)
		joined := Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms[0].Last
		if got := topicOf(state(Bob)); got != "one" {
			t.Errorf("a member sees topic %q", got)
		}
		w.Do(api.ActionLeave, room, Bob, Bob)
		w.Set(room, Alice, "m.room.topic", "", `{"topic":"two"}`)
		w.Join(room, Carol)
		if got := topicOf(state(Alice)); got != "two" {
			t.Errorf("a member sees topic %q", got)
		}
		if got := state(Bob); topicOf(got) != "one" || members(got)[string(Bob)] != "leave" || len(members(got)) != 2 {
			t.Errorf("who left sees topic %q and members %v", topicOf(got), members(got))
		}
		one := Must(w, w.QueryState, api.QueryStateRequest{Viewer: as(Bob), RoomID: room, Keys: []api.StateKeyTuple{
			{Type: pdu.TypeMember, StateKey: string(Bob)}, {Type: pdu.TypeMember, StateKey: string(Carol)}, {Type: "m.room.topic"}, {Type: "none"}}}).Events
		if len(one) != 2 || members(one)[string(Bob)] != "leave" {
			t.Errorf("single entries are %v", Bodies(one))
		}

		list := func(user id.UserID, at *api.OrderKey, is, isNot string) map[string]string {
			t.Helper()
			return members(Must(w, w.QueryMembers, api.QueryMembersRequest{Viewer: as(user), RoomID: room, At: at, Membership: is, NotMembership: isNot}).Events)
		}
		for what, c := range map[string]struct {
			got  map[string]string
			want string
		}{
			"now":              {list(Alice, nil, "", ""), `{"@alice:here":"join","@bob:here":"leave","@carol:here":"join"}`},
			"joined":           {list(Alice, nil, "join", ""), `{"@alice:here":"join","@carol:here":"join"}`},
			"not joined":       {list(Alice, nil, "", "join"), `{"@bob:here":"leave"}`},
			"one or the other": {list(Alice, nil, "leave", "leave"), `{"@alice:here":"join","@bob:here":"leave","@carol:here":"join"}`},
			"then":             {list(Alice, &joined, "", ""), `{"@alice:here":"join","@bob:here":"join"}`},
			"left":             {list(Bob, nil, "", ""), `{"@alice:here":"join","@bob:here":"leave"}`},
			"left, joined":     {list(Bob, nil, "join", ""), `{"@alice:here":"join"}`},
			"left, then":       {list(Bob, &joined, "", ""), `{"@alice:here":"join","@bob:here":"join"}`},
			"left, after":      {list(Bob, &api.OrderKey{Segment: joined.Segment, Index: joined.Index + 100}, "", ""), `{"@alice:here":"join","@bob:here":"leave"}`},
		} {
			if got, _ := json.Marshal(c.got); string(got) != c.want {
				t.Errorf("members, %s: %s, want %s", what, got, c.want)
			}
		}
	})
}

func TestStateByFilterAndRoot(t *testing.T) {
	w := New(t, true)
	room := w.Room("shared")
	w.Join(room, Bob)
	root := Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms[0].Root
	w.Join(room, Carol)
	topic := w.Set(room, Alice, "m.room.topic", "", `{"topic":"new"}`)
	now := Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms[0].Root
	get := func(req api.QueryStateRequest) []api.Event {
		t.Helper()
		req.RoomID = room
		return Must(w, w.QueryState, req).Events
	}
	then := get(api.QueryStateRequest{Root: &root})
	if len(members(then)) != 2 || topicOf(then) != "" {
		t.Errorf("the state of a root is %v", Bodies(then))
	}
	lazy := get(api.QueryStateRequest{Root: &now, Filter: &api.EventFilter{LazyLoadMembers: true}, Members: []id.UserID{Carol, "@none:here"}})
	if got := members(lazy); len(got) != 1 || got[string(Carol)] != "join" || topicOf(lazy) != "new" {
		t.Errorf("with lazy members: %v, %s", got, topicOf(lazy))
	}
	only := get(api.QueryStateRequest{Root: &now, Keys: []api.StateKeyTuple{}, Filter: &api.EventFilter{LazyLoadMembers: true}, Members: []id.UserID{Bob}})
	if got := members(only); len(only) != 1 || got[string(Bob)] != "join" {
		t.Errorf("members only: %v", Bodies(only))
	}
	if got := get(api.QueryStateRequest{Viewer: as(Alice), Filter: &api.EventFilter{Types: []string{"m.room.top*"}}}); len(got) != 1 || topicOf(got) != "new" {
		t.Errorf("by type: %v", Bodies(got))
	}
	if got := get(api.QueryStateRequest{Viewer: as(Alice), Filter: &api.EventFilter{Senders: []id.UserID{Bob}}}); len(got) != 1 || members(got)[string(Bob)] != "join" {
		t.Errorf("by sender: %v", Bodies(got))
	}
	changes := Must(w, w.QueryStateDiff, api.QueryStateDiffRequest{RoomID: room, From: root, To: now}).Changes
	if len(changes) != 2 {
		t.Errorf("difference of the roots: %+v", changes)
	}
	for _, c := range changes {
		if c.Type == "m.room.topic" && (c.New != topic || c.Old != "") || c.Type == pdu.TypeMember && c.NewMembership != "join" {
			t.Errorf("difference of the roots: %+v", c)
		}
	}
}

func TestStrippedState(t *testing.T) {
	w := New(t, true)
	room := w.Room("shared")
	w.Set(room, Alice, "m.room.name", "", `{"name":"The Room"}`)
	w.Set(room, Alice, "m.room.encryption", "", `{"algorithm":"m.megolm.v1.aes-sha2"}`)
	w.Do(api.ActionInvite, room, Alice, Bob)
	root := Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms[0].Root
	res := Must(w, w.QueryStrippedState, api.QueryStrippedStateRequest{RoomID: room, Root: root, UserID: Bob, Sender: Alice})
	var types []string
	for _, raw := range res.State {
		var e map[string]any
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		if len(e) != 4 {
			t.Errorf("a stripped event is %s", raw)
		}
		kind := e["type"].(string)
		if member := e["state_key"].(string); member != "" {
			kind += " of " + member
		}
		types = append(types, kind)
	}
	if want := []string{"m.room.create", "m.room.name", "m.room.join_rules", "m.room.encryption", "m.room.member of " + string(Alice), "m.room.member of " + string(Bob)}; !slices.Equal(types, want) {
		t.Errorf("stripped state is %v, want %v", types, want)
	}
}

func TestMembershipsAndRooms(t *testing.T) {
	w := New(t, true)
	one, two, three := w.Room("shared"), w.Room("shared"), w.Room("shared")
	w.Join(one, Bob)
	w.Do(api.ActionInvite, two, Alice, Bob)
	w.Join(three, Bob)
	w.Do(api.ActionLeave, three, Bob, Bob)
	Must(w, w.ForgetRoom, api.ForgetRoomRequest{RoomID: three, UserID: Bob})
	list := func(with ...string) []id.RoomID {
		rooms := []id.RoomID{}
		for _, r := range Must(w, w.QueryMemberships, api.QueryMembershipsRequest{UserID: Bob, Memberships: with}).Rooms {
			rooms = append(rooms, r.RoomID)
		}
		slices.Sort(rooms)
		return rooms
	}
	sorted := func(rooms ...id.RoomID) []id.RoomID { slices.Sort(rooms); return rooms }
	if got := list(); !slices.Equal(got, sorted(one, two)) {
		t.Errorf("all but forgotten rooms: %v", got)
	}
	if got := list("join"); !slices.Equal(got, sorted(one)) {
		t.Errorf("joined rooms: %v", got)
	}
	if got := list("leave", "invite"); !slices.Equal(got, sorted(two, three)) {
		t.Errorf("left rooms and invites: %v", got)
	}
	for room, want := range map[id.RoomID]api.QueryMembershipResponse{
		one: {RoomExists: true, Membership: "join"}, three: {RoomExists: true, Membership: "leave", Forgotten: true}, "!none:here": {}} {
		got := Must(w, w.QueryMembership, api.QueryMembershipRequest{RoomID: room, UserID: Bob})
		got.EventID = ""
		if got != want {
			t.Errorf("membership in %s: %+v, want %+v", room, got, want)
		}
	}
	rooms := Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{three, "!none:here", one}}).Rooms
	if len(rooms) != 2 || rooms[0].RoomID != three || rooms[1].RoomID != one || rooms[1].Joined != 2 {
		t.Errorf("rooms: %+v", rooms)
	}
	a, b := w.Say(one, Alice, "a"), w.Say(two, Alice, "b")
	res := Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: as(Alice), EventIDs: []id.EventID{b, "$none", a, b}})
	if got := ids(res.Events); !slices.Equal(got, []id.EventID{b, a}) {
		t.Errorf("events of two rooms: %v, want %v", got, []id.EventID{b, a})
	}
	res = Must(w, w.QueryEvents, api.QueryEventsRequest{Viewer: as(Alice), RoomID: one, EventIDs: []id.EventID{b, a}})
	if got := ids(res.Events); !slices.Equal(got, []id.EventID{a}) {
		t.Errorf("events of one room: %v", got)
	}
}
