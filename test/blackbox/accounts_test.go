package blackbox

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// deadEverywhere checks that a token stops working on every listener within a second, which is what logging out promises.
func (c *client) deadEverywhere(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Second)
	for _, base := range c.d.urls {
		for _, path := range []string{at("account", "whoami"), syncPath("")} { // of the two components that have tokens to check
			asked := *c
			asked.base = base
			a := answer{status: 200}
			for late := false; a.status == 200 && !late; { // the last one is sent when the time is over
				late = time.Now().After(deadline)
				a = asked.call("GET", path, nil)
			}
			if a.status != 401 || a.errcode() != "M_UNKNOWN_TOKEN" {
				t.Errorf("%s%s with a dead token: %d %s", base, path, a.status, a.body.Raw)
			}
		}
	}
}

func password(text string) object {
	return object{"type": "m.login.password", "password": text}
}

// auth answers a request for user-interactive authentication by the user's password.
func (c *client) auth(session string) object {
	return object{"type": "m.login.password", "identifier": object{"type": "m.id.user", "user": c.localpart}, "password": c.password, "session": session}
}

// confirmed sends a request that asks for the password, first without and then with it.
func (c *client) confirmed(method, path string, body object) {
	c.t.Helper()
	first := c.call(method, path, body)
	session := first.body.Get("session").Str
	if first.status != 401 || session == "" || first.body.Get("flows.0.stages.0").Str != "m.login.password" {
		c.t.Fatalf("%s %s without authentication: %d %s", method, path, first.status, first.body.Raw)
	}
	wrong := c.auth(session)
	wrong["password"] = "wrong"
	again := object{"auth": wrong}
	for key, value := range body {
		again[key] = value
	}
	if a := c.call(method, path, again); a.status != 401 || a.errcode() != "M_FORBIDDEN" || a.body.Get("session").Str != session {
		c.t.Errorf("%s %s with a wrong password: %d %s", method, path, a.status, a.body.Raw)
	}
	again["auth"] = c.auth(session)
	c.must(method, path, again)
}

