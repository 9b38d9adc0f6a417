package blackbox

import (
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/config"
)

// presenceIn is the content of somebody's last m.presence in a sync.
func presenceIn(sync gjson.Result, who *client) gjson.Result {
	var content gjson.Result
	for _, e := range sync.Get("presence.events").Array() {
		if e.Get("sender").Str == who.userID && e.Get("type").Str == "m.presence" {
			content = e.Get("content")
		}
	}
	return content
}

// awaitPresence syncs until somebody is what is wanted, and returns the token after that.
func (c *client) awaitPresence(since string, who *client, want string) string {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		sync := c.sync(since, "timeout", "1000", "set_presence", "offline")
		since = sync.Get("next_batch").Str
		if presenceIn(sync, who).Get("presence").Str == want {
			return since
		}
	}
	c.t.Fatalf("%s did not become %s", who.userID, want)
	return ""
}

func TestPresence(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.publicRoom()
		bob.join(room)
		status := func(c *client) string { return at("presence", c.userID, "status") }
		equal(t, "before anything", bob.must("GET", status(alice), nil).Get("presence").Str, "offline")
		since := bob.sync("", "set_presence", "offline").Get("next_batch").Str

		alice.must("PUT", status(alice), object{"presence": "unavailable", "status_msg": "at lunch"})
		since = bob.awaitPresence(since, alice, "unavailable")
		got := bob.must("GET", status(alice), nil)
		equal(t, "what is set", got.Get("presence").Str+" "+got.Get("status_msg").Str, "unavailable at lunch")
		if ago := got.Get("last_active_ago"); !ago.Exists() || ago.Int() < 0 || ago.Int() > 60_000 {
			t.Errorf("last_active_ago is %s", ago.Raw)
		}
		equal(t, "currently_active", got.Get("currently_active").Raw, "false")

		alice.sync("") // a sync makes its user online
		since = bob.awaitPresence(since, alice, "online")
		again := bob.sync(since, "set_presence", "offline")
		if presenceIn(again, alice).Exists() {
			t.Error("what has not changed is told again")
		}
		initial := presenceIn(bob.sync("", "set_presence", "offline"), alice)
		equal(t, "the initial sync", initial.Get("presence").Str+" "+initial.Get("status_msg").Str+" "+initial.Get("currently_active").Raw, "online at lunch true")
		for _, filter := range []object{{"types": []string{"x"}}, {"not_types": []string{"m.*"}}, {"senders": []string{bob.userID}}, {"not_senders": []string{alice.userID}}} {
			if presenceIn(bob.sync("", filtered(object{"presence": filter})...), alice).Exists() {
				t.Errorf("a filter of presence is not applied: %v", filter)
			}
		}
		if presenceIn(bob.sync(""), bob).Exists() {
			t.Error("presence is that of others")
		}
		alice.must("PUT", status(alice), object{"presence": "offline"})
		bob.awaitPresence(since, alice, "offline")

		// Who shares no room sees nothing, and sees it as soon as they do.
		sinceCarol := carol.sync("", "set_presence", "offline").Get("next_batch").Str
		carol.refused(403, "M_FORBIDDEN", "GET", status(alice), nil)
		alice.must("PUT", status(alice), object{"presence": "online", "status_msg": "back"})
		if presenceIn(carol.sync(sinceCarol, "set_presence", "offline"), alice).Exists() {
			t.Error("presence of somebody with whom no room is shared")
		}
		carol.join(room)
		carol.awaitPresence("", alice, "online")
		equal(t, "one's own", alice.must("GET", status(alice), nil).Get("status_msg").Str, "back")
		bob.must("PUT", at("user", bob.userID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{alice.userID: object{}}})
		if presenceIn(bob.sync("", "set_presence", "offline"), alice).Exists() {
			t.Error("presence of somebody who is ignored")
		}

		alice.refused(403, "M_FORBIDDEN", "PUT", status(bob), object{"presence": "online"})
		alice.refused(400, "M_MISSING_PARAM", "PUT", status(alice), object{})
		alice.refused(400, "M_INVALID_PARAM", "PUT", status(alice), object{"presence": "busy"})
		alice.refused(400, "M_BAD_JSON", "PUT", status(alice), object{"presence": 1})
		alice.refused(400, "M_INVALID_PARAM", "PUT", status(alice), object{"presence": "online", "status_msg": strings.Repeat("x", 2000)})
		alice.refused(404, "M_NOT_FOUND", "GET", at("presence", "@nobody:test.example", "status"), nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", syncPath("", "set_presence", "busy"), nil)
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", status(alice), nil)
	})
}

// A newcomer's presence is told to those who were in the room before.
func TestPresenceOfANewcomer(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.sync("")
		since := alice.sync("", "set_presence", "offline").Get("next_batch").Str
		bob.join(room)
		alice.awaitPresence(since, bob, "online")
	})
}

func TestPresenceSwitchedOff(t *testing.T) {
	d := own(t, monolithSQLite, func(c *config.Config) { c.Matrix.Presence.Enabled = false })
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	room := alice.publicRoom()
	bob.join(room)
	alice.must("PUT", at("presence", alice.userID, "status"), object{"presence": "online"})
	alice.sync("")
	equal(t, "presence", bob.must("GET", at("presence", alice.userID, "status"), nil).Get("presence").Str, "offline")
	if len(bob.sync("").Get("presence.events").Array()) > 0 {
		t.Error("presence is told")
	}
}
