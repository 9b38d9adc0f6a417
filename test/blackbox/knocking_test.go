package blackbox

import (
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

func TestKnocking(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "private_chat", "name": "Door", "initial_state": []object{
			{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		since, hers := bob.now(), alice.now()
		equal(t, "the room", bob.must("POST", at("knock", room), object{"reason": "let me in"}).Get("room_id").Str, room)
		for _, token := range []string{since, ""} {
			answer := bob.sync(token)
			state := roomIn(answer, "knock", room).Get("knock_state.events")
			equal(t, "the name", find(state, "m.room.name", "").Get("content.name").Str, "Door")
			equal(t, "the knock", find(state, "m.room.member", bob.userID).Get("content.membership").Str, "knock")
			if roomIn(answer, "invite", room).Exists() || roomIn(answer, "join", room).Exists() || roomIn(answer, "leave", room).Exists() {
				t.Error("a knock is in another section too")
			}
		}
		equal(t, "the reason", stateIn(roomIn(alice.sync(hers), "join", room), "m.room.member", bob.userID).Get("content.reason").Str, "let me in")
		bob.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "messages")+"?dir=b", nil)
		since = bob.now()
		bob.must("POST", at("rooms", room, "leave"), object{}) // takes it back
		if answer := bob.sync(since); !roomIn(answer, "leave", room).Exists() || roomIn(answer, "knock", room).Exists() {
			t.Errorf("after taking the knock back: %s", answer.Raw)
		}
		bob.must("POST", at("knock", room), object{})
		since = bob.now()
		alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID}) // refuses it
		if answer := bob.sync(since); !roomIn(answer, "leave", room).Exists() {
			t.Errorf("after the refusal: %s", answer.Raw)
		}
		bob.must("POST", at("knock", room), object{})
		since = bob.now()
		alice.invite(room, bob)
		if answer := bob.sync(since); !roomIn(answer, "invite", room).Exists() || roomIn(answer, "knock", room).Exists() {
			t.Errorf("a knock that was answered: %s", answer.Raw)
		}
		bob.join(room)
		bob.say(room, "hello")
		alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		bob.refused(403, "M_FORBIDDEN", "POST", at("knock", room), object{})
		other := alice.createRoom(object{"preset": "private_chat"})
		bob.refused(403, "M_FORBIDDEN", "POST", at("knock", other), object{})
		bob.refused(403, "M_FORBIDDEN", "POST", at("knock", "!nothing:test.example"),
			object{})
	})
}

// What the filter keeps away does not wake.
func TestASyncSleepsThroughWhatItsFilterLeavesOut(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		bob.join(other)
		last := bob.say(room, "x")
		quiet := filtered(object{"account_data": object{"types": []string{}}, "room": object{"not_rooms": []string{other},
			"timeline": object{"types": []string{"x.wanted"}}, "ephemeral": object{"types": []string{}}, "account_data": object{"types": []string{}}}})
		since := bob.now()
		answer := make(chan gjson.Result, 1)
		began := time.Now()
		wait := bob.poll(since, quiet...)
		go func() { answer <- wait() }()
		alice.say(other, "in another room")
		alice.say(room, "of another type")
		alice.must("PUT", at("rooms", room, "typing", alice.userID), object{"typing": true})
		alice.read(room, "m.read", last)
		bob.must("PUT", at("user", bob.userID, "account_data", "x.test"), object{"a": 1})
		bob.must("PUT", at("user", bob.userID, "rooms", room, "account_data", "x.test"), object{"a": 1})
		alice.send(room, "x.wanted", object{"body": "wanted"})
		got := <-answer
		events := roomIn(got, "join", room).Get("timeline.events").Array()
		if len(events) != 1 || events[0].Get("content.body").Str != "wanted" || roomIn(got, "join", other).Exists() || len(got.Get("account_data.events").Array()) > 0 {
			t.Errorf("woken after %v with %s", time.Since(began), got.Raw)
		}
	})
}

// Unsigned says what a state event replaced, in a sync as elsewhere.
func TestUnsignedOfState(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		first := alice.setState(room, "m.room.topic", "", object{"topic": "one"})
		since := alice.now()
		alice.setState(room, "m.room.topic", "", object{"topic": "two"})
		for _, token := range []string{since, ""} {
			e := stateIn(roomIn(alice.sync(token), "join", room), "m.room.topic", "")
			equal(t, "the topic", e.Get("content.topic").Str, "two")
			equal(t, "prev_content", e.Get("unsigned.prev_content.topic").Str, "one")
			equal(t, "replaces_state", e.Get("unsigned.replaces_state").Str, first)
		}
	})
}
