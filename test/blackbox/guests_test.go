package blackbox

import (
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

func TestAGuestBecomesAUser(t *testing.T) {
	runOn(t, switched, func(t *testing.T, d *deployment) {
		guest, other, nobody, alice := d.anybody(t), d.anybody(t), d.anybody(t), d.user(t, "alice")
		for _, c := range []*client{guest, other} {
			made := nobody.must("POST", at("register")+"?kind=guest", object{"username": "chosen", "device_id": "CHOSEN", "initial_device_display_name": "tab"})
			if user := made.Get("user_id").Str; strings.HasPrefix(user, "@chosen:") || made.Get("device_id").Str == "CHOSEN" {
				t.Errorf("a guest chose: %s", made.Raw)
			}
			c.took(made)
		}
		equal(t, "is_guest", guest.must("GET", at("account", "whoami"), nil).Get("is_guest").Raw, "true")
		guest.must("PUT", at("profile", guest.userID, "displayname"), object{"displayname": "Gus"})
		guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("createRoom"), object{})
		guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("account", "deactivate"), object{})
		open := alice.createRoom(object{"preset": "public_chat", "initial_state": []object{{"type": "m.room.guest_access", "content": object{"guest_access": "can_join"}}}})
		guest.join(open)

		name, _, _ := strings.Cut(guest.userID[1:], ":")
		otherName, _, _ := strings.Cut(other.userID[1:], ":")
		body := func(username, token string) object {
			return object{"username": username, "password": "long enough 1", "guest_access_token": token, "auth": object{"type": "m.login.dummy"}}
		}
		no := func(status int, errcode string, body object) {
			t.Helper()
			nobody.refused(status, errcode, "POST", at("register"), body)
		}
		no(400, "M_MISSING_PARAM", body("", guest.token))
		no(400, "M_INVALID_USERNAME", body("a b", guest.token))
		no(400, "M_BAD_JSON", object{"username": name, "guest_access_token": 1})
		no(403, "M_FORBIDDEN", body("another-name", guest.token))
		no(403, "M_FORBIDDEN", body(otherName, guest.token))
		no(403, "M_FORBIDDEN", body(alice.localpart, alice.token))
		no(403, "M_FORBIDDEN", body(name, "made up"))
		no(400, "M_USER_IN_USE", object{"username": name, "password": "long enough 1", "auth": object{"type": "m.login.dummy"}})
		equal(t, "a guest after all refusals", guest.must("GET", at("account", "whoami"), nil).Get("is_guest").Raw, "true")
		nobody.refused(403, "M_FORBIDDEN", "POST", at("login"), object{"type": "m.login.password", "password": "long enough 1",
			"identifier": object{"type": "m.id.user", "user": name}})

		made := nobody.must("POST", at("register"), body(name, guest.token))
		equal(t, "the user stays", made.Get("user_id").Str, guest.userID)
		user := d.anybody(t)
		user.took(made)
		for _, c := range []*client{user, guest} { // the guest's device stays too
			c.everywhere(200, "", "GET", at("joined_rooms"), nil)
			equal(t, "is_guest", c.must("GET", at("account", "whoami"), nil).Get("is_guest").Raw, "false")
		}
		equal(t, "the rooms stay", user.must("GET", at("joined_rooms"), nil).Get("joined_rooms.0").Str, open)
		equal(t, "the name stays", user.must("GET", at("profile", user.userID, "displayname"), nil).Get("displayname").Str, "Gus")
		user.createRoom(object{})
		nobody.must("POST", at("login"), object{"type": "m.login.password", "password": "long enough 1", "identifier": object{"type": "m.id.user", "user": name}})
		no(403, "M_FORBIDDEN", body(name, guest.token)) // once

		// Of two requests at once, one wins, and with it one password.
		codes := make(chan int, 4)
		for range cap(codes) {
			go func() { codes <- d.anybody(t).call("POST", at("register"), body(otherName, other.token)).status }()
		}
		won := 0
		for range cap(codes) {
			if <-codes == 200 {
				won++
			}
		}
		equal(t, "upgrades of one guest", won, 1)
	})
}

func TestGuestsLeaveWhenARoomIsClosedToThem(t *testing.T) {
	runOn(t, switched, func(t *testing.T, d *deployment) {
		guest, nobody, alice, bob := d.anybody(t), d.anybody(t), d.user(t, "alice"), d.user(t, "bob")
		guest.took(nobody.must("POST", at("register")+"?kind=guest", object{}))
		closers := map[string]func(room, access string){
			"another value": func(room, _ string) {
				alice.setState(room, "m.room.guest_access", "", object{"guest_access": "forbidden"})
			},
			"no value":    func(room, _ string) { alice.setState(room, "m.room.guest_access", "", object{}) },
			"a redaction": func(room, access string) { alice.redact(room, access) },
		}
		for name, closes := range closers {
			t.Run(name, func(t *testing.T) {
				room := alice.publicRoom()
				guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("join", room), object{})
				access := alice.setState(room, "m.room.guest_access", "", object{"guest_access": "can_join"})
				guest.join(room)
				bob.join(room)
				alice.setState(room, "m.room.name", "", object{"name": "still open"})
				since := guest.now()
				closes(room, access)
				left := gjson.Result{}
				for end := time.Now().Add(30 * time.Second); !left.Exists() && time.Now().Before(end); {
					answer := guest.sync(since, "timeout", "1000")
					since, left = answer.Get("next_batch").Str, answer.Get("rooms.leave."+escape(room))
				}
				member := alice.state(room, "m.room.member", guest.userID)
				equal(t, "membership of the guest", member.Get("membership").Str, "leave")
				equal(t, "the guest's sync has the room among those left", left.Exists(), true)
				equal(t, "membership of the user", alice.state(room, "m.room.member", bob.userID).Get("membership").Str, "join")
				guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("join", room), object{})
				// Once the room is open again, so it stays.
				alice.setState(room, "m.room.guest_access", "", object{"guest_access": "can_join"})
				guest.join(room)
				alice.setState(room, "m.room.topic", "", object{"topic": "open"})
				guest.say(room, "here")
			})
		}
	})
}
