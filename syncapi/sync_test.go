package syncapi_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

func TestAMessageWakesWhoIsInTheRoom(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		first := w.get(bob, "")
		r := in(first, "join", room1)
		if n := len(r.Get("timeline.events").Array()); n != 4 {
			t.Errorf("the initial sync has %d events, want 4: %s", n, first)
		}
		if r.Get("timeline.limited").Bool() {
			t.Error("the whole room is in the timeline, which says that it is limited")
		}
		poll := w.poll(bob, next(first))
		sent := w.rooms.say(room1, alice, "hello", transaction("DEValice", "txn1"))
		answer := receive(t, poll)
		r = in(answer, "join", room1)
		if got := ids(r.Get("timeline.events")); len(got) != 1 || got[0] != string(sent) {
			t.Errorf("bob got %v, want %s", got, sent)
		}
		if r.Get("timeline.limited").Bool() || len(r.Get("state.events").Array()) != 0 {
			t.Errorf("an unlimited timeline has a gap or state: %s", r)
		}
		if n := r.Get("unread_notifications.notification_count").Int(); n != 1 {
			t.Errorf("bob has %d unread, want 1", n)
		}
		if r.Get("timeline.events.0.unsigned.transaction_id").Exists() {
			t.Error("bob sees alice's transaction id")
		}
		if r.Get("timeline.events.0.unsigned.membership").Str != "join" {
			t.Errorf("unsigned.membership is missing: %s", r)
		}
		own := w.get(alice, next(first))
		if txn := in(own, "join", room1).Get("timeline.events.0.unsigned.transaction_id").Str; txn != "txn1" {
			t.Errorf("alice's device sees transaction id %q", txn)
		}
		if n := in(own, "join", room1).Get("unread_notifications.notification_count").Int(); n != 0 {
			t.Errorf("alice has %d unread of her own", n)
		}
	})
}

// syncCost is how many statements a sync costs that has been answered before. Consumers look at their log now and then:
// of several counts the least is that of the sync.
func (w *world) syncCost(user id.UserID, since string) int64 {
	w.t.Helper()
	least := int64(math.MaxInt64)
	for range 5 {
		before := w.db.Count()
		w.get(user, since)
		least = min(least, int64(w.db.Count().Since(before).Statements))
	}
	return least
}

func TestAnIdleSyncCostsNoStatement(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.create(room2, bob)
		since := next(w.get(alice, ""))
		since = next(w.get(alice, since))
		if n := w.syncCost(alice, since); n != 0 {
			t.Errorf("an idle sync costs %d statements", n)
		}
		w.rooms.say(room2, bob, "in another room")
		w.get(bob, "")
		if n := w.syncCost(alice, since); n != 0 {
			t.Errorf("a sync costs %d statements after something happened elsewhere", n)
		}
	})
}

func TestAWokenSyncIsAnsweredFromMemory(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		since := next(w.get(bob, ""))
		least := int64(math.MaxInt64) // of several counts: consumers look at their log now and then
		for i := range 5 {
			w.rooms.say(room1, alice, fmt.Sprint(i))
			w.get(alice, "") // it waits until the message is here
			before := w.db.Count()
			answer := w.get(bob, since)
			if i > 0 { // the first one reads what is unread
				least = min(least, int64(w.db.Count().Since(before).Statements))
			}
			if n := in(answer, "join", room1).Get("unread_notifications.notification_count").Int(); n != int64(i+1) {
				t.Errorf("bob has %d unread after %d messages: %s", n, i+1, answer)
			}
			since = next(answer)
		}
		if least != 0 {
			t.Errorf("a sync that is woken costs %d statements", least)
		}
		w.rooms.put(room1, alice, "m.room.message", nil, mention(bob))
		answer := w.get(bob, since)
		if n := in(answer, "join", room1).Get("unread_notifications.highlight_count").Int(); n != 1 {
			t.Errorf("bob was mentioned, and has %d highlights: %s", n, answer)
		}
		w.rooms.say(room1, bob, "my answer")
		if n := in(w.get(bob, since), "join", room1).Get("unread_notifications.notification_count").Int(); n != 0 {
			t.Errorf("bob has answered, and has %d unread", n)
		}
	})
}

