package blackbox

import (
	"net/url"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/test/deploy"
)

// on is a client of the same service that acts as a user on a device, or as whatever it says.
func (c *client) on(parameters ...string) *client {
	other := *c
	other.as = url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		other.as.Set(parameters[i], parameters[i+1])
	}
	return &other
}

func whoami(c *client) string {
	c.t.Helper()
	who := c.must("GET", at("account", "whoami"), nil)
	return who.Get("user_id").Str + " " + who.Get("device_id").Str + " " + who.Get("is_guest").Raw
}

func registration(username string) object {
	return object{"type": "m.login.application_service", "username": username, "inhibit_login": true}
}

func serviceLogin(user string) object {
	return object{"type": "m.login.application_service", "identifier": object{"type": "m.id.user", "user": user}}
}

// Application Service API, § Identity assertion: on every endpoint of every component.
func TestAServiceActsAsItsUsers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, other, alice, admin := newService(t, d, nil), newService(t, d, nil), d.user(t, "alice"), d.admin(t)
		bot, sync := s.As(""), at("sync")
		// Its own user is there from its first request on; a bridge registers it all the same.
		equal(t, "the service's own user", whoami(bot), s.sender+"  false")
		equal(t, "the service's own user by name", whoami(s.As(s.sender)), s.sender+"  false")
		bot.refused(400, "M_USER_IN_USE", "POST", at("register"), registration(s.prefix+"bot"))

		for _, path := range []string{at("account", "whoami"), sync} {
			s.As(s.user("unknown")).everywhere(403, "M_FORBIDDEN", "GET", path, nil)
			for _, user := range []string{alice.userID, other.sender, s.user("x") + "x", "@" + s.prefix + "x:elsewhere.example", s.prefix + "x", "x", "@:test.example"} {
				s.As(user).everywhere(403, "M_FORBIDDEN", "GET", path, nil)
			}
		}
		ghost := s.ghost("ghost")
		ghost.everywhere(200, "", "GET", at("account", "whoami"), nil)
		equal(t, "a user of the service", whoami(ghost), ghost.userID+"  false")
		other.As(ghost.userID).everywhere(403, "M_FORBIDDEN", "GET", at("account", "whoami"), nil)
		room := ghost.publicRoom()
		ghost.everywhere(200, "", "GET", sync, nil)
		equal(t, "rooms of the user", ghost.must("GET", at("joined_rooms"), nil).Get("joined_rooms.0").Str, room)
		equal(t, "rooms of the service's own user", len(bot.must("GET", at("joined_rooms"), nil).Get("joined_rooms").Array()), 0)
		// Bridges of mautrix look for these before they set them.
		for _, key := range []string{"displayname", "avatar_url"} {
			equal(t, "a user's "+key+" that is not set", ghost.must("GET", at("profile", ghost.userID, key), nil).Raw, "{}")
			alice.refused(404, "M_NOT_FOUND", "GET", at("profile", ghost.userID, key), nil)
		}
		ghost.must("PUT", at("profile", ghost.userID, "displayname"), object{"displayname": "Casper"})
		equal(t, "the sender", alice.on().must("GET", at("profile", ghost.userID, "displayname"), nil).Get("displayname").Str, "Casper")

		// Who is no service is who their token says.
		equal(t, "a user who names another", whoami(alice.on("user_id", ghost.userID, "device_id", "NONE")), alice.userID+" "+alice.deviceID+" false")

		admin.must("PUT", v1("admin", "suspend", ghost.userID), object{"suspended": true})
		ghost.everywhere(403, "M_USER_SUSPENDED", "POST", at("createRoom"), object{})
		admin.must("PUT", v1("admin", "suspend", ghost.userID), object{"suspended": false})
		ghost.everywhere(200, "", "POST", at("createRoom"), object{})
		admin.must("PUT", v1("admin", "lock", ghost.userID), object{"locked": true})
		ghost.everywhere(401, "M_USER_LOCKED", "GET", sync, nil)
		admin.must("PUT", v1("admin", "lock", ghost.userID), object{"locked": false})
		ghost.everywhere(200, "", "GET", sync, nil)
		ghost.must("POST", at("account", "deactivate"), object{})
		ghost.everywhere(403, "M_USER_DEACTIVATED", "GET", sync, nil)
		bot.refused(400, "M_USER_IN_USE", "POST", at("register"), registration(s.prefix+"ghost"))
	})
}