func TestRegistration(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		c := d.anybody(t)
		name := "reg-" + strings.ToLower(rand.Text()[:8])
		path := at("register")
		body := func(more ...any) object {
			o := object{"username": name, "password": "long enough 1", "auth": object{"type": "m.login.dummy"}}
			for i := 0; i < len(more); i += 2 {
				o[more[i].(string)] = more[i+1]
			}
			return o
		}
		equal(t, "available", c.must("GET", at("register", "available")+"?username="+name, nil).Get("available").Bool(), true)
		first := c.call("POST", path, object{"username": name, "password": "long enough 1"})
		if first.status != 401 || first.body.Get("flows.0.stages.0").Str != "m.login.dummy" || first.errcode() != "" {
			t.Fatalf("without authentication: %d %s", first.status, first.body.Raw)
		}
		if a := c.call("POST", path, body("auth", object{"type": "m.login.odd", "session": first.body.Get("session").Str})); a.status != 401 {
			t.Errorf("an unknown stage: %d %s", a.status, a.body.Raw)
		}
		made := c.must("POST", path, body("auth", object{"type": "m.login.dummy", "session": first.body.Get("session").Str}, "device_id", "PHONE", "initial_device_display_name", "my phone"))
		equal(t, "the user", made.Get("user_id").Str, "@"+name+":test.example")
		equal(t, "the device", made.Get("device_id").Str, "PHONE")
		c.took(made)
		who := c.must("GET", at("account", "whoami"), nil)
		equal(t, "whoami", who.Get("user_id").Str+" "+who.Get("device_id").Str+" "+who.Get("is_guest").Raw, c.userID+" PHONE false")
		equal(t, "the device's name", c.must("GET", at("devices", "PHONE"), nil).Get("display_name").Str, "my phone")

		c.token = ""
		c.refused(400, "M_USER_IN_USE", "POST", path, body())
		c.refused(400, "M_USER_IN_USE", "POST", path, object{"username": strings.ToUpper(name), "password": "long enough 1"})
		c.refused(400, "M_USER_IN_USE", "GET", at("register", "available")+"?username="+name, nil)
		for _, bad := range []string{"with space", "Ünicode", "a:b", "@a", strings.Repeat("a", 250)} {
			c.refused(400, "M_INVALID_USERNAME", "POST", path, body("username", bad))
		}
		c.refused(400, "M_INVALID_USERNAME", "GET", at("register", "available")+"?username=a%20b", nil)
		c.refused(400, "M_MISSING_PARAM", "GET", at("register", "available"), nil)
		fresh := name + "-2"
		for _, bad := range []any{1, []string{"x"}} {
			c.refused(400, "M_BAD_JSON", "POST", path, body("username", fresh, "password", bad))
		}
		if a := c.call("POST", path, body("username", fresh, "password", "")); a.status != 400 {
			t.Errorf("an empty password: %d %s", a.status, a.body.Raw)
		}
		if a := c.call("POST", path, body("username", fresh, "password", strings.Repeat("x", 10_000))); a.status != 400 {
			t.Errorf("a huge password: %d %s", a.status, a.body.Raw)
		}
		c.refused(400, "M_INVALID_PARAM", "POST", path+"?kind=odd", body("username", fresh))
		c.refused(403, "M_FORBIDDEN", "POST", path+"?kind=guest", object{})
		equal(t, "refused requests make no account", c.must("GET", at("register", "available")+"?username="+fresh, nil).Get("available").Bool(), true)

		silent := c.must("POST", path, body("username", name+"-3", "inhibit_login", true))
		if silent.Get("access_token").Exists() || silent.Get("device_id").Exists() || silent.Get("user_id").Str == "" {
			t.Errorf("inhibit_login: %s", silent.Raw)
		}
		generated := c.must("POST", path, object{"password": "long enough 1", "auth": object{"type": "m.login.dummy"}})
		if user := generated.Get("user_id").Str; !strings.HasPrefix(user, "@") || strings.HasPrefix(user, "@:") || generated.Get("access_token").Str == "" {
			t.Errorf("a generated name: %s", generated.Raw)
		}
		// Two of one name at once: one gets it.
		race := name + "-race"
		codes := make(chan int, 5)
		for range cap(codes) {
			go func() { codes <- d.anybody(t).call("POST", path, body("username", race)).status }()
		}
		won := 0
		for range cap(codes) {
			if <-codes == 200 {
				won++
			}
		}
		equal(t, "accounts of one name", won, 1)
	})
}

func TestLogin(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		nobody := d.anybody(t)
		path := at("login")
		with := func(user any, more ...any) object {
			o := password(alice.password)
			o["identifier"] = object{"type": "m.id.user", "user": user}
			for i := 0; i < len(more); i += 2 {
				o[more[i].(string)] = more[i+1]
			}
			return o
		}
		flows := nobody.must("GET", path, nil).Get("flows")
		if !slices.ContainsFunc(flows.Array(), func(f gjson.Result) bool { return f.Get("type").Str == "m.login.password" }) {
			t.Errorf("flows: %s", flows.Raw)
		}
		for _, name := range []string{alice.localpart, alice.userID, strings.ToUpper(alice.localpart)} {
			equal(t, "login as "+name, nobody.must("POST", path, with(name)).Get("user_id").Str, alice.userID)
		}
		old := password(alice.password)
		old["user"] = alice.localpart
		equal(t, "the older form", nobody.must("POST", path, old).Get("user_id").Str, alice.userID)

		nobody.refused(403, "M_FORBIDDEN", "POST", path, with(alice.localpart, "password", "wrong"))
		nobody.refused(403, "M_FORBIDDEN", "POST", path, with("nobody-"+alice.localpart))
		nobody.refused(401, "M_MISSING_TOKEN", "POST", path, with(alice.localpart, "type", "m.login.application_service"))
		nobody.refused(403, "M_FORBIDDEN", "POST", path, with("@alice:other.example"))
		nobody.refused(400, "M_UNKNOWN", "POST", path, with(alice.localpart, "type", "m.login.odd"))
		nobody.refused(400, "M_MISSING_PARAM", "POST", path, object{})
		nobody.refused(400, "M_MISSING_PARAM", "POST", path, object{"type": "m.login.password"})
		nobody.refused(400, "M_UNKNOWN", "POST", path, with(alice.localpart, "identifier", object{"type": "odd"}))
		nobody.refused(400, "M_BAD_JSON", "POST", path, with(1))
		nobody.refused(400, "M_BAD_JSON", "POST", path, with(alice.localpart, "password", 1))
		nobody.refused(400, "M_NOT_JSON", "POST", path, []byte(`{"type"`))
		nobody.refused(403, "M_FORBIDDEN", "POST", path, object{"type": "m.login.token", "token": "nonsense"})

		// A login to a device replaces that device's session.
		one := d.anybody(t)
		one.took(one.must("POST", path, with(alice.localpart, "device_id", "SAME")))
		two := d.anybody(t)
		two.took(two.must("POST", path, with(alice.localpart, "device_id", "SAME")))
		one.deadEverywhere(t)
		equal(t, "the device", two.must("GET", at("account", "whoami"), nil).Get("device_id").Str, "SAME")

		// A login token is for one login.
		first := alice.call("POST", "/_matrix/client/v1/login/get_token", object{})
		if first.status != 401 {
			t.Fatalf("get_token without authentication: %d %s", first.status, first.body.Raw)
		}
		token := alice.must("POST", "/_matrix/client/v1/login/get_token", object{"auth": alice.auth(first.body.Get("session").Str)}).Get("login_token").Str
		equal(t, "login by token", nobody.must("POST", path, object{"type": "m.login.token", "token": token}).Get("user_id").Str, alice.userID)
		nobody.refused(403, "M_FORBIDDEN", "POST", path, object{"type": "m.login.token", "token": token})
	})
}