func TestAGapHasTheStateThatChangedInIt(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		since := next(w.get(alice, ""))
		name := w.rooms.state(room1, alice, "m.room.name", "", kv{"name": "lost in the gap"})
		joined := w.rooms.member(room1, bob, bob, "join")
		var last []string
		for i := range 12 {
			last = append(last, string(w.rooms.say(room1, bob, fmt.Sprint("message ", i))))
		}
		inTimeline := w.rooms.state(room1, alice, "m.room.topic", "", kv{"topic": "seen"})
		last = append(last, string(inTimeline))
		for _, way := range []string{"window", "database"} {
			sinceToken := since
			if way == "database" {
				w = w.reopened()
			}
			r := in(w.get(alice, sinceToken), "join", room1)
			if got := ids(r.Get("timeline.events")); !slices.Equal(got, last[len(last)-10:]) {
				t.Errorf("%s: the timeline has %v, want the last 10 of %v", way, got, last)
			}
			if !r.Get("timeline.limited").Bool() {
				t.Errorf("%s: a gap is not said", way)
			}
			state := ids(r.Get("state.events"))
			slices.Sort(state)
			want := []string{string(name), string(joined)}
			slices.Sort(want)
			if !slices.Equal(state, want) {
				t.Errorf("%s: the state has %v, want %v", way, state, want)
			}
			order, err := api.ParseOrderToken(r.Get("timeline.prev_batch").Str)
			if err != nil || order.Index != int64(3+2+12+1-10) {
				t.Errorf("%s: prev_batch is %v (%v)", way, order, err)
			}
			after := in(w.get(alice, sinceToken, "use_state_after", "true"), "join", room1)
			if got := ids(after.Get("state_after.events")); len(got) != 3 || after.Get("state").Exists() {
				t.Errorf("%s: state_after has %v, want 3 events, and no state: %s", way, got, after)
			}
		}
	})
}

func TestInvitesAndLeaves(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.state(room1, alice, "m.room.name", "", kv{"name": "here"})
		since := next(w.get(bob, ""))
		poll := w.poll(bob, since)
		w.rooms.member(room1, alice, bob, "invite")
		answer := receive(t, poll)
		stripped := in(answer, "invite", room1).Get("invite_state.events")
		if n := len(stripped.Array()); n != 3 {
			t.Errorf("the invite has %d stripped events, want 3: %s", n, answer)
		}
		if stripped.Get("0.event_id").Exists() {
			t.Error("stripped state has event ids")
		}
		if again := w.get(bob, next(answer)); in(again, "invite", room1).Exists() {
			t.Error("the invite is said twice")
		}
		if all := w.get(bob, ""); !in(all, "invite", room1).Exists() {
			t.Error("the initial sync does not have the invite")
		}
		joined := w.rooms.member(room1, bob, bob, "join")
		answer = w.get(bob, next(answer))
		r := in(answer, "join", room1)
		if got := ids(r.Get("timeline.events")); got[len(got)-1] != string(joined) {
			t.Errorf("the timeline of a new room ends with %v, want %s", got, joined)
		}
		if all := append(ids(r.Get("state.events")), ids(r.Get("timeline.events"))...); len(all) != 6 {
			t.Errorf("state and timeline of a new room have %v, want 6 events", all)
		}
		w.rooms.say(room1, alice, "before the kick")
		kick := w.rooms.member(room1, alice, bob, "leave")
		w.rooms.say(room1, alice, "after the kick")
		w.rooms.state(room1, alice, "m.room.name", "", kv{"name": "without bob"})
		answer = w.get(bob, next(answer))
		r = in(answer, "leave", room1)
		if got := ids(r.Get("timeline.events")); len(got) != 2 || got[1] != string(kick) {
			t.Errorf("bob's room ends with %v, want the kick %s", got, kick)
		}
		if in(answer, "join", room1).Exists() || len(r.Get("state.events").Array()) != 0 {
			t.Errorf("a room that was left goes on: %s", answer)
		}
		if again := w.get(bob, next(answer)); in(again, "leave", room1).Exists() {
			t.Error("the leave is said twice")
		}
		if all := w.get(bob, ""); in(all, "leave", room1).Exists() {
			t.Error("an initial sync has rooms that were left")
		}
		r = in(w.get(bob, "", "filter", `{"room":{"include_leave":true}}`), "leave", room1)
		if got := ids(r.Get("timeline.events")); got[len(got)-1] != string(kick) {
			t.Errorf("the archived room ends with %v, want %s", got, kick)
		}
	})
}

func TestARejectedInviteShowsOnlyTheLeave(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, alice, bob, "invite")
		since := next(w.get(bob, ""))
		w.rooms.say(room1, alice, "not for bob")
		left := w.rooms.member(room1, bob, bob, "leave")
		r := in(w.get(bob, since), "leave", room1)
		if got := ids(r.Get("timeline.events")); !slices.Equal(got, []string{string(left)}) {
			t.Errorf("the timeline has %v, want %s alone", got, left)
		}
		if len(r.Get("state.events").Array()) != 0 {
			t.Errorf("who only was invited gets state: %s", r)
		}
	})
}

