package blackbox

import (
	"slices"
	"strings"
	"testing"
)

// sayings are the messages of the history tests, in the order in which they are sent.
var sayings = []string{"early", "invited", "joined", "late"}

// What of a room's history somebody sees is decided by its visibility and by their membership, in the same way wherever they read.
func TestHistoryVisibility(t *testing.T) {
	// Who has left was invited after "early", joined after "invited" and left after "joined". Who came last joined after "late".
	cases := map[string]struct{ left, joined, stranger string }{
		"world_readable": {"early invited joined late", "early invited joined late", "early invited joined late"},
		"shared":         {"early invited joined", "early invited joined late", ""},
		"invited":        {"invited joined", "", ""},
		"joined":         {"joined", "", ""},
	}
	run(t, func(t *testing.T, d *deployment) {
		for visibility, want := range cases {
			t.Run(visibility, func(t *testing.T) {
				alice, left, last, stranger, guest := d.user(t, "alice"), d.user(t, "left"), d.user(t, "last"), d.user(t, "stranger"), d.user(t, "guest")
				room := alice.createRoom(object{"preset": "private_chat", "initial_state": []object{
					{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}}}})
				events := map[string]string{}
				say := func(text string) { events[text] = alice.say(room, text) }
				say("early")
				alice.invite(room, left)
				alice.invite(room, guest)
				say("invited")
				left.join(room)
				say("joined")
				left.must("POST", at("rooms", room, "leave"), object{})
				alice.setState(room, "m.room.topic", "", object{"topic": "late"})
				say("late")
				alice.invite(room, last)
				last.join(room)

				sees(t, alice, room, events, strings.Join(sayings, " "))
				sees(t, last, room, events, want.joined)
				sees(t, left, room, events, want.left)
				sees(t, stranger, room, events, want.stranger)

				// The state is that of now for members, and for those who left that of when they left, whatever else they see.
				topic := left.must("GET", at("rooms", room, "state"), nil)
				equal(t, "the topic to one who left", find(topic, "m.room.topic", "").Exists(), false)
				if visibility == "world_readable" {
					equal(t, "the topic to a stranger", stranger.must("GET", at("rooms", room, "state", "m.room.topic"), nil).Get("topic").Str, "late")
				} else {
					stranger.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "messages")+"?dir=b", nil)
					stranger.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "state"), nil)
					stranger.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "state", "m.room.topic"), nil)
					guest.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "messages")+"?dir=b", nil)
					guest.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "state"), nil)
				}
				stranger.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "joined_members"), nil)
				if visibility == "joined" || visibility == "shared" {
					sees(t, guest, room, events, "") // is invited only
				}

				// The same in a sync.
				first := roomIn(last.sync("", timelineOf(object{"limit": 100})...), "join", room)
				words(t, "a sync of one who joined last", bodies(first.Get("timeline.events")), want.joined)
				archived := roomIn(left.sync("", filtered(object{"room": object{"include_leave": true, "timeline": object{"limit": 100}}})...), "leave", room)
				got := bodies(archived.Get("timeline.events"))
				if visibility == "world_readable" {
					// a left room's timeline ends with the leave
					words(t, "a sync of one who left", got, "early invited joined")
				} else {
					words(t, "a sync of one who left", got, want.left)
				}
			})
		}
	})
}

// sees checks which of the sayings somebody can read, by each endpoint that shows events.
func sees(t *testing.T, c *client, room string, events map[string]string, want string) {
	t.Helper()
	name := strings.SplitN(c.userID, "-", 2)[0]
	var seen []string
	for from := ""; ; {
		a := c.call("GET", at("rooms", room, "messages")+"?dir=b&limit=3"+from, nil)
		if a.status != 200 {
			break
		}
		seen = append(seen, bodies(a.body.Get("chunk"))...)
		if !a.body.Get("end").Exists() {
			break
		}
		from = "&from=" + a.body.Get("end").Str
	}
	slices.Reverse(seen)
	words(t, name+" pages back to", seen, want)
	forward := c.call("GET", at("rooms", room, "messages")+"?dir=f&limit=100", nil)
	words(t, name+" pages forward to", bodies(forward.body.Get("chunk")), want)
	var byID, around []string
	for _, text := range sayings {
		one := c.call("GET", at("rooms", room, "event", events[text]), nil)
		switch {
		case one.status == 200 && one.body.Get("content.body").Str == text:
			byID = append(byID, text)
		case one.status != 404 || one.errcode() != "M_NOT_FOUND":
			t.Errorf("%s reads %q: %d %s", name, text, one.status, one.body.Raw)
		}
		context := c.call("GET", at("rooms", room, "context", events[text])+"?limit=100", nil)
		switch {
		case context.status == 200:
			around = append(around, text)
			all := bodies(context.body.Get("events_before"))
			slices.Reverse(all)
			all = append(append(all, text), bodies(context.body.Get("events_after"))...)
			words(t, name+" sees around "+text, all, want)
		case context.status != 404 && context.status != 403:
			t.Errorf("%s reads around %q: %d %s", name, text, context.status, context.body.Raw)
		}
	}
	words(t, name+" reads by id", byID, want)
	words(t, name+" reads around", around, want)
}

// A change of visibility holds for what comes after it.
func TestAChangeOfHistoryVisibility(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "stranger")
		room := alice.createRoom(object{"preset": "public_chat"})
		alice.say(room, "shared")
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "joined"})
		secret := alice.say(room, "secret")
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "world_readable"})
		open := alice.say(room, "open")
		bob.join(room)
		got := bodies(bob.must("GET", at("rooms", room, "messages")+"?dir=f&limit=100", nil).Get("chunk"))
		words(t, "what one sees who joined after", got, "shared open")
		bob.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "event", secret), nil)
		stranger.must("GET", at("rooms", room, "event", open), nil)
		stranger.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "event", secret), nil)
		// Each end of the change can be seen by whom either setting lets see it.
		var settings []string
		for _, e := range bob.must("GET", at("rooms", room, "messages")+"?dir=f&limit=100", nil).Get("chunk").Array() {
			if e.Get("type").Str == "m.room.history_visibility" {
				settings = append(settings, e.Get("content.history_visibility").Str)
			}
		}
		words(t, "the changes themselves", settings, "shared joined world_readable")
		// An unknown setting counts as shared.
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "odd"})
		late := alice.say(room, "late")
		stranger.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "event", late), nil)
		equal(t, "to a member", bob.must("GET", at("rooms", room, "event", late), nil).Get("content.body").Str, "late")
	})
}

// An event is read through its own room only.
func TestAnEventOfAnotherRoom(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.createRoom(object{"preset": "private_chat"}), bob.publicRoom()
		secret := alice.say(room, "secret")
		bob.refused(404, "M_NOT_FOUND", "GET", at("rooms", other, "event", secret), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", at("rooms", other, "context", secret), nil)
		bob.refused(404, "M_NOT_FOUND", "PUT", at("rooms", other, "redact", secret, "1"), object{})
		if a := bob.call("POST", at("rooms", other, "receipt", "m.fully_read", secret), object{}); a.status == 200 {
			t.Error("a marker at an event of another room")
		}
		alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", "!nothing:test.example", "event", secret), nil)
	})
}