func TestRefreshTokens(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		c := d.anybody(t)
		login := password(alice.password)
		login["identifier"], login["refresh_token"] = object{"type": "m.id.user", "user": alice.localpart}, true
		first := c.must("POST", at("login"), login)
		if first.Get("refresh_token").Str == "" || first.Get("expires_in_ms").Int() <= 0 {
			t.Fatalf("a login with refresh tokens: %s", first.Raw)
		}
		c.took(first)
		c.must("GET", at("account", "whoami"), nil)
		fresh := d.anybody(t)
		second := fresh.must("POST", at("refresh"), object{"refresh_token": first.Get("refresh_token").Str})
		fresh.token = second.Get("access_token").Str
		equal(t, "the device", fresh.must("GET", at("account", "whoami"), nil).Get("device_id").Str, c.deviceID)
		nobody := d.anybody(t)
		used := nobody.refused(401, "M_UNKNOWN_TOKEN", "POST", at("refresh"), object{"refresh_token": first.Get("refresh_token").Str})
		equal(t, "soft_logout", used.body.Get("soft_logout").Bool(), true)
		third := nobody.must("POST", at("refresh"), object{"refresh_token": second.Get("refresh_token").Str})
		fresh.token = third.Get("access_token").Str
		fresh.must("GET", at("account", "whoami"), nil)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "POST", at("refresh"), object{"refresh_token": "nonsense"})
		nobody.refused(400, "M_MISSING_PARAM", "POST", at("refresh"), object{})
		nobody.refused(400, "M_BAD_JSON", "POST", at("refresh"), object{"refresh_token": 1})
		fresh.must("POST", at("logout"), nil)
		fresh.deadEverywhere(t)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "POST", at("refresh"), object{"refresh_token": third.Get("refresh_token").Str})
	})
}

func TestLogout(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		phone, tablet := alice.login(), alice.login()
		phone.must("GET", at("account", "whoami"), nil)
		since := phone.now()
		phone.must("POST", at("logout"), nil)
		phone.deadEverywhere(t)
		phone.refused(401, "M_UNKNOWN_TOKEN", "GET", syncPath(since), nil)
		phone.refused(401, "M_UNKNOWN_TOKEN", "POST", at("createRoom"), object{})
		alice.refused(404, "M_NOT_FOUND", "GET", at("devices", phone.deviceID), nil)
		tablet.must("GET", at("account", "whoami"), nil)
		alice.must("POST", at("logout", "all"), nil)
		alice.deadEverywhere(t)
		tablet.deadEverywhere(t)
		equal(t, "a login after", alice.login().userID, alice.userID)
	})
}

