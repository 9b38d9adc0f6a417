package blackbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/deploy"
)

// typingIn is who types in a room by a sync; says is whether it says so.
func typingIn(sync gjson.Result, room string) (who []string, says bool) {
	e := find(roomIn(sync, "join", room).Get("ephemeral.events"), "m.typing", "")
	for _, user := range e.Get("content.user_ids").Array() {
		who = append(who, user.Str)
	}
	slices.Sort(who)
	return who, e.Exists()
}

// types begins to type.
func (c *client) types(room string) {
	c.t.Helper()
	c.must("PUT", at("rooms", room, "typing", c.userID), object{"typing": true, "timeout": 110_000})
}

// awaitTyping syncs until these type in a room, and returns the token after that.
func (c *client) awaitTyping(what, since, room string, want ...*client) string {
	c.t.Helper()
	var last string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		sync := c.sync(since, "timeout", "1000")
		since = sync.Get("next_batch").Str
		if who, says := typingIn(sync, room); says {
			if last = sync.Raw; slices.Equal(who, users(want...)) {
				return since
			}
		}
	}
	c.t.Fatalf("%s: %v do not type: %s", what, users(want...), last)
	return ""
}

func TestTypingEndsWithAMessageAndALeave(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		since := alice.now()
		for what, end := range map[string]func(*client){
			"a message": func(c *client) { c.say(room, "done") },
			"leave":     func(c *client) { c.must("POST", at("rooms", room, "leave"), object{}) },
			"kick":      func(c *client) { alice.must("POST", at("rooms", room, "kick"), object{"user_id": c.userID}) },
			"ban":       func(c *client) { alice.must("POST", at("rooms", room, "ban"), object{"user_id": c.userID}) },
		} {
			bob := d.user(t, "bob")
			bob.join(room)
			bob.types(room)
			since = alice.awaitTyping(what+", the begin", since, room, bob)
			end(bob)
			since = alice.awaitTyping(what, since, room)
			if who, says := typingIn(alice.sync(""), room); says {
				t.Errorf("%s: an initial sync says that %v type", what, who)
			}
		}
	})
}

func TestANewlyJoinedRoomShowsWhoTypesAndWhoIsOnline(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		since := alice.now()
		alice.types(room)
		alice.awaitTyping("the begin", since, room, alice)
		token := bob.now()
		bob.join(room)
		online := false
		for deadline := time.Now().Add(20 * time.Second); ; {
			sync := bob.sync(token, "timeout", "1000")
			if who, says := typingIn(sync, room); roomIn(sync, "join", room).Exists() {
				if !says || !slices.Equal(who, users(alice)) {
					t.Errorf("the first sync with the room says that %v type (%t)", who, says)
				}
			}
			token = sync.Get("next_batch").Str
			online = online || presenceIn(sync, alice).Get("presence").Str == "online"
			if online {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("who is online in the room is not shown")
			}
		}
	})
}

// Whoever was shown to type is not for ever, however the server ends.
func TestTypingEndsOverARestart(t *testing.T) {
	d := own(t, deploy.MonolithSQLite, nil)
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	room := alice.publicRoom()
	bob.join(room)
	since := alice.now()
	for _, how := range []func() error{d.Processes()[0].Kill, d.Processes()[0].Stop} {
		bob.types(room)
		since = alice.awaitTyping("the begin", since, room, bob)
		if err := how(); err != nil {
			t.Fatal(err)
		}
		if err := d.Processes()[0].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		since = alice.awaitTyping("the restart", since, room)
	}
}

// The death of a replica ends at most who types at the moment, and nobody is shown to type for ever.
func TestTypingOverTheDeathOfAReplica(t *testing.T) {
	d := deployed(deploy.Own(t, deploy.Polylith, deploy.Options{Replicas: []string{"typingserver"}}))
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	var rooms []string
	for range 4 { // which two replicas share
		room := alice.publicRoom()
		bob.join(room)
		rooms = append(rooms, room)
	}
	for _, room := range rooms {
		since := alice.now()
		bob.types(room)
		alice.awaitTyping("the begin", since, room, bob)
	}
	for _, server := range d.Processes() {
		if !strings.HasPrefix(server.Name, "typingserver") {
			continue
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, room := range rooms {
			bob.must("PUT", at("rooms", room, "typing", bob.userID), object{"typing": false})
			token := alice.now()
			bob.types(room)
			alice.awaitTyping("beside a replica that is dead", token, room, bob)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, room := range rooms {
			token := alice.now()
			bob.must("PUT", at("rooms", room, "typing", bob.userID), object{"typing": false})
			alice.awaitTyping("after it has come back", token, room)
			bob.types(room)
		}
	}
}