func TestNoTokenIsOfAService(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		for token, errcode := range map[string]string{"": "M_MISSING_TOKEN", " ": "M_MISSING_TOKEN", s.token + "x": "M_UNKNOWN_TOKEN",
			strings.ToLower(s.token): "M_UNKNOWN_TOKEN", s.registration["hs_token"].(string): "M_UNKNOWN_TOKEN"} {
			c := s.As("")
			c.token = token
			c.refused(401, errcode, "GET", at("account", "whoami"), nil)
			c.refused(401, errcode, "GET", at("sync"), nil)
			c.refused(401, errcode, "POST", at("register"), registration(s.prefix+"x"))
			c.refused(401, errcode, "POST", at("login"), serviceLogin(s.prefix+"bot"))
		}
	})
}

// The token of a service that is no more dies with its registration, on all replicas.
func TestATokenEndsWithItsRegistration(t *testing.T) {
	for _, k := range []deploy.Kind{monolithSQLite, polylith} {
		t.Run(string(k), func(t *testing.T) {
			var o deploy.Options
			if k == polylith {
				o.Replicas = []string{"clientapi", "syncapi"}
			}
			d := deployed(deploy.Own(t, k, o))
			s := unregistered(t, d)
			s.register(s.registration)
			ghost := s.ghost("ghost")
			alice := d.user(t, "alice")
			for _, path := range []string{at("account", "whoami"), at("sync")} {
				ghost.everywhere(200, "", "GET", path, nil)
			}
			// Other users are its from now on, and these are not.
			s.registration["namespaces"] = object{"users": []object{{"exclusive": true, "regex": "@" + s.prefix + "new.*"}}}
			s.register(s.registration)
			for _, path := range []string{at("account", "whoami"), at("sync")} {
				ghost.everywhere(403, "M_FORBIDDEN", "GET", path, nil)
				s.As("").everywhere(200, "", "GET", path, nil)
			}
			if err := d.Register(s.id, ""); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{at("account", "whoami"), at("sync")} {
				s.As("").everywhere(401, "M_UNKNOWN_TOKEN", "GET", path, nil)
				alice.everywhere(200, "", "GET", path, nil)
			}
			s.As("").refused(401, "M_UNKNOWN_TOKEN", "POST", at("register"), registration(s.prefix+"x"))
		})
	}
}

