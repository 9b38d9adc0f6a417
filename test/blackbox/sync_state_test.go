package blackbox

import (
	"slices"
	"testing"

	"github.com/tidwall/gjson"
)

// applied is the state that a client computes from a room of a sync that it knew nothing of: state, and then the
// timeline; or state_after alone.
func applied(room gjson.Result) map[stateKey]string {
	state := make(map[stateKey]string)
	apply(state, room)
	return state
}

// stateKey is under what a state event stands.
type stateKey struct{ eventType, key string }

// apply does that to a state, whose values are event ids.
func apply(state map[stateKey]string, room gjson.Result) {
	lists := []string{"state.events", "timeline.events"}
	if room.Get("state_after").Exists() {
		lists = []string{"state_after.events"}
	}
	for _, list := range lists {
		for _, e := range room.Get(list).Array() {
			if e.Get("state_key").Exists() {
				state[stateKey{e.Get("type").Str, e.Get("state_key").Str}] = e.Get("event_id").Str
			}
		}
	}
}

// serverState is what GET /state says, in the same form.
func (c *client) serverState(room string) map[stateKey]string {
	c.t.Helper()
	state := make(map[stateKey]string)
	for _, e := range c.must("GET", at("rooms", room, "state"), nil).Array() {
		state[stateKey{e.Get("type").Str, e.Get("state_key").Str}] = e.Get("event_id").Str
	}
	return state
}

// A state change that the timeline does not show, since the user may not see it or the filter leaves it out, is not
// lost behind an older event of the same key that the timeline has; and what is cut for that is found by paging back.
func TestStateChangesThatATimelineDoesNotShow(t *testing.T) {
	hidden := func(visibility string) object {
		return object{"preset": "public_chat", "name": "one", "room_version": "11", "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}}}}
	}
	notBy := func(sender string) []string {
		return filtered(object{"room": object{"timeline": object{"not_senders": []string{sender}, "limit": 50}}})
	}
	lives := map[string]func(alice, bob, carol *client) (room string, since string, filter []string){
		"power levels before the join": func(alice, bob, carol *client) (string, string, []string) {
			room := alice.createRoom(hidden("joined"))
			carol.join(room)
			alice.setState(room, "m.room.power_levels", "",
				object{"users": object{alice.userID: 100, carol.userID: 50}})
			bob.join(room)
			return room, "", timelineOf(object{"limit": 50})
		},
		"a name while they were away": func(alice, bob, _ *client) (string, string, []string) {
			room := alice.createRoom(hidden("joined"))
			bob.join(room)
			bob.now()
			alice.setState(room, "m.room.name", "", object{"name": "two"})
			since := bob.now()
			bob.must("POST", at("rooms", room, "leave"), object{})
			alice.setState(room, "m.room.name", "", object{"name": "three"})
			bob.join(room)
			return room, since, nil
		},
		"a leave that is hidden": func(alice, bob, carol *client) (string, string, []string) {
			room := alice.createRoom(object{"preset": "public_chat"})
			carol.join(room)
			alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "invited"})
			carol.must("POST", at("rooms", room, "leave"), object{})
			bob.join(room)
			return room, "", nil
		},
		"a sender that is filtered": func(alice, bob, carol *client) (string, string, []string) {
			room := alice.createRoom(object{"preset": "public_chat",
				"power_level_content_override": object{"state_default": 0, "events": object{}}})
			bob.join(room)
			carol.join(room)
			alice.setState(room, "m.room.topic", "", object{"topic": "A"})
			carol.setState(room, "m.room.topic", "", object{"topic": "B"})
			return room, "", notBy(carol.userID)
		},
	}
	run(t, func(t *testing.T, d *deployment) {
		for name, life := range lives {
			t.Run(name, func(t *testing.T) {
				alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
				room, since, filter := life(alice, bob, carol)
				messages := at("rooms", room, "messages") + "?dir=b&limit=100"
				for _, after := range []string{"false", "true"} {
					answer := roomIn(bob.sync(since, append(filter, "use_state_after", after)...), "join", room)
					wrongState(t, "use_state_after "+after, applied(answer), bob.serverState(room))
					events := ids(answer.Get("timeline.events"))
					if answer.Get("timeline.limited").Bool() {
						older := bob.must("GET", messages+"&from="+answer.Get("timeline.prev_batch").Str, nil)
						events = append(events, ids(older.Get("chunk"))...)
					}
					for _, e := range bob.must("GET", messages, nil).Get("chunk").Array() {
						left := name == "a sender that is filtered" && e.Get("sender").Str == carol.userID
						if !left && !slices.Contains(events, e.Get("event_id").Str) {
							t.Errorf("use_state_after %s: neither the timeline nor what is before it has %s", after,
								e.Raw)
						}
					}
				}
			})
		}
	})
}

