package blackbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/deploy"
)

// What a sync leaves out is found through prev_batch, all of it and nothing twice.
func TestAGapIsFilled(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		alice.say(room, "before")
		since := bob.now()
		var want []string
		for n := range 35 {
			want = append(want, alice.say(room, fmt.Sprint(n)))
			if n%7 == 0 {
				want = append(want, alice.setState(room, "m.room.topic", "", object{"topic": fmt.Sprint(n)}))
			}
		}
		for _, limit := range []int{1, 10, 39} {
			timeline := roomIn(bob.sync(since, timelineOf(object{"limit": limit})...), "join", room).Get("timeline")
			equal(t, "limited", timeline.Get("limited").Bool(), true)
			got := ids(timeline.Get("events"))
			same(t, "the newest events", got, want[len(want)-limit:])
			slices.Reverse(got)
			from := timeline.Get("prev_batch").Str
			for len(got) < len(want) {
				page := bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=7&from="+from+"&to="+since, nil)
				if len(page.Get("chunk").Array()) == 0 {
					break
				}
				got = append(got, ids(page.Get("chunk"))...)
				from = page.Get("end").Str
				if from == "" {
					break
				}
			}
			slices.Reverse(got)
			same(t, "the gap", got, want)
		}
		whole := roomIn(bob.sync(since, timelineOf(object{"limit": len(want)})...), "join", room).Get("timeline")
		equal(t, "limited at the exact number", whole.Get("limited").Bool(), false)
		same(t, "all events", ids(whole.Get("events")), want)
		// Limits hold after filtering: the newest messages, however many other events there are.
		topics := roomIn(bob.sync(since, timelineOf(object{"limit": 2, "types": []string{"m.room.topic"}})...), "join", room).Get("timeline")
		same(t, "the newest topics", ids(topics.Get("events")), []string{want[25], want[33]})
		equal(t, "limited", topics.Get("limited").Bool(), true)
	})
}

// The initial sync's prev_batch leads to the beginning of the room.
func TestTheInitialSyncContinuesBackwards(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for n := range 25 {
			alice.say(room, fmt.Sprint(n))
		}
		all := ids(alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1000", nil).Get("chunk"))
		for _, limit := range []int{1, 10, 1000} {
			timeline := roomIn(alice.sync("", timelineOf(object{"limit": limit})...), "join", room).Get("timeline")
			got := ids(timeline.Get("events"))
			slices.Reverse(got)
			for from := timeline.Get("prev_batch").Str; from != ""; {
				page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=4&from="+from, nil)
				got = append(got, ids(page.Get("chunk"))...)
				from = page.Get("end").Str
			}
			same(t, fmt.Sprint("from the newest to the first, limit ", limit), got, all)
		}
	})
}

// A client that applies what syncs say of the state, gaps or not, has the room's state.
func TestStateAcrossGaps(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.publicRoom()
		bob.join(room)
		first := bob.sync("")
		change := func(round int) {
			alice.setState(room, "m.room.topic", "", object{"topic": fmt.Sprint("lost ", round)})
			alice.setState(room, "x.counter", "a", object{"n": round})
			if round%2 == 0 {
				carol.join(room)
			} else {
				carol.must("POST", at("rooms", room, "leave"), object{})
			}
			for n := range 12 {
				alice.say(room, fmt.Sprint(round, "-", n))
			}
			alice.setState(room, "m.room.topic", "", object{"topic": fmt.Sprint("shown ", round)})
			alice.say(room, "last")
		}
		plain, after := first, first
		states := map[bool]map[string]string{}
		joined := roomIn(first, "join", room)
		states[false] = stateOf(joined.Get("state.events"), joined.Get("timeline.events"))
		states[true] = maps.Clone(states[false])
		truth := func() map[string]string { return stateOf(alice.must("GET", at("rooms", room, "state"), nil)) }
		check := func(what string, got map[string]string) {
			t.Helper()
			if want := truth(); !maps.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", what, got, want)
			}
		}
		check("the initial sync", states[false])
		for round := range 4 {
			change(round)
			plain = bob.sync(plain.Get("next_batch").Str)
			joined := roomIn(plain, "join", room)
			equal(t, "limited", joined.Get("timeline.limited").Bool(), true)
			maps.Copy(states[false], stateOf(joined.Get("state.events"), joined.Get("timeline.events")))
			check(fmt.Sprint("state and timeline, round ", round), states[false])
			equal(t, "the topic at the start of the timeline", find(joined.Get("state.events"), "m.room.topic", "").Get("content.topic").Str, fmt.Sprint("lost ", round))

			after = bob.sync(after.Get("next_batch").Str, "use_state_after", "true")
			joined = roomIn(after, "join", room)
			maps.Copy(states[true], stateOf(joined.Get("state_after.events")))
			check(fmt.Sprint("state_after, round ", round), states[true])
			equal(t, "the topic at the end of the timeline", find(joined.Get("state_after.events"), "m.room.topic", "").Get("content.topic").Str, fmt.Sprint("shown ", round))
			if joined.Get("state").Exists() {
				t.Error("state is there although state_after was asked for")
			}
		}
		old := roomIn(bob.sync(first.Get("next_batch").Str), "join", room)
		folded := stateOf(roomIn(first, "join", room).Get("state.events"), roomIn(first, "join", room).Get("timeline.events"))
		maps.Copy(folded, stateOf(old.Get("state.events"), old.Get("timeline.events")))
		check("one large gap", folded)
		full := roomIn(bob.sync(first.Get("next_batch").Str, "full_state", "true"), "join", room)
		check("full_state", stateOf(full.Get("state.events"), full.Get("timeline.events")))
		full = roomIn(bob.sync(first.Get("next_batch").Str, "full_state", "true", "use_state_after", "true"), "join", room)
		check("full_state with state_after", stateOf(full.Get("state_after.events")))
		initial := roomIn(bob.sync("", "use_state_after", "true"), "join", room)
		check("the initial state_after", stateOf(initial.Get("state_after.events")))
		// Without a gap, state_after has what the timeline has.
		alice.setState(room, "m.room.topic", "", object{"topic": "end"})
		last := roomIn(bob.sync(after.Get("next_batch").Str, "use_state_after", "true"), "join", room)
		equal(t, "state_after without a gap", find(last.Get("state_after.events"), "m.room.topic", "").Get("content.topic").Str, "end")
		equal(t, "the timeline", find(last.Get("timeline.events"), "m.room.topic", "").Get("content.topic").Str, "end")
	})
}