// MSC4326 and MSC4190: devices that a service makes and acts on.
func TestDevicesOfAService(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, func(_ *service, registration object) { registration["io.element.msc4190"] = true })
		alice, ghost := d.user(t, "alice"), s.ghost("ghost")
		bot := s.As("")
		named := func(name string) object { return object{"display_name": name} }
		put := func(c *client, device string, body object, want int) {
			t.Helper()
			if a := c.call("PUT", at("devices", device), body); a.status != want || a.body.Raw != "{}" {
				t.Errorf("PUT /devices/%s: %d %s, want %d", device, a.status, a.body.Raw, want)
			}
		}
		put(ghost, "DEVICE", named("bridge"), 201)
		put(ghost, "DEVICE", named("bridge 2"), 200)
		put(ghost, "DEVICE", object{}, 200) // leaves the name
		put(ghost, "OTHER", object{}, 201)
		equal(t, "the name", ghost.must("GET", at("devices", "DEVICE"), nil).Get("display_name").Str, "bridge 2")
		equal(t, "devices", len(ghost.must("GET", at("devices"), nil).Get("devices").Array()), 2)
		alice.refused(404, "M_NOT_FOUND", "PUT", at("devices", "NEW"), named("x"))
		ghost.refused(400, "M_INVALID_PARAM", "PUT", at("devices", "LONG"), named(strings.Repeat("x", 300)))
		bot.refused(404, "M_NOT_FOUND", "GET", at("devices", "DEVICE"), nil)

		on := ghost.on("user_id", ghost.userID, "device_id", "DEVICE")
		both := ghost.on("user_id", ghost.userID, "device_id", "DEVICE", "org.matrix.msc3202.device_id", "DEVICE")
		older := ghost.on("user_id", ghost.userID, "org.matrix.msc3202.device_id", "DEVICE")
		for _, c := range []*client{on, both, older} {
			equal(t, "on a device", whoami(c), ghost.userID+" DEVICE false")
			c.everywhere(200, "", "GET", at("sync"), nil)
		}
		for _, path := range []string{at("account", "whoami"), at("sync")} {
			ghost.on("user_id", ghost.userID, "device_id", "NONE").everywhere(400, "M_UNKNOWN_DEVICE", "GET", path, nil)
			bot.on("org.matrix.msc3202.device_id", "DEVICE").everywhere(400, "M_UNKNOWN_DEVICE", "GET", path, nil)
			bot.on("device_id", strings.Repeat("x", 3000)).everywhere(400, "M_UNKNOWN_DEVICE", "GET", path, nil)
		}
		put(bot, "BOT", named("bot"), 201)
		equal(t, "the service's own device", whoami(bot.on("device_id", "BOT")), s.sender+" BOT false")

		// No token is made, and none is needed.
		bot.refused(400, "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED", "POST", at("login"), serviceLogin(s.prefix+"ghost"))
		bot.refused(400, "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED", "POST", at("register"),
			object{"type": "m.login.application_service", "username": s.prefix + "new"})
		bot.must("POST", at("register"), registration(s.prefix+"new"))

		// Keys are a device's. Those of cross-signing are replaced, and devices deleted, without a password.
		upload := object{"one_time_keys": object{}}
		ghost.refused(400, "M_MISSING_PARAM", "POST", at("keys", "upload"), upload)
		on.must("POST", at("keys", "upload"), upload)
		for range 2 {
			ghost.must("POST", at("keys", "device_signing", "upload"), ghost.crossSigning().upload())
		}
		ghost.must("DELETE", at("devices", "OTHER"), nil)
		on.everywhere(200, "", "GET", at("account", "whoami"), nil)
		ghost.must("POST", at("delete_devices"), object{"devices": []string{"DEVICE"}})
		on.everywhere(400, "M_UNKNOWN_DEVICE", "GET", at("account", "whoami"), nil)
		equal(t, "devices in the end", len(ghost.must("GET", at("devices"), nil).Get("devices").Array()), 0)
		put(ghost, "DEVICE", named("again"), 201)
		on.everywhere(200, "", "GET", at("sync"), nil)

		// To log out ends a device, and never the service's own token.
		on.must("POST", at("logout"), object{})
		on.everywhere(400, "M_UNKNOWN_DEVICE", "GET", at("account", "whoami"), nil)
		ghost.refused(403, "M_FORBIDDEN", "POST", at("logout"), object{})
		ghost.must("POST", at("logout", "all"), object{})
		equal(t, "after logging out everywhere", whoami(ghost), ghost.userID+"  false")
		bot.on("device_id", "BOT").must("POST", at("logout"), object{})
		equal(t, "after the service's own device is gone", whoami(bot), s.sender+"  false")
	})
}

// A user of a service syncs with a device, for what is sent to it, and without one.
func TestUsersOfAServiceSync(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, alice := newService(t, d, nil), d.user(t, "alice")
		bot := s.As("")
		if a := bot.call("PUT", at("devices", "BOT"), object{}); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body.Raw)
		}
		device := bot.on("device_id", "BOT")
		room := alice.publicRoom()
		bot.join(room)
		with, without := device.sync("").Get("next_batch").Str, bot.sync("").Get("next_batch").Str
		alice.must("PUT", at("sendToDevice", "m.dummy", alice.txn()), object{"messages": object{s.sender: object{"BOT": object{"a": 1}}}})
		alice.say(room, "hello")
		got := ""
		for range 5 { // the message and the event come in any order
			next := device.sync(with, "timeout", "10000")
			with = next.Get("next_batch").Str
			got += next.Get("to_device.events.#.type").Raw + strings.Join(bodies(roomIn(next, "join", room).Get("timeline.events")), " ")
			if strings.Contains(got, "m.dummy") && strings.Contains(got, "hello") {
				break
			}
		}
		if !strings.Contains(got, "m.dummy") || !strings.Contains(got, "hello") {
			t.Errorf("a device gets %s", got)
		}
		bare := bot.sync(without, "timeout", "10000")
		if len(bare.Get("to_device.events").Array()) > 0 || !strings.Contains(bare.Raw, `"hello"`) {
			t.Errorf("without a device: %s", bare.Raw)
		}
		bot.must("POST", at("user", s.sender, "filter"), object{"room": object{"timeline": object{"limit": 1}}})
		bot.must("PUT", at("user", s.sender, "account_data", "m.x"), object{"a": 1})

		// That a service asks for something sets nobody online. It says so.
		status := at("presence", s.sender, "status")
		alice.sync("")
		equal(t, "presence after syncs", alice.must("GET", status, nil).Get("presence").Str, "offline")
		bot.must("PUT", status, object{"presence": "unavailable", "status_msg": "away"})
		equal(t, "presence that is set", alice.must("GET", status, nil).Get("status_msg").Str, "away")
	})
}
