package blackbox

import (
	"net/url"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// createRoom makes a room and returns its id.
func (c *client) createRoom(request object) string {
	c.t.Helper()
	return c.must("POST", at("createRoom"), request).Get("room_id").Str
}

// publicRoom makes a room that everybody may join.
func (c *client) publicRoom() string {
	c.t.Helper()
	return c.createRoom(object{"preset": "public_chat"})
}

func (c *client) join(room string) { c.t.Helper(); c.must("POST", at("join", room), object{}) }

func (c *client) invite(room string, who *client) {
	c.t.Helper()
	c.must("POST", at("rooms", room, "invite"), object{"user_id": who.userID})
}

// say sends a text message and returns its event id.
func (c *client) say(room, text string) string {
	c.t.Helper()
	return c.send(room, "m.room.message", object{"msgtype": "m.text", "body": text})
}

func (c *client) send(room, eventType string, content object) string {
	c.t.Helper()
	return c.must("PUT", at("rooms", room, "send", eventType, c.txn()), content).Get("event_id").Str
}

func (c *client) setState(room, eventType, stateKey string, content object) string {
	c.t.Helper()
	return c.must("PUT", at("rooms", room, "state", eventType, stateKey), content).Get("event_id").Str
}

// sync asks for what is new since a token, without waiting. More parameters follow as name, value.
func (c *client) sync(since string, parameters ...string) gjson.Result {
	c.t.Helper()
	return c.must("GET", syncPath(since, parameters...), nil)
}

func syncPath(since string, parameters ...string) string {
	q := url.Values{}
	if since != "" {
		q.Set("since", since)
	}
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	return at("sync") + "?" + q.Encode()
}

// escape makes a segment of a path of gjson from any name.
func escape(name string) string {
	return strings.NewReplacer(".", `\.`, "*", `\*`, "?", `\?`, "|", `\|`, "#", `\#`, "@", `\@`, "!", `\!`).Replace(name)
}

// roomIn is what a sync says of a room: section is join, invite, leave or knock.
func roomIn(sync gjson.Result, section, room string) gjson.Result {
	return sync.Get("rooms." + section + "." + escape(room))
}

// bodies lists the texts of messages.
func bodies(events gjson.Result) []string {
	var all []string
	for _, e := range events.Array() {
		if e.Get("type").Str == "m.room.message" {
			all = append(all, e.Get("content.body").Str)
		}
	}
	return all
}

// ids lists event ids.
func ids(events gjson.Result) []string {
	var all []string
	for _, e := range events.Array() {
		all = append(all, e.Get("event_id").Str)
	}
	return all
}

// find returns the first event of a type and state key.
func find(events gjson.Result, eventType, stateKey string) gjson.Result {
	for _, e := range events.Array() {
		if e.Get("type").Str == eventType && (!e.Get("state_key").Exists() || e.Get("state_key").Str == stateKey) {
			return e
		}
	}
	return gjson.Result{}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// stateIn finds a state event in what a sync says of a joined room: in its state or, newer, in its timeline.
func stateIn(room gjson.Result, eventType, stateKey string) gjson.Result {
	found := find(room.Get("state.events"), eventType, stateKey)
	for _, e := range room.Get("timeline.events").Array() {
		if e.Get("type").Str == eventType && e.Get("state_key").Exists() && e.Get("state_key").Str == stateKey {
			found = e
		}
	}
	return found
}
