package blackbox

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"
)

// admin registers an administrator and logs it in.
func (d *deployment) admin(t *testing.T) *client {
	t.Helper()
	c := d.anybody(t)
	c.localpart, c.password = "admin-"+strings.ToLower(rand.Text()[:8]), rand.Text()
	c.register(true)
	return c
}

// everywhere calls each listener until it answers so, for the second that a replica may take to notice what was put on an account.
func (c *client) everywhere(status int, errcode, method, path string, body any) {
	c.t.Helper()
	deadline := time.Now().Add(time.Second)
	for _, base := range c.d.urls {
		asked := *c
		asked.base = base
		a := asked.call(method, path, body)
		for late := false; (a.status != status || a.errcode() != errcode) && !late; {
			late = time.Now().After(deadline)
			a = asked.call(method, path, body)
		}
		if a.status != status || a.errcode() != errcode {
			c.t.Errorf("%s %s: %d %s, want %d %s", method, path, a.status, a.body.Raw, status, errcode)
		}
	}
}

func v1(segments ...string) string { return strings.Replace(at(segments...), "/v3", "/v1", 1) }

func TestALockedAccount(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		admin, bob := d.admin(t), d.user(t, "bob")
		phone := bob.login()
		refreshable := password(bob.password)
		refreshable["identifier"], refreshable["refresh_token"] = object{"type": "m.id.user", "user": bob.localpart}, true
		refresh := object{"refresh_token": d.anybody(t).must("POST", at("login"), refreshable).Get("refresh_token").Str}
		lock := v1("admin", "lock", bob.userID)
		equal(t, "locked at first", admin.must("GET", lock, nil).Raw, `{"locked":false}`)
		equal(t, "locking", admin.must("PUT", lock, object{"locked": true}).Raw, `{"locked":true}`)
		equal(t, "locked", admin.must("GET", lock, nil).Raw, `{"locked":true}`)
		for _, path := range []string{at("account", "whoami"), syncPath(""), at("joined_rooms")} {
			bob.everywhere(401, "M_USER_LOCKED", "GET", path, nil)
		}
		equal(t, "soft_logout", bob.call("GET", at("account", "whoami"), nil).body.Get("soft_logout").Bool(), true)
		d.anybody(t).refused(401, "M_USER_LOCKED", "POST", at("login"), refreshable)
		d.anybody(t).refused(401, "M_USER_LOCKED", "POST", at("refresh"), refresh)
		d.anybody(t).refused(401, "M_USER_LOCKED", "POST", at("account", "deactivate"), object{"auth": bob.auth("")})
		phone.must("POST", at("logout"), nil)
		admin.must("PUT", lock, object{"locked": false})
		bob.everywhere(200, "", "GET", at("account", "whoami"), nil)
		phone.deadEverywhere(t)

		other := d.admin(t)
		admin.refused(403, "M_FORBIDDEN", "PUT", v1("admin", "lock", other.userID), object{"locked": true})
		admin.refused(403, "M_FORBIDDEN", "GET", v1("admin", "lock", other.userID), nil)
		admin.refused(403, "M_FORBIDDEN", "PUT", v1("admin", "lock", admin.userID), object{"locked": true})
		admin.refused(404, "M_NOT_FOUND", "PUT", v1("admin", "lock", "@nobody-here:test.example"), object{"locked": true})
		admin.refused(400, "M_INVALID_PARAM", "PUT", v1("admin", "lock", "@bob:other.example"), object{"locked": true})
		admin.refused(400, "M_INVALID_PARAM", "PUT", v1("admin", "lock", "bob"), object{"locked": true})
		admin.refused(400, "M_MISSING_PARAM", "PUT", lock, object{})
		admin.refused(400, "M_BAD_JSON", "PUT", lock, object{"locked": 1})
		for _, user := range []string{admin.userID, "@nobody-here:test.example"} { // the same for all, so that nobody is found out
			bob.refused(403, "M_FORBIDDEN", "PUT", v1("admin", "lock", user), object{"locked": true})
			bob.refused(403, "M_FORBIDDEN", "GET", v1("admin", "lock", user), nil)
		}
	})
}

func TestASuspendedAccount(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		admin, alice, bob := d.admin(t), d.user(t, "alice"), d.user(t, "bob")
		room, invited, public := alice.publicRoom(), alice.createRoom(object{}), alice.publicRoom()
		bob.join(room)
		alice.setState(room, "m.room.power_levels", "", object{"users": object{bob.userID: 100}})
		alice.invite(invited, bob)
		hers, his := alice.say(room, "hers"), bob.say(room, "his")
		suspend := v1("admin", "suspend", bob.userID)
		equal(t, "suspending", admin.must("PUT", suspend, object{"suspended": true}).Raw, `{"suspended":true}`)
		equal(t, "suspended", admin.must("GET", suspend, nil).Raw, `{"suspended":true}`)
		equal(t, "locked", admin.must("GET", v1("admin", "lock", bob.userID), nil).Raw, `{"locked":false}`)
		bob.everywhere(403, "M_USER_SUSPENDED", "PUT", at("rooms", room, "send", "m.room.message", "suspended"), object{"msgtype": "m.text", "body": "x"})
		no := func(method, path string, body any) {
			t.Helper()
			bob.refused(403, "M_USER_SUSPENDED", method, path, body)
		}
		no("POST", at("join", public), object{})
		no("POST", at("rooms", invited, "join"), object{})
		no("POST", at("knock", public), object{})
		no("POST", at("rooms", room, "invite"), object{"user_id": admin.userID})
		no("POST", at("createRoom"), object{})
		no("PUT", at("rooms", room, "state", "m.room.name", ""), object{"name": "x"})
		no("PUT", at("profile", bob.userID, "displayname"), object{"displayname": "x"})
		no("PUT", at("rooms", room, "redact", hers, "t1"), object{})
		no("PUT", at("rooms", room, "send", "m.room.redaction", "t2"), object{"redacts": hers})
		bob.must("PUT", at("rooms", room, "redact", his, "t3"), object{})
		equal(t, "messages", len(bob.must("GET", at("rooms", room, "messages")+"?dir=b", nil).Get("chunk").Array()) > 0, true)
		bob.sync("")
		bob.must("POST", at("rooms", invited, "leave"), object{})
		equal(t, "a new session", bob.login().userID, bob.userID)
		admin.must("PUT", suspend, object{"suspended": false})
		bob.everywhere(200, "", "PUT", at("rooms", room, "send", "m.room.message", "after"), object{"msgtype": "m.text", "body": "x"})
	})
}

