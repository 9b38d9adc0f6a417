package blackbox

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Application Service API, § Server admin style permissions.
func TestAServiceRegistersAndLogsItsUsersIn(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		bot, alice := s.As(""), d.user(t, "alice")
		flows := d.anybody(t).must("GET", at("login"), nil)
		if !strings.Contains(flows.Raw, "m.login.application_service") {
			t.Errorf("GET /login: %s", flows.Raw)
		}
		silent := bot.must("POST", at("register"), registration(s.prefix+"silent"))
		equal(t, "the user", silent.Get("user_id").Str, s.user("silent"))
		if silent.Get("access_token").Exists() || silent.Get("device_id").Exists() {
			t.Errorf("a registration without a login: %s", silent.Raw)
		}
		equal(t, "devices", len(s.As(s.user("silent")).must("GET", at("devices"), nil).Get("devices").Array()), 0)
		made := bot.must("POST", at("register"), object{"type": "m.login.application_service", "username": s.prefix + "loud", "device_id": "LOUD",
			"initial_device_display_name": "loud", "refresh_token": true})
		loud := d.anybody(t)
		loud.took(made)
		equal(t, "the user's own token", whoami(loud), s.user("loud")+" LOUD false")
		if made.Get("refresh_token").Str == "" {
			t.Errorf("no refresh token: %s", made.Raw)
		}
		// Bridges tell users of other networks apart by case.
		equal(t, "a historical name", bot.must("POST", at("register"), registration(s.prefix+"Nick[m]")).Get("user_id").Str, s.user("Nick[m]"))
		equal(t, "who has it", whoami(s.As(s.user("Nick[m]"))), s.user("Nick[m]")+"  false")

		no := func(errcode string, body object) {
			t.Helper()
			bot.refused(400, errcode, "POST", at("register"), body)
		}
		no("M_USER_IN_USE", registration(s.prefix+"silent"))
		no("M_EXCLUSIVE", registration("someone-else"))
		no("M_EXCLUSIVE", registration(alice.localpart))
		no("M_MISSING_PARAM", registration(""))
		no("M_INVALID_USERNAME", registration(s.prefix+"a b"))
		no("M_INVALID_USERNAME", registration(s.prefix+"a:b"))
		no("M_INVALID_USERNAME", registration(s.prefix+"ü"))
		no("M_INVALID_USERNAME", registration(s.prefix+strings.Repeat("x", 300)))
		alice.refused(401, "M_UNKNOWN_TOKEN", "POST", at("register"), registration(s.prefix+"new"))
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "POST", at("register"), registration(s.prefix+"new"))
		bot.refused(403, "M_FORBIDDEN", "GET", at("account", "whoami")+"?user_id="+s.user("new"), nil)

		for _, name := range []string{s.prefix + "silent", s.user("silent"), s.user("Nick[m]"), s.sender} {
			c := d.anybody(t)
			c.took(bot.must("POST", at("login"), serviceLogin(name)))
			want := name
			if !strings.HasPrefix(name, "@") {
				want = s.user("silent")
			}
			equal(t, "logged in", whoami(c), want+" "+c.deviceID+" false")
			c.must("POST", at("logout"), object{})
		}
		bot.refused(403, "M_FORBIDDEN", "POST", at("login"), serviceLogin(s.prefix+"unknown"))
		bot.refused(400, "M_EXCLUSIVE", "POST", at("login"), serviceLogin(alice.userID))
		bot.refused(400, "M_EXCLUSIVE", "POST", at("login"), serviceLogin("@"+s.prefix+"x:elsewhere.example"))
		bot.refused(400, "M_MISSING_PARAM", "POST", at("login"), object{"type": "m.login.application_service"})
		alice.refused(401, "M_UNKNOWN_TOKEN", "POST", at("login"), serviceLogin(s.prefix+"silent"))
		equal(t, "the as_token after all", whoami(bot), s.sender+"  false")

		// Nobody else gets in: the account has no password, and the service does not give it one.
		d.anybody(t).refused(403, "M_FORBIDDEN", "POST", at("login"), object{"type": "m.login.password", "password": "",
			"identifier": object{"type": "m.id.user", "user": s.prefix + "silent"}})
		s.As(s.user("silent")).refused(403, "M_FORBIDDEN", "POST", at("account", "password"), object{"new_password": "long enough 1"})
		if admin := s.As(s.user("silent")).call("GET", at("admin", "whois", alice.userID), nil); admin.status != 403 {
			t.Errorf("a user of a service is an administrator: %d %s", admin.status, admin.body.Raw)
		}
	})
}

