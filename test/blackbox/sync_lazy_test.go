package blackbox

import (
	"fmt"
	"testing"

	"github.com/tidwall/gjson"
)

// lazy is the filter of a client that loads members lazily.
func lazy(redundant bool, limit int) []string {
	return filtered(object{"room": object{"state": object{"lazy_load_members": true, "include_redundant_members": redundant}, "timeline": object{"limit": limit}}})
}

func TestLazyMembers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol, dave := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol"), d.user(t, "dave")
		if d.kind == polylith { // what a device was sent is known to the replica that sent it; others send it again
			alice.base = "http://" + d.config.Listen.SyncAPI.Public
		}
		room := alice.createRoom(object{"preset": "public_chat", "name": "Named"}) // with a name there are no heroes to show
		for _, c := range []*client{bob, carol, dave} {
			c.join(room)
		}
		bob.say(room, "one")
		sentIn := func(answer gjson.Result) []string {
			return memberKeys(roomIn(answer, "join", room).Get("state.events"))
		}
		eager := alice.sync("", timelineOf(object{"limit": 1})...)
		same(t, "without lazy loading", sentIn(eager), users(alice, bob, carol, dave))

		first := alice.sync("", lazy(false, 1)...)
		// the syncing user's own is there with the full state
		got := sentIn(first)
		if want := users(alice, bob); !containsAll(got, want) || contains(got, dave.userID) && contains(got, carol.userID) && !heroes(first, room) {
			t.Errorf("the senders and oneself: %v, want %v", got, want)
		}
		if !find(roomIn(first, "join", room).Get("state.events"), "m.room.create", "").Exists() {
			t.Error("lazy loading loses other state")
		}
		bob.say(room, "two")
		second := alice.sync(first.Get("next_batch").Str, lazy(false, 10)...)
		same(t, "a sender whose event was sent", sentIn(second), nil)
		same(t, "redundant members", sentIn(alice.sync(first.Get("next_batch").Str, lazy(true, 10)...)), users(bob))

		fresh := d.user(t, "erin")
		fresh.join(room)
		third := alice.sync(second.Get("next_batch").Str, lazy(false, 10)...)
		if !stateIn(roomIn(third, "join", room), "m.room.member", fresh.userID).Exists() {
			t.Error("a join is missing")
		}
		fresh.say(room, "hello")
		fourth := alice.sync(third.Get("next_batch").Str, lazy(false, 10)...)
		same(t, "a sender whose join was in the timeline", sentIn(fourth), nil)
		// Another device of the same user has got nothing yet.
		phone := alice.login()
		if got := sentIn(phone.sync("", lazy(false, 1)...)); !containsAll(got, users(alice, fresh)) {
			t.Errorf("another device: %v", got)
		}
		// State without lazy members is as ever.
		alice.setState(room, "m.room.topic", "", object{"topic": "x"})
		if !stateIn(roomIn(alice.sync(fourth.Get("next_batch").Str, lazy(false, 10)...), "join", room), "m.room.topic", "").Exists() {
			t.Error("the topic is missing")
		}
		full := alice.sync(fourth.Get("next_batch").Str, append(lazy(false, 1), "full_state", "true")...)
		if !containsAll(sentIn(full), users(alice)) {
			t.Errorf("full_state without oneself: %v", sentIn(full))
		}
	})
}

func heroes(sync gjson.Result, room string) bool {
	return len(roomIn(sync, "join", room).Get(`summary.m\.heroes`).Array()) > 0
}

func contains(list []string, one string) bool { return containsAll(list, []string{one}) }

func containsAll(list, wanted []string) bool {
	has := make(map[string]bool)
	for _, s := range list {
		has[s] = true
	}
	for _, s := range wanted {
		if !has[s] {
			return false
		}
	}
	return true
}

// After a gap, members are sent whatever was sent before, and changes in the gap are not lost.
func TestLazyMembersAfterAGap(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.createRoom(object{"preset": "public_chat", "name": "Named"})
		bob.join(room)
		carol.join(room)
		carol.say(room, "x")
		bob.say(room, "x")
		first := alice.sync("", lazy(false, 10)...)
		carol.must("PUT", at("profile", carol.userID, "displayname"), object{"displayname": "Carol the Renamed"})
		fresh := d.user(t, "erin")
		fresh.join(room)
		for n := range 12 {
			bob.say(room, fmt.Sprint(n))
		}
		state := roomIn(alice.sync(first.Get("next_batch").Str, lazy(false, 5)...), "join", room).Get("state.events")
		equal(t, "a name changed in the gap", find(state, "m.room.member", carol.userID).Get("content.displayname").Str, "Carol the Renamed")
		equal(t, "a join in the gap", find(state, "m.room.member", fresh.userID).Get("content.membership").Str, "join")
		equal(t, "a sender after the gap", find(state, "m.room.member", bob.userID).Get("content.membership").Str, "join")
	})
}

