package blackbox

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

const delayedPath = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"

func delaying(path string, delay time.Duration) string {
	return fmt.Sprintf("%s?org.matrix.msc4140.delay=%d", path, delay.Milliseconds())
}

// comes waits until a text is said in a room, once.
func (c *client) comes(room, text string) {
	c.t.Helper()
	for since, deadline := c.now(), time.Now().Add(30*time.Second); ; {
		said := bodies(c.must("GET", at("rooms", room, "messages")+"?dir=b&limit=50", nil).Get("chunk"))
		if n := slices.Index(said, text); n >= 0 {
			if slices.Contains(said[n+1:], text) {
				c.t.Errorf("%q is there twice", text)
			}
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%q does not come: %v", text, said)
		}
		since = c.sync(since, "timeout", "2000").Get("next_batch").Str
	}
}

func TestDelayedEvents(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, nobody := d.user(t, "alice"), d.user(t, "bob"), d.anybody(t)
		room := alice.publicRoom()
		bob.join(room)
		send := func(c *client, text string, delay time.Duration) string {
			t.Helper()
			time.Sleep(2 * time.Millisecond) // they are listed in the order of their milliseconds
			return c.must("PUT", delaying(at("rooms", room, "send", "m.room.message", c.txn()), delay), object{"msgtype": "m.text", "body": text}).Get("delay_id").Str
		}
		list := func(c *client) []string {
			t.Helper()
			var all []string
			for _, e := range c.must("GET", delayedPath, nil).Get("delayed_events").Array() {
				all = append(all, e.Get("delay_id").Str)
			}
			return all
		}
		act := func(c *client, delayID, action string) {
			t.Helper()
			c.must("POST", delayedPath+"/"+delayID, object{"action": action})
		}

		// What is due is sent.
		send(alice, "soon", 300*time.Millisecond)
		bob.comes(room, "soon")
		// What is not due waits, and its user can see it and cancel it, send it, or put it off.
		later, now, cancelled := send(alice, "later", time.Hour), send(alice, "now", time.Hour), send(alice, "cancelled", time.Hour)
		same(t, "what waits", list(alice), []string{later, now, cancelled})
		same(t, "what waits for others", list(bob), nil)
		first := alice.must("GET", delayedPath, nil).Get("delayed_events.0")
		equal(t, "room", first.Get("room_id").Str, room)
		equal(t, "type", first.Get("type").Str, "m.room.message")
		equal(t, "delay", first.Get("delay").Int(), time.Hour.Milliseconds())
		equal(t, "content", first.Get("content.body").Str, "later")
		bob.refused(404, "M_NOT_FOUND", "POST", delayedPath+"/"+later, object{"action": "cancel"})
		act(alice, now, "send")
		bob.comes(room, "now")
		nobody.must("POST", delayedPath+"/"+cancelled+"/cancel", object{}) // who has been told its id may do so
		alice.refused(404, "M_NOT_FOUND", "POST", delayedPath+"/"+cancelled, object{"action": "cancel"})
		alice.refused(404, "M_NOT_FOUND", "POST", delayedPath+"/"+now, object{"action": "restart"})
		same(t, "what waits still", list(alice), []string{later})
		short := send(alice, "put off", 1500*time.Millisecond)
		for range 4 {
			time.Sleep(500 * time.Millisecond)
			act(alice, short, "restart")
		}
		if slices.Contains(bodies(bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=50", nil).Get("chunk")), "put off") {
			t.Error("an event was sent although it was put off")
		}
		bob.comes(room, "put off")

		// A repeated request is the same one.
		path := delaying(at("rooms", room, "send", "m.room.message", alice.txn()), time.Hour)
		one := alice.must("PUT", path, object{"msgtype": "m.text", "body": "once"}).Get("delay_id").Str
		equal(t, "delay_id of a repeated request", alice.must("PUT", path, object{"msgtype": "m.text", "body": "once"}).Get("delay_id").Str, one)
		equal(t, "number of events", len(list(alice)), 2)

		// State goes the same way, unless somebody else has set it meanwhile.
		state := func(c *client, key string, value int, delay time.Duration) {
			t.Helper()
			c.must("PUT", delaying(at("rooms", room, "state", "x.state", key), delay), object{"n": value})
		}
		alice.setState(room, "m.room.power_levels", "", withUser(alice.must("GET", at("rooms", room, "state", "m.room.power_levels"), nil), bob.userID))
		state(alice, "own", 2, 400*time.Millisecond)
		alice.setState(room, "x.state", "own", object{"n": 1})
		state(alice, "other", 2, 400*time.Millisecond)
		bob.setState(room, "x.state", "other", object{"n": 1})
		for deadline := time.Now().Add(30 * time.Second); alice.state(room, "x.state", "own").Get("n").Int() != 2 || len(list(alice)) > 2; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("delayed state does not come")
			}
		}
		equal(t, "state that somebody else has set", alice.state(room, "x.state", "other").Get("n").Int(), 1)

		// Limits and errors.
		put := at("rooms", room, "send", "m.room.message", alice.txn())
		tooLong := alice.refused(400, "M_UNKNOWN", "PUT", delaying(put, 1000*time.Hour), object{})
		equal(t, "the proposal's errcode", tooLong.body.Get(`org\.matrix\.msc4140\.errcode`).Str, "M_MAX_DELAY_EXCEEDED")
		alice.refused(400, "M_INVALID_PARAM", "PUT", put+"?org.matrix.msc4140.delay=-1", object{})
		alice.refused(400, "M_INVALID_PARAM", "PUT", put+"?org.matrix.msc4140.delay=x", object{})
		alice.refused(400, "M_INVALID_PARAM", "POST", delayedPath+"/"+later, object{"action": "x"})
		alice.refused(400, "M_MISSING_PARAM", "POST", delayedPath+"/"+later, object{})
		nobody.refused(401, "M_MISSING_TOKEN", "GET", delayedPath, nil)
		other := bob.createRoom(object{})
		alice.refused(403, "M_FORBIDDEN", "PUT", delaying(at("rooms", other, "send", "m.room.message", alice.txn()), time.Hour), object{})
		var last answer
		for range 120 {
			if last = bob.call("PUT", delaying(at("rooms", room, "send", "m.room.message", bob.txn()), time.Hour), object{}); last.status != 200 {
				break
			}
		}
		equal(t, "the proposal's errcode", last.body.Get(`org\.matrix\.msc4140\.errcode`).Str, "M_MAX_DELAYED_EVENTS_EXCEEDED")
		equal(t, "number of events", len(list(bob)), 100)
		if !alice.must("GET", "/_matrix/client/versions", nil).Get(`unstable_features.org\.matrix\.msc4140`).Bool() {
			t.Error("the versions do not name MSC4140")
		}
	})
}

// withUser is m.room.power_levels with a moderator more.
func withUser(levels gjson.Result, user string) object {
	content, _ := levels.Value().(map[string]any)
	users, _ := content["users"].(map[string]any)
	if users == nil {
		users = make(map[string]any)
	}
	users[user] = 50
	content["users"] = users
	return content
}

// An event that was due while the server was down is sent when it is back, once.
func TestDelayedEventsOutliveAKill(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice := d.user(t, "alice")
	room := alice.publicRoom()
	for i := range 5 {
		alice.must("PUT", delaying(at("rooms", room, "send", "m.room.message", alice.txn()), time.Second), object{"msgtype": "m.text", "body": fmt.Sprint("text ", i)})
	}
	server := d.process(t, "monolith")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		alice.comes(room, fmt.Sprint("text ", i))
	}
}