// wrongState reports the keys of which a client has another event than the server.
func wrongState(t *testing.T, what string, got, want map[stateKey]string) {
	t.Helper()
	for key, event := range want {
		if got[key] != event {
			t.Errorf("%s: the client has %q for %v, the server %q", what, got[key], key, event)
		}
	}
	for key, event := range got {
		if want[key] == "" {
			t.Errorf("%s: the client has %q for %v, the server nothing", what, event, key)
		}
	}
}

// A room that the user left, or that they were never in, says what their membership is now, in the place from which
// their client takes the state; whatever the filter of the timeline is.
func TestALeaveOfSomebodyWhoWasNotInTheRoom(t *testing.T) {
	never := object{"room": object{"timeline": object{"not_types": []string{"m.room.member"}}}}
	none := object{"room": object{"timeline": object{"limit": 0}}}
	asks := map[string][]string{
		"by default": nil, "state_after": {"use_state_after", "true"}, "no timeline": filtered(none),
		"no members":               filtered(never),
		"no timeline, state_after": append(filtered(none), "use_state_after", "true"),
	}
	lives := map[string]struct {
		want       string
		begin, end func(alice, bob *client, room string)
	}{
		"reject": {"leave", func(alice, bob *client, room string) { alice.invite(room, bob) },
			func(_, bob *client, room string) { bob.must("POST", at("rooms", room, "leave"), object{}) }},
		"ban": {"ban", func(_, _ *client, _ string) {}, func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		}},
		"unban": {"leave", func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		}, func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "unban"), object{"user_id": bob.userID})
		}},
		"kick and ban": {"ban", func(_, bob *client, room string) { bob.join(room) },
			func(alice, bob *client, room string) {
				alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID})
				alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
			}},
		"a leave, and later a ban": {"ban", func(_, bob *client, room string) {
			bob.join(room)
			bob.must("POST", at("rooms", room, "leave"), object{})
		}, func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		}},
	}
	run(t, func(t *testing.T, d *deployment) {
		for name, life := range lives {
			t.Run(name, func(t *testing.T) {
				alice, bob := d.user(t, "alice"), d.user(t, "bob")
				room := alice.publicRoom()
				life.begin(alice, bob, room)
				since := bob.now()
				life.end(alice, bob, room)
				want := alice.serverState(room)[stateKey{"m.room.member", bob.userID}]
				for how, ask := range asks {
					section := roomIn(bob.sync(since, ask...), "leave", room)
					if got := applied(section)[stateKey{"m.room.member", bob.userID}]; got != want {
						t.Errorf("%s: the client has %q, want %q: %s", how, got, want, section.Raw)
					}
				}
			})
		}
	})
}

// The timeline of a room that is joined again repeats what the client saw, so it says that it is limited; that of a
// room that is new to the client does not.
func TestARejoinedRoomIsLimited(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		wide := timelineOf(object{"limit": 50})
		since := bob.now()
		bob.join(room)
		limited := func(since string) bool {
			return roomIn(bob.sync(since, wide...), "join", room).Get("timeline.limited").Bool()
		}
		equal(t, "limited at the first join", limited(since), false)
		joined := bob.now()
		bob.must("POST", at("rooms", room, "leave"), object{})
		since = bob.now()
		bob.join(room)
		equal(t, "limited after a leave that was seen", limited(since), true)
		equal(t, "limited after a leave that was not seen", limited(joined), true)
	})
}