func TestWhois(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		admin, bob := d.admin(t), d.user(t, "bob")
		phone := bob.login()
		for _, c := range []*client{admin, bob} {
			found := c.must("GET", at("admin", "whois", bob.userID), nil)
			equal(t, "the user", found.Get("user_id").Str, bob.userID)
			equal(t, "devices", len(found.Get("devices").Map()), 2)
			connection := found.Get("devices." + phone.deviceID + ".sessions.0.connections.0")
			equal(t, "the address", connection.Get("ip").Str, "127.0.0.1")
			equal(t, "when", connection.Get("last_seen").Int() > 0, true)
		}
		bob.refused(403, "M_FORBIDDEN", "GET", at("admin", "whois", admin.userID), nil)
		admin.refused(404, "M_NOT_FOUND", "GET", at("admin", "whois", "@nobody-here:test.example"), nil)
		admin.refused(400, "M_INVALID_PARAM", "GET", at("admin", "whois", "@bob:other.example"), nil)
		equal(t, "an administrator's capability", admin.must("GET", at("capabilities"), nil).Get(`capabilities.m\.account_moderation`).Raw, `{"lock":true,"suspend":true}`)
		equal(t, "a user's", bob.must("GET", at("capabilities"), nil).Get(`capabilities.m\.account_moderation`).Exists(), false)
	})
}

func TestOpenID(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, nobody := d.user(t, "alice"), d.user(t, "bob"), d.anybody(t)
		given := alice.must("POST", at("user", alice.userID, "openid", "request_token"), object{})
		equal(t, "the server", given.Get("matrix_server_name").Str, "test.example")
		equal(t, "the type", given.Get("token_type").Str, "Bearer")
		equal(t, "the lifetime", given.Get("expires_in").Int(), 3600)
		token := given.Get("access_token").Str
		const userinfo = "/_matrix/federation/v1/openid/userinfo?access_token="
		equal(t, "the user", nobody.must("GET", userinfo+token, nil).Raw, `{"sub":"`+alice.userID+`"}`)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", userinfo+token[1:], nil)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", userinfo+alice.token, nil)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", userinfo, nil)
		nobody.token = token
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", at("account", "whoami"), nil)
		bob.refused(403, "M_FORBIDDEN", "POST", at("user", alice.userID, "openid", "request_token"), object{})
		nobody.token = ""
		admin := d.admin(t)
		for _, locked := range []bool{true, false} {
			admin.must("PUT", v1("admin", "lock", alice.userID), object{"locked": locked})
			if locked {
				nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", userinfo+token, nil)
			} else {
				nobody.must("GET", userinfo+token, nil)
			}
		}
		alice.must("POST", at("account", "deactivate"), object{"auth": alice.auth("")})
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", userinfo+token, nil)
	})
}

func TestThirdPartyIdentifiers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, nobody := d.user(t, "alice"), d.anybody(t)
		equal(t, "the identifiers", alice.must("GET", at("account", "3pid"), nil).Raw, `{"threepids":[]}`)
		equal(t, "m.3pid_changes", alice.must("GET", at("capabilities"), nil).Get(`capabilities.m\.3pid_changes.enabled`).Raw, "false")
		mail := object{"client_secret": "s", "email": "a@test.example", "send_attempt": 1}
		nobody.refused(403, "M_THREEPID_DENIED", "POST", at("register", "email", "requestToken"), mail)
		nobody.refused(400, "M_THREEPID_NOT_FOUND", "POST", at("account", "password", "email", "requestToken"), mail)
		nobody.refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", at("account", "3pid", "email", "requestToken"), mail)
		nobody.refused(400, "M_MISSING_PARAM", "POST", at("register", "msisdn", "requestToken"), mail)
		nobody.refused(400, "M_NOT_JSON", "POST", at("register", "msisdn", "requestToken"), []byte("{"))
		alice.refused(400, "M_MISSING_PARAM", "POST", at("account", "3pid", "add"), object{"sid": "x"})
		alice.refused(403, "M_THREEPID_DENIED", "POST", at("account", "3pid", "add"), object{"sid": "x", "client_secret": "s"})
		equal(t, "deleting", alice.must("POST", at("account", "3pid", "delete"), object{"medium": "email", "address": "a@test.example"}).Raw,
			`{"id_server_unbind_result":"no-support"}`)
	})
}