// Application Service API, § Registration: nobody else makes users or aliases of an exclusive namespace, nor removes
// them.
func TestExclusiveNamespaces(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, other := newService(t, d, nil), newService(t, d, nil)
		shared := newService(t, d, func(shared *service, registration object) {
			registration["namespaces"] = object{
				"users":   []object{{"exclusive": false, "regex": "@.*"}},
				"aliases": []object{{"exclusive": false, "regex": "#.*"}},
			}
		})
		alice, nobody := d.user(t, "alice"), d.anybody(t)
		no := func(c *client, method, path string, body object) {
			t.Helper()
			c.refused(400, "M_EXCLUSIVE", method, path, body)
		}
		for _, name := range []string{s.prefix + "x", strings.ToUpper(s.prefix) + "x", s.prefix + "bot"} {
			no(nobody, "GET", at("register", "available")+"?username="+name, nil)
			no(nobody, "POST", at("register"), object{"username": name, "password": "long enough 1", "auth": object{"type": "m.login.dummy"}})
			no(nobody, "POST", at("register"), object{"username": name})
		}
		for _, c := range []*service{other, shared} {
			no(c.As(""), "POST", at("register"), registration(s.prefix+"x"))
		}
		s.ghost("x")

		room := alice.publicRoom()
		bot := s.As("")
		alias := func(name string) string { return fmt.Sprintf("#%s%s:test.example", s.prefix, name) }
		body := object{"room_id": room}
		for _, c := range []*client{alice, other.As(""), shared.As("")} {
			no(c, "PUT", at("directory", "room", alias("x")), body)
			no(c, "POST", at("createRoom"), object{"room_alias_name": s.prefix + "x"})
		}
		nobody.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", alias("x")), nil)
		// A service has full control over its aliases, and those of its namespaces only.
		bot.must("PUT", at("directory", "room", alias("x")), body)
		no(bot, "PUT", at("directory", "room", "#other"+s.prefix+":test.example"), body)
		no(bot, "POST", at("createRoom"), object{"room_alias_name": "other" + s.prefix})
		no(alice, "DELETE", at("directory", "room", alias("x")), nil)
		no(other.As(""), "DELETE", at("directory", "room", alias("x")), nil)
		alice.setState(room, "m.room.canonical_alias", "", object{"alias": alias("x")})
		s.As(s.user("x")).must("DELETE", at("directory", "room", alias("x")), nil)
		nobody.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", alias("x")), nil)
		bot.createRoom(object{"room_alias_name": s.prefix + "own"})
		nobody.must("GET", at("directory", "room", alias("own")), nil)

		// A namespace that is not exclusive takes nothing from anybody.
		free := "#free" + shared.prefix + ":test.example"
		alice.must("PUT", at("directory", "room", free), body)
		shared.As("").must("DELETE", at("directory", "room", free), nil)
		equal(t, "a user of everybody", whoami(shared.As(alice.userID)), alice.userID+"  false")
		shared.As(alice.userID).refused(403, "M_FORBIDDEN", "POST", at("account", "deactivate"), object{})
		equal(t, "who may not be deactivated", whoami(alice), alice.userID+" "+alice.deviceID+" false")
	})
}

// A service whose namespace has everybody acts as everybody. It is no administrator by that, nor the user who sends the
// server's notices.
func TestAServiceOfEverybodyIsNoAdministrator(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		shared := newService(t, d, func(_ *service, registration object) {
			registration["namespaces"] = object{"users": []object{{"exclusive": false, "regex": "@.*"}}}
		})
		admin, alice, bot := d.admin(t), d.user(t, "alice"), shared.As("")
		notice := object{"user_id": alice.userID, "content": object{"msgtype": "m.server_notice", "body": "hello"}}
		admin.must("POST", noticePath, notice)
		sender := d.config.Matrix.ServerNotices.Localpart
		for _, name := range []string{sender, "@" + sender + ":test.example", "@a\x00b:test.example", "@a:b:test.example",
			"@" + strings.Repeat("x", 300) + ":test.example"} {
			bot.refused(400, "M_EXCLUSIVE", "POST", at("login"), serviceLogin(name))
		}
		shared.As("@"+sender+":test.example").refused(403, "M_FORBIDDEN", "GET", at("account", "whoami"), nil)

		session, login := d.anybody(t), serviceLogin(admin.userID)
		login["refresh_token"] = true
		made := bot.must("POST", at("login"), login)
		session.took(made)
		refreshed := d.anybody(t)
		refreshed.took(made)
		refreshed.token = refreshed.must("POST", at("refresh"), object{"refresh_token": made.Get("refresh_token").Str}).Get("access_token").Str
		for _, c := range []*client{shared.As(admin.userID), session, refreshed} {
			equal(t, "who acts", c.must("GET", at("account", "whoami"), nil).Get("user_id").Str, admin.userID)
			c.refused(403, "M_FORBIDDEN", "GET", at("admin", "whois", alice.userID), nil)
			c.refused(403, "M_FORBIDDEN", "POST", noticePath, notice)
			c.refused(403, "M_FORBIDDEN", "PUT", v1("admin", "suspend", alice.userID), object{"suspended": true})
		}
		admin.must("GET", at("admin", "whois", alice.userID), nil)
	})
}