func TestDevices(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		phone, tablet, old := alice.login(), alice.login(), alice.login()
		list := func() (all []string) {
			t.Helper()
			for _, device := range alice.must("GET", at("devices"), nil).Get("devices").Array() {
				all = append(all, device.Get("device_id").Str)
			}
			slices.Sort(all)
			return all
		}
		sorted := func(devices ...string) []string { slices.Sort(devices); return devices }
		same(t, "devices", list(), sorted(alice.deviceID, phone.deviceID, tablet.deviceID, old.deviceID))
		alice.must("PUT", at("devices", phone.deviceID), object{"display_name": "my phone"})
		equal(t, "a renamed device", alice.must("GET", at("devices", phone.deviceID), nil).Get("display_name").Str, "my phone")
		alice.refused(400, "M_BAD_JSON", "PUT", at("devices", phone.deviceID), object{"display_name": 1})
		equal(t, "after a refused change", alice.must("GET", at("devices", phone.deviceID), nil).Get("display_name").Str, "my phone")
		bob.refused(404, "M_NOT_FOUND", "GET", at("devices", phone.deviceID), nil)
		bob.refused(404, "M_NOT_FOUND", "PUT", at("devices", phone.deviceID), object{"display_name": "bob's"})
		alice.refused(404, "M_NOT_FOUND", "GET", at("devices", "NOTHING"), nil)

		alice.confirmed("DELETE", at("devices", phone.deviceID), object{})
		phone.deadEverywhere(t)
		alice.confirmed("POST", at("delete_devices"), object{"devices": []string{tablet.deviceID, old.deviceID}})
		tablet.deadEverywhere(t)
		same(t, "devices at the end", list(), []string{alice.deviceID})
		// One's password is not another's.
		first := bob.call("DELETE", at("devices", bob.deviceID), object{})
		if a := bob.call("DELETE", at("devices", bob.deviceID), object{"auth": alice.auth(first.body.Get("session").Str)}); a.status != 401 || a.errcode() != "M_FORBIDDEN" {
			t.Errorf("with another user's password: %d %s", a.status, a.body.Raw)
		}
		bob.must("GET", at("account", "whoami"), nil)
	})
}

func TestAPasswordChange(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		phone := alice.login()
		alice.refused(400, "M_MISSING_PARAM", "POST", at("account", "password"), object{})
		alice.confirmed("POST", at("account", "password"), object{"new_password": "something new 1", "logout_devices": false})
		phone.must("GET", at("account", "whoami"), nil)
		was := alice.password
		alice.password = "something new 1"
		another := alice.login()
		other := password(was)
		other["identifier"] = object{"type": "m.id.user", "user": alice.localpart}
		d.anybody(t).refused(403, "M_FORBIDDEN", "POST", at("login"), other)
		alice.confirmed("POST", at("account", "password"), object{"new_password": "something else 2"})
		phone.deadEverywhere(t)
		another.deadEverywhere(t)
		alice.must("GET", at("account", "whoami"), nil)
		alice.password = "something else 2"
		alice.login()
	})
}

func TestDeactivation(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		phone := bob.login()
		room := alice.publicRoom()
		bob.join(room)
		since := alice.now()
		wait := alice.poll(since)
		bob.confirmed("POST", at("account", "deactivate"), object{"erase": true})
		bob.deadEverywhere(t)
		phone.deadEverywhere(t)
		login := password(bob.password)
		login["identifier"] = object{"type": "m.id.user", "user": bob.localpart}
		d.anybody(t).refused(403, "M_FORBIDDEN", "POST", at("login"), login)
		d.anybody(t).refused(400, "M_USER_IN_USE", "POST", at("register"), object{"username": bob.localpart, "password": "long enough 1", "auth": object{"type": "m.login.dummy"}})
		left := stateIn(roomIn(wait(), "join", room), "m.room.member", bob.userID)
		equal(t, "the membership of who is gone", left.Get("content.membership").Str, "leave")
		if a := alice.call("GET", at("profile", bob.userID), nil); a.body.Get("displayname").Exists() {
			t.Errorf("the profile of who is gone: %s", a.body.Raw)
		}
	})
}