func TestARejoinWithinAGapGivesTheWholeRoom(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		since := next(w.get(bob, ""))
		w.rooms.member(room1, bob, bob, "leave")
		w.rooms.member(room1, bob, bob, "join")
		for i := range 15 {
			w.rooms.say(room1, alice, fmt.Sprint(i))
		}
		r := in(w.get(bob, since), "join", room1)
		if n := len(r.Get("state.events").Array()); n != 4 || !r.Get("timeline.limited").Bool() {
			t.Errorf("%d state events, limited %v, want the whole state (4) and a gap", n, r.Get("timeline.limited"))
		}
	})
}

func TestAMembershipLostByResolutionIsALeaveWithoutAnEvent(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		since, sinceAlice := next(w.get(bob, "")), next(w.get(alice, ""))
		poll := w.poll(bob, since)
		w.rooms.say(room1, alice, "this forks", reset(bob))
		answer := receive(t, poll)
		for len(answer.Get("presence.events").Array()) > 0 && !in(answer, "leave", room1).Exists() {
			answer = receive(t, w.poll(bob, next(answer))) // that alice is here came before it
		}
		if r := in(answer, "leave", room1); !r.Exists() || len(r.Get("timeline.events").Array()) != 0 {
			t.Errorf("bob is told %s", answer)
		}
		if r := in(w.get(alice, sinceAlice), "join", room1); len(r.Get("timeline.events").Array()) != 1 {
			t.Errorf("alice is told %s", r)
		}
	})
}

func TestLazyMembersAreSentOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		for _, user := range []id.UserID{bob, carol} {
			w.rooms.member(room1, user, user, "join")
		}
		w.rooms.state(room1, alice, "m.room.name", "", kv{"name": "named"})
		for i := range 10 {
			w.rooms.say(room1, alice, fmt.Sprint(i))
		}
		const lazy = `{"room":{"state":{"lazy_load_members":true}}}`
		members := func(since string) (string, []string) {
			answer := w.get(alice, since, "filter", lazy)
			all := []string{}
			for _, e := range in(answer, "join", room1).Get("state.events").Array() {
				if e.Get("type").Str == "m.room.member" {
					all = append(all, e.Get("state_key").Str)
				}
			}
			return next(answer), all
		}
		since, got := members("")
		if !slices.Equal(got, []string{string(alice)}) {
			t.Errorf("at first: %v, want alice alone", got)
		}
		w.rooms.say(room1, bob, "hi")
		afterBob, got := members(since)
		if !slices.Equal(got, []string{string(bob)}) {
			t.Errorf("after bob spoke: %v, want bob", got)
		}
		if _, got = members(since); !slices.Equal(got, []string{string(bob)}) {
			t.Errorf("after a lost answer: %v, want bob again", got)
		}
		w.rooms.say(room1, bob, "again")
		if _, got = members(afterBob); len(got) != 0 {
			t.Errorf("after bob spoke again: %v, want nobody", got)
		}
	})
}

func TestFiltersLimitWhatTheySelect(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		var wanted []string
		for i := range 30 {
			w.rooms.say(room1, alice, fmt.Sprint(i))
			if i%5 == 0 {
				wanted = append(wanted, string(w.rooms.put(room1, alice, "org.example.rare", nil, kv{"i": i})))
			}
		}
		r := in(w.get(alice, "", "filter", `{"room":{"timeline":{"limit":4,"types":["org.example.*"]}}}`), "join", room1)
		if got := ids(r.Get("timeline.events")); !slices.Equal(got, wanted[2:]) || !r.Get("timeline.limited").Bool() {
			t.Errorf("the timeline has %v, want the last 4 of %v", got, wanted)
		}
		uploaded := w.must(alice, "put_filter", map[string]string{"userId": string(alice)}, kv{"room": kv{"not_rooms": []string{string(room1)}}})
		if r := in(w.get(alice, "", "filter", uploaded.Get("filter_id").Str), "join", room1); r.Exists() {
			t.Errorf("a room that the filter leaves out is there: %s", r)
		}
		if _, err := w.call(alice, "sync", nil, "filter=999", nil); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("an unknown filter: %v", err)
		}
	})
}