func TestLazyMembersOfAJoin(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.createRoom(object{"preset": "public_chat"}) // without a name, heroes are shown
		bob.join(room)
		for n := range 5 {
			alice.say(room, fmt.Sprint(n))
		}
		since := carol.now()
		carol.join(room)
		for _, token := range []string{since, ""} {
			joined := roomIn(carol.sync(token, lazy(false, 2)...), "join", room)
			events := stateOf(joined.Get("state.events"), joined.Get("timeline.events"))
			for _, c := range []*client{alice, bob, carol} { // a sender, a hero, oneself
				if events["m.room.member|"+c.userID] == "" {
					t.Errorf("since %q: %s is missing: %s", token, c.userID, joined.Raw)
				}
			}
			equal(t, "heroes", len(joined.Get(`summary.m\.heroes`).Array()), 2)
		}
	})
}

// /messages and /context know lazy loading too.
func TestLazyMembersOfPages(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.publicRoom()
		bob.join(room)
		carol.join(room)
		event := bob.say(room, "one")
		bob.say(room, "two")
		const filter = `filter={"lazy_load_members":true}`
		page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=2&"+filter, nil)
		same(t, "members of a page", memberKeys(page.Get("state")), users(bob))
		around := alice.must("GET", at("rooms", room, "context", event)+"?limit=2&"+filter, nil)
		got := memberKeys(around.Get("state"))
		if !contains(got, bob.userID) || contains(got, alice.userID) {
			t.Errorf("members of a context: %v", got)
		}
		if !find(around.Get("state"), "m.room.create", "").Exists() {
			t.Error("the context lacks the room's state")
		}
	})
}

// A client that loads members lazily keeps the member events that it has, so it gets those that changed since; also
// where it joins a room again of which it was not told in which state it left it.
func TestLazyMembersOfARejoin(t *testing.T) {
	post := func(c *client, room, what string) { c.must("POST", at("rooms", room, what), object{}) }
	// next syncs bob's client, which may not be told all in between.
	lives := map[string]func(alice, bob *client, room string, next func()){
		"a leave that it does not see": func(_, bob *client, room string, _ func()) {
			post(bob, room, "leave")
		},
		"a leave that it sees": func(_, bob *client, room string, next func()) {
			post(bob, room, "leave")
			next()
		},
		"an invite in place of the leave": func(alice, bob *client, room string, next func()) {
			post(bob, room, "leave")
			alice.invite(room, bob)
			next()
		},
		"an invite after the leave": func(alice, bob *client, room string, next func()) {
			post(bob, room, "leave")
			next()
			alice.invite(room, bob)
			next()
		},
		"an invite that is rejected": func(alice, bob *client, room string, next func()) {
			post(bob, room, "leave")
			alice.invite(room, bob)
			next()
			post(bob, room, "leave")
			next()
		},
		"a knock in place of the leave": func(alice, bob *client, room string, next func()) {
			alice.setState(room, "m.room.join_rules", "", object{"join_rule": "knock"})
			post(bob, room, "leave")
			bob.must("POST", at("knock", room), object{})
			next()
			alice.setState(room, "m.room.join_rules", "", object{"join_rule": "public"})
		},
		"a ban in place of the leave": func(alice, bob *client, room string, next func()) {
			for _, what := range []string{"ban", "unban"} {
				alice.must("POST", at("rooms", room, what), object{"user_id": bob.userID})
				next()
			}
		},
		"an invite by somebody who is ignored": func(alice, bob *client, room string, next func()) {
			bob.must("PUT", at("user", bob.userID, "account_data", "m.ignored_user_list"),
				object{"ignored_users": object{alice.userID: object{}}})
			post(bob, room, "leave")
			alice.invite(room, bob)
			next()
		},
	}
	run(t, func(t *testing.T, d *deployment) {
		for name, live := range lives {
			for _, after := range []string{"false", "true"} {
				t.Run(name+", use_state_after "+after, func(t *testing.T) {
					alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
					room := alice.createRoom(object{"preset": "public_chat", "name": "Named", "room_version": "11"})
					bob.join(room)
					carol.join(room)
					since, state := "", make(map[stateKey]string)
					next := func() {
						answer := bob.sync(since, append(lazy(false, 2), "use_state_after", after)...)
						since = answer.Get("next_batch").Str
						apply(state, roomIn(answer, "join", room))
						apply(state, roomIn(answer, "leave", room))
					}
					next()
					key := stateKey{"m.room.member", carol.userID}
					if state[key] == "" {
						t.Fatal("the client does not know who sent the last event")
					}
					carol.setState(room, "m.room.member", carol.userID,
						object{"membership": "join", "displayname": "Carol"})
					live(alice, bob, room, next)
					bob.join(room)
					for range 3 {
						bob.say(room, "x")
					}
					next()
					equal(t, "the member event", state[key], bob.serverState(room)[key])
				})
			}
		}
	})
}