// A new name is in every room that its user is in.
func TestAProfileGoesToRooms(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		const rooms = 5
		var all []string
		for range rooms {
			room := alice.publicRoom()
			bob.join(room)
			all = append(all, room)
		}
		since := alice.now()
		bob.must("PUT", at("profile", bob.userID, "displayname"), object{"displayname": "Bob ✓"})
		bob.must("PUT", at("profile", bob.userID, "avatar_url"), object{"avatar_url": "mxc://test.example/bob"})
		equal(t, "the profile", alice.must("GET", at("profile", bob.userID), nil).Raw, `{"avatar_url":"mxc://test.example/bob","displayname":"Bob ✓"}`)
		equal(t, "one field", d.anybody(t).must("GET", at("profile", bob.userID, "displayname"), nil).Raw, `{"displayname":"Bob ✓"}`)
		told := make(map[string]string)
		for seen := 0; seen < 20 && len(told) < rooms; seen++ {
			answer := alice.poll(since)()
			since = answer.Get("next_batch").Str
			for _, room := range all {
				e := stateIn(roomIn(answer, "join", room), "m.room.member", bob.userID)
				if e.Get("content.avatar_url").Str == "mxc://test.example/bob" {
					told[room] = e.Get("content.displayname").Str
				}
			}
		}
		for _, room := range all {
			equal(t, "the name in a room", told[room], "Bob ✓")
		}
		room := bob.publicRoom()
		equal(t, "the name in a new room", bob.must("GET", at("rooms", room, "state", "m.room.member", bob.userID), nil).Get("displayname").Str, "Bob ✓")
		bob.must("DELETE", at("profile", bob.userID, "displayname"), nil)
		alice.refused(404, "M_NOT_FOUND", "GET", at("profile", bob.userID, "displayname"), nil)
		alice.refused(403, "M_FORBIDDEN", "PUT", at("profile", bob.userID, "displayname"), object{"displayname": "Mallory"})
		alice.refused(404, "M_NOT_FOUND", "GET", at("profile", "@nobody-here:test.example"), nil)
		bob.refused(400, "M_BAD_JSON", "PUT", at("profile", bob.userID, "displayname"), object{"displayname": 1})
		bob.refused(400, "M_MISSING_PARAM", "PUT", at("profile", bob.userID, "displayname"), object{"name": "x"})
	})
}

func TestDiscovery(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, nobody := d.user(t, "alice"), d.anybody(t)
		versions := nobody.must("GET", "/_matrix/client/versions", nil).Get("versions").Array()
		if !slices.ContainsFunc(versions, func(v gjson.Result) bool { return v.Str == "v1.11" }) {
			t.Errorf("versions: %v", versions)
		}
		capabilities := alice.must("GET", at("capabilities"), nil).Get("capabilities")
		equal(t, "the default room version", capabilities.Get(`m\.room_versions.default`).Str, string(d.config.Matrix.DefaultRoomVersion))
		equal(t, "room versions", len(capabilities.Get(`m\.room_versions.available`).Map()), 12)
		equal(t, "m.change_password", capabilities.Get(`m\.change_password.enabled`).Bool(), true)
		nobody.refused(401, "M_MISSING_TOKEN", "GET", at("capabilities"), nil)
		if a := nobody.call("GET", "/.well-known/matrix/client", nil); a.status != 404 && a.body.Get(`m\.homeserver.base_url`).Str == "" {
			t.Errorf("well-known: %d %s", a.status, a.body.Raw)
		}
		for _, base := range d.urls { // everything is served everywhere
			asked := *alice
			asked.base = base
			asked.must("GET", "/_matrix/client/versions", nil)
			asked.must("GET", at("account", "whoami"), nil)
			asked.must("GET", syncPath(""), nil)
			asked.must("GET", at("joined_rooms"), nil)
		}
		for _, path := range []string{at("sync"), at("login"), "/_matrix/client/versions", at("nothing")} {
			r := nobody.call("OPTIONS", path, nil)
			if r.status != 200 || r.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), "Authorization") ||
				!strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "PUT") {
				t.Errorf("OPTIONS %s: %d %v", path, r.status, r.header)
			}
			equal(t, fmt.Sprint("headers of ", path), nobody.call("GET", path, nil).header.Get("Access-Control-Allow-Origin"), "*")
			equal(t, fmt.Sprint("how many such headers of ", path), len(nobody.call("GET", path, nil).header.Values("Access-Control-Allow-Origin")), 1)
		}
	})
}