func TestIgnoredUsersAreNotHeard(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.must(alice, "put_account_data", map[string]string{"userId": string(alice), "type": "m.ignored_user_list"}, kv{"ignored_users": kv{string(bob): kv{}}})
		since := next(w.get(alice, ""))
		w.rooms.say(room1, bob, "spam")
		topic := w.rooms.state(room1, bob, "m.room.topic", "", kv{"topic": "state is heard"})
		w.rooms.create(room2, bob)
		w.rooms.member(room2, bob, alice, "invite")
		answer := w.get(alice, since)
		if got := ids(in(answer, "join", room1).Get("timeline.events")); !slices.Equal(got, []string{string(topic)}) {
			t.Errorf("alice hears %v, want %s", got, topic)
		}
		if in(answer, "invite", room2).Exists() {
			t.Error("alice is invited by whom she ignores")
		}
	})
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		for _, bad := range []string{"x", "s1_2_3", "s0_1_2_3", "s1_-1_0_0", "s1_1_1_a"} {
			if _, err := w.call(alice, "sync", nil, "since="+bad, nil); !mxerr.Is(err, "M_INVALID_PARAM") {
				t.Errorf("token %q: %v", bad, err)
			}
		}
		before := next(w.get(alice, ""))
		w.rooms.say(room1, alice, "one")
		after := next(w.get(alice, before))
		for token, index := range map[string]int64{before: 3, after: 4} {
			place, err := w.sync.TranslateToken(t.Context(), syncapi.TranslateTokenRequest{RoomID: room1, Token: token})
			if err != nil || place.Order.Index != index {
				t.Errorf("token %s is at %v (%v), want index %d", token, place.Order, err, index)
			}
		}
		if strings.Compare(before, after) >= 0 {
			t.Errorf("token %s is not before %s", before, after)
		}
	})
}

func TestDrainingAnswersLongPolls(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		since := next(w.get(alice, ""))
		poll := w.poll(alice, since)
		close(w.draining)
		if token := next(receive(t, poll)); token == "" {
			t.Error("no token")
		}
	})
}

func TestTheCostDoesNotGrowWithTheRooms(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const n = 30
		w.rooms.create(room1, alice)
		old := next(w.get(alice, ""))
		for i := range n {
			room := id.RoomID(fmt.Sprintf("!%d:example.org", i))
			w.rooms.create(room, bob)
			w.rooms.member(room, alice, alice, "join")
			w.rooms.say(room, bob, "hello")
		}
		middle := next(w.get(alice, ""))
		for i := range n {
			room := id.RoomID(fmt.Sprintf("!%d:example.org", i))
			for range 12 {
				w.rooms.say(room, bob, "again")
			}
			w.rooms.state(room, bob, "m.room.topic", "", kv{"topic": i})
		}
		w.get(bob, "")
		w = w.reopened()
		for name, since := range map[string]string{"none": "", "before all joins": old, "of a gap in each room": middle} {
			// The consumer claims its partitions meanwhile, which adds to what is counted: the least of many counts.
			cost := int64(1000)
			for range 100 {
				before := w.db.Count()
				answer := w.get(alice, since)
				if rooms := len(answer.Get("rooms.join").Map()); rooms < n {
					t.Fatalf("token %s: %d rooms, want %d", name, rooms, n)
				}
				if cost = min(cost, w.db.Count().Since(before).Statements); cost <= 10 {
					break
				}
			}
			if cost > 10 {
				t.Errorf("token %s: %d statements", name, cost)
			}
		}
	})
}

func TestInvitesToRoomsThatThisServerIsNotIn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		since := next(w.get(alice, ""))
		poll := w.poll(alice, since)
		name := json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"@x:remote.org","content":{"name":"far away"}}`)
		w.rooms.append(string(room1), api.TypeInvite, &api.OutputInvite{RoomID: room1, RoomVersion: "10", UserID: alice, Membership: "invite", StrippedState: []json.RawMessage{name}})
		answer := receive(t, poll)
		if in(answer, "invite", room1).Get("invite_state.events.0.content.name").Str != "far away" {
			t.Errorf("the invite is missing: %s", answer)
		}
		w.rooms.append(string(room1), api.TypeInvite, &api.OutputInvite{RoomID: room1, RoomVersion: "10", UserID: alice, Membership: "leave"})
		answer = w.get(alice, next(answer))
		if !in(answer, "leave", room1).Exists() {
			t.Errorf("the invite is not over: %s", answer)
		}
		if all := w.get(alice, ""); in(all, "invite", room1).Exists() {
			t.Errorf("the invite is still there: %s", all)
		}
	})
}