// Who left and came back between two syncs has missed something: full state, and limited.
func TestARejoinWithinAGap(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "joined"})
		bob.join(room)
		since := bob.now()
		bob.must("POST", at("rooms", room, "leave"), object{})
		alice.say(room, "secret")
		alice.setState(room, "m.room.topic", "", object{"topic": "new"})
		bob.join(room)
		alice.say(room, "welcome")
		answer := bob.sync(since)
		joined := roomIn(answer, "join", room)
		if roomIn(answer, "leave", room).Exists() {
			t.Error("the room is left and joined at once")
		}
		equal(t, "limited", joined.Get("timeline.limited").Bool(), true)
		equal(t, "the topic", stateIn(joined, "m.room.topic", "").Get("content.topic").Str, "new")
		if !stateIn(joined, "m.room.create", "").Exists() {
			t.Errorf("the state is not full: %s", joined.Raw)
		}
		if got := bodies(joined.Get("timeline.events")); slices.Contains(got, "secret") || !slices.Contains(got, "welcome") {
			t.Errorf("the timeline has %v", got)
		}
		var pages gjson.Result
		for from := joined.Get("timeline.prev_batch").Str; from != ""; from = pages.Get("end").Str {
			pages = bob.must("GET", at("rooms", room, "messages")+"?dir=b&from="+from, nil)
			if slices.Contains(bodies(pages.Get("chunk")), "secret") {
				t.Error("/messages shows what was said while away")
			}
		}
	})
}

// What a filter keeps out of the timeline is state all the same.
func TestStateThatTheTimelineLeavesOut(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		since := alice.now()
		alice.say(room, "one")
		bob.join(room)
		alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		alice.say(room, "two")
		messages := timelineOf(object{"types": []string{"m.room.message"}})
		for _, token := range []string{since, ""} {
			joined := roomIn(alice.sync(token, messages...), "join", room)
			words(t, "the timeline", bodies(joined.Get("timeline.events")), "one two")
			equal(t, "events of the timeline", len(joined.Get("timeline.events").Array()), 2)
			equal(t, "the topic in the state", find(joined.Get("state.events"), "m.room.topic", "").Get("content.topic").Str, "tea")
			equal(t, "the join in the state", find(joined.Get("state.events"), "m.room.member", bob.userID).Get("content.membership").Str, "join")
		}
		without := roomIn(alice.sync(since, filtered(object{"room": object{"timeline": object{"limit": 1}, "state": object{"types": []string{"m.room.member"}}}})...), "join", room)
		if find(without.Get("state.events"), "m.room.topic", "").Exists() || !find(without.Get("state.events"), "m.room.member", bob.userID).Exists() {
			t.Errorf("the filter of the state: %s", without.Raw)
		}
		alice.setState(room, "m.room.topic", "", object{"topic": "coffee"})
		joined := roomIn(alice.sync(since, append(messages, "use_state_after", "true")...), "join", room)
		equal(t, "the topic in state_after", find(joined.Get("state_after.events"), "m.room.topic", "").Get("content.topic").Str, "coffee")
	})
}

// An answer has no more than some 16 MiB of timelines, however large the events are that came: the rest is found by
// paging back.
func TestAnAnswerOfLargeEventsIsCut(t *testing.T) {
	deploy.Chosen(t, monolithSQLite)
	d := own(t, monolithSQLite, nil)
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	rooms := []string{alice.publicRoom(), alice.publicRoom()}
	for _, room := range rooms {
		bob.join(room)
	}
	since := bob.now()
	want := make(map[string][]string)
	large := strings.Repeat("x", 60_000)
	for n := range 320 {
		room := rooms[n%2]
		want[room] = append(want[room], alice.say(room, large))
	}
	for _, from := range []string{since, ""} {
		answer := bob.sync(from, timelineOf(object{"limit": 1000})...)
		if size := len(answer.Raw); size > 17<<20 || size < 12<<20 {
			t.Errorf("since %q: an answer of %d bytes", from, size)
		}
		for _, room := range rooms {
			timeline := roomIn(answer, "join", room).Get("timeline")
			got := ids(timeline.Get("events"))
			if !timeline.Get("limited").Bool() || len(got) < 50 {
				t.Errorf("since %q: %d events, limited %v", from, len(got), timeline.Get("limited").Bool())
			}
			slices.Reverse(got)
			for next := timeline.Get("prev_batch").Str; next != "" && len(got) < len(want[room]); {
				page := bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=20&from="+next, nil)
				got = append(got, ids(page.Get("chunk"))...)
				next = page.Get("end").Str
			}
			slices.Reverse(got)
			same(t, "the timeline and what is before it", got[max(0, len(got)-len(want[room])):], want[room])
		}
	}
}