// Application Service API, § Published room directories.
func TestDirectoriesOfNetworks(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, other, alice := newService(t, d, nil), newService(t, d, nil), d.user(t, "alice")
		word := s.prefix + "rooms"
		room := func(name string, visibility string) string {
			return alice.createRoom(object{"preset": "public_chat", "name": word + name, "visibility": visibility})
		}
		own, bridged, both := room("own", "public"), room("bridged", "private"), room("both", "public")
		network := "irc" + s.prefix
		publish := func(c *service, network, room, visibility string) {
			t.Helper()
			c.As("").must("PUT", at("directory", "list", "appservice", network, room), object{"visibility": visibility})
		}
		publish(s, network, bridged, "public")
		publish(s, network, bridged, "public")
		publish(s, network, both, "public")
		publish(other, network, own, "public")
		publish(s, "xmpp", own, "public")
		list := func(what string, with object, rooms ...string) {
			t.Helper()
			with["filter"] = object{"generic_search_term": word}
			found := alice.must("POST", at("publicRooms"), with)
			got := found.Get("chunk.#.room_id").Raw
			for _, room := range rooms {
				if !strings.Contains(got, room) {
					t.Errorf("%s: %s lacks %s", what, got, room)
				}
			}
			equal(t, what, len(found.Get("chunk").Array()), len(rooms))
			equal(t, what+", counted", found.Get("total_room_count_estimate").Int(), int64(len(rooms)))
		}
		list("the server's own", object{}, own, both)
		list("all", object{"include_all_networks": true}, own, both, bridged)
		list("a network of a service", object{"third_party_instance_id": s.id + "|" + network}, both, bridged)
		list("a network of any service", object{"third_party_instance_id": network}, own, both, bridged)
		list("another network", object{"third_party_instance_id": s.id + "|xmpp"}, own)
		list("no network", object{"third_party_instance_id": "none"})
		publish(s, network, both, "private")
		s.As("").must("DELETE", at("directory", "list", "appservice", network, bridged), nil)
		list("less of a network", object{"third_party_instance_id": s.id + "|" + network})
		list("the server's own after that", object{}, own, both)

		path := at("directory", "list", "appservice", network, own)
		alice.refused(403, "M_FORBIDDEN", "PUT", path, object{"visibility": "public"})
		alice.refused(403, "M_FORBIDDEN", "DELETE", path, nil)
		bot := s.As("")
		bot.refused(400, "M_MISSING_PARAM", "PUT", path, object{})
		bot.refused(400, "M_INVALID_PARAM", "PUT", path, object{"visibility": "x"})
		bot.refused(404, "M_NOT_FOUND", "PUT", at("directory", "list", "appservice", network, "!none:test.example"), object{"visibility": "public"})
		bot.refused(400, "M_INVALID_PARAM", "PUT", at("directory", "list", "appservice", strings.Repeat("x", 256), own), object{"visibility": "public"})
		alice.refused(400, "M_INVALID_PARAM", "POST", at("publicRooms"), object{"include_all_networks": true, "third_party_instance_id": network})

		// An upgrade takes a room's place.
		upgraded := alice.must("POST", at("rooms", own, "upgrade"), object{"new_version": "12"}).Get("replacement_room").Str
		list("after an upgrade", object{"third_party_instance_id": s.id + "|xmpp"}, upgraded)
	})
}

// A service sees the members of the rooms that one of its users is in (GET /rooms/{roomId}/joined_members).
func TestJoinedMembersForAService(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		s, alice := newService(t, d, nil), d.user(t, "alice")
		room := alice.publicRoom()
		path := at("rooms", room, "joined_members")
		s.As("").refused(403, "M_FORBIDDEN", "GET", path, nil)
		ghost := s.ghost("ghost")
		ghost.join(room)
		equal(t, "members", len(s.As("").must("GET", path, nil).Get("joined").Map()), 2)
		d.user(t, "bob").refused(403, "M_FORBIDDEN", "GET", path, nil)
		ghost.must("POST", at("rooms", room, "leave"), object{})
		s.As("").refused(403, "M_FORBIDDEN", "GET", path, nil)
	})
}

// An operator may make an account that is a service's, and is told so.
func TestTheToolWarnsOfAUserOfAService(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		for name, warns := range map[string]bool{s.prefix + "made": true, "made" + s.prefix: false} {
			out, err := exec.Command(path, "create-account", "--config", d.file, "--username", name).CombinedOutput()
			if err != nil || strings.Contains(string(out), "Warning: @"+name+":test.example is a user of an application service") != warns {
				t.Errorf("create-account %s: %v %s", name, err, out)
			}
		}
		equal(t, "the service's user", whoami(s.As(s.user("made"))), s.user("made")+"  false")
	})
}
