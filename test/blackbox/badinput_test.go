package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// endpoint is one that reads a body.
type endpoint struct {
	method, path string
	// wrong is a body whose types are wrong; none where any object will do.
	wrong string
}

// bodied lists one endpoint or more of each family that reads a body, for a user in a room.
func bodied(c *client, room, event string) []endpoint {
	v1 := func(path string) string { return "/_matrix/client/v1/" + path }
	return []endpoint{
		{"POST", at("register"), `{"username":1}`},
		{"POST", at("login"), `{"type":[]}`},
		{"POST", at("refresh"), `{"refresh_token":{}}`},
		{"POST", v1("login/get_token"), `{"auth":"x"}`},
		{"POST", at("account", "password"), `{"new_password":["x"]}`},
		{"POST", at("account", "deactivate"), `{"erase":"yes"}`},
		{"PUT", at("devices", c.deviceID), `{"display_name":{}}`},
		{"DELETE", at("devices", c.deviceID), `{"auth":"x"}`},
		{"POST", at("delete_devices"), `{"devices":"x"}`},
		{"PUT", at("profile", c.userID, "displayname"), `{"displayname":{}}`},
		{"POST", at("keys", "upload"), `{"one_time_keys":[]}`},
		{"POST", at("keys", "query"), `{"device_keys":[]}`},
		{"POST", at("keys", "claim"), `{"one_time_keys":{"@x:y":1}}`},
		{"POST", at("keys", "device_signing", "upload"), `{"master_key":1}`},
		{"POST", at("keys", "signatures", "upload"), `{"@x:y":1}`},
		{"POST", at("user_directory", "search"), `{"search_term":1}`},
		{"POST", at("createRoom"), `{"invite":"x"}`},
		{"POST", at("createRoom"), `{"initial_state":{}}`},
		{"POST", at("createRoom"), `{"creation_content":[]}`},
		{"POST", at("createRoom"), `{"is_direct":"yes"}`},
		{"POST", at("join", room), `{"reason":1}`},
		{"POST", at("rooms", room, "join"), `{"reason":[]}`},
		{"POST", at("rooms", room, "invite"), `{"user_id":1}`},
		{"POST", at("rooms", room, "leave"), `{"reason":{}}`},
		{"POST", at("rooms", room, "kick"), `{"user_id":["x"]}`},
		{"POST", at("rooms", room, "ban"), `{"user_id":{}}`},
		{"POST", at("rooms", room, "unban"), `{"user_id":true}`},
		{"PUT", at("rooms", room, "send", "m.room.message", "bad"), ""},
		{"PUT", at("rooms", room, "redact", event, "bad"), ""},
		{"PUT", at("rooms", room, "state", "m.room.topic"), ""},
		{"PUT", at("rooms", room, "state", "m.room.canonical_alias"), `{"alias":1}`},
		{"PUT", at("rooms", room, "typing", c.userID), `{"typing":"yes"}`},
		{"PUT", at("rooms", room, "typing", c.userID), `{"typing":true,"timeout":"long"}`},
		{"POST", at("rooms", room, "read_markers"), `{"m.read":1}`},
		{"POST", at("rooms", room, "receipt", "m.read", event), ""},
		{"POST", at("publicRooms"), `{"limit":"many"}`},
		{"POST", at("publicRooms"), `{"filter":"x"}`},
		{"PUT", at("directory", "room", "#bad:test.example"), `{"room_id":1}`},
		{"PUT", at("directory", "list", "room", room), `{"visibility":1}`},
		{"POST", at("user", c.userID, "filter"), `{"room":1}`},
		{"PUT", at("user", c.userID, "account_data", "x.bad"), ""},
		{"PUT", at("user", c.userID, "rooms", room, "account_data", "x.bad"), ""},
		{"PUT", at("user", c.userID, "rooms", room, "tags", "u.bad"), `{"order":"x"}`},
		{"PUT", at("pushrules", "global", "content", "bad"), `{"pattern":1,"actions":[]}`},
		{"PUT", at("pushrules", "global", "underride", ".m.rule.message", "enabled"), `{"enabled":1}`},
		{"PUT", at("pushrules", "global", "underride", ".m.rule.message", "actions"), `{"actions":"x"}`},
	}
}

// snapshot is what a user sees of everything: what refused requests must not change.
func (c *client) snapshot(room string) string {
	c.t.Helper()
	all := c.sync("", "full_state", "true").Value().(map[string]any)
	delete(all, "next_batch")
	walk(all)
	text, err := json.Marshal(all)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text) + c.must("GET", at("profile", c.userID), nil).Raw + c.must("GET", at("joined_rooms"), nil).Raw +
		c.must("GET", at("directory", "list", "room", room), nil).Raw
}

// walk removes what changes with time.
func walk(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "age")
		for _, inner := range v {
			walk(inner)
		}
	case []any:
		for _, inner := range v {
			walk(inner)
		}
	}
}

func TestBadBodies(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		event := alice.say(room, "x")
		before := alice.snapshot(room)
		deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
		for _, e := range bodied(alice, room, event) {
			for name, body := range map[string]string{"cut off": `{"a":`, "no JSON": `nonsense`, "two values": `{} {}`, "trailing comma": `{"a":1,}`,
				"single quotes": `{'a':1}`, "a number such as nobody writes": `{"a":01}`, "an infinity": `{"a":Infinity}`} {
				a := alice.call(e.method, e.path, []byte(body))
				if a.status != 400 || a.errcode() != "M_NOT_JSON" {
					t.Errorf("%s %s with %s: %d %s", e.method, e.path, name, a.status, a.body.Raw)
				}
			}
			for name, body := range map[string]string{"an invalid byte": "{\"a\":\"\xff\"}", "half a character": "{\"a\":\"\xc3\"}", "an encoded surrogate": "{\"a\":\"\xed\xa0\x80\"}"} {
				a := alice.call(e.method, e.path, []byte(body))
				if a.status != 400 || a.errcode() != "M_NOT_JSON" && a.errcode() != "M_BAD_JSON" {
					t.Errorf("%s %s with %s: %d %s", e.method, e.path, name, a.status, a.body.Raw)
				}
			}
			for name, body := range map[string]string{"an array": `[]`, "a string": `"x"`, "a number": `1`, "null": `null`, "deep nesting": deep} {
				a := alice.call(e.method, e.path, []byte(body))
				if a.status != 400 || a.errcode() != "M_BAD_JSON" {
					t.Errorf("%s %s with %s: %d %s", e.method, e.path, name, a.status, a.body.Raw)
				}
			}
			if e.wrong != "" {
				alice.refused(400, "M_BAD_JSON", e.method, e.path, []byte(e.wrong))
			}
		}
		for _, kept := range []struct{ method, path string }{
			{"PUT", at("rooms", room, "send", "m.room.message", "none")}, {"PUT", at("rooms", room, "state", "m.room.topic")},
			{"PUT", at("user", alice.userID, "account_data", "x.none")}, {"POST", at("user", alice.userID, "filter")},
		} {
			alice.refused(400, "M_NOT_JSON", kept.method, kept.path, nil)
			alice.refused(400, "M_NOT_JSON", kept.method, kept.path, []byte(" \n"))
		}
		alice.refused(400, "M_MISSING_PARAM", "POST", at("search"), object{})
		if after := alice.snapshot(room); after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
	})
}

func TestOversizedBodies(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		event := alice.say(room, "x")
		before := alice.snapshot(room)
		huge := []byte(`{"a":"` + strings.Repeat("x", 2<<20) + `"}`)
		for _, e := range bodied(alice, room, event) {
			alice.refused(413, "M_TOO_LARGE", e.method, e.path, huge)
		}
		// A body whose length is not announced is no way around.
		alice.refused(413, "M_TOO_LARGE", "PUT", at("user", alice.userID, "account_data", "x.bad"), struct{ *bytes.Reader }{bytes.NewReader(huge)})

		// An event has 64 KiB at most, whatever makes it so large.
		for _, size := range []int{65_536, 70_000, 900_000} {
			alice.refused(413, "M_TOO_LARGE", "PUT", at("rooms", room, "send", "m.room.message", "large"), text(strings.Repeat("x", size)))
			alice.refused(413, "M_TOO_LARGE", "PUT", at("rooms", room, "state", "m.room.topic"), object{"topic": strings.Repeat("x", size)})
		}
		for name, path := range map[string]string{
			"type":      at("rooms", room, "send", strings.Repeat("x", 256), "1"),
			"state key": at("rooms", room, "state", "x.bad", strings.Repeat("x", 256)),
		} {
			if a := alice.call("PUT", path, object{}); a.status != 400 && a.status != 413 {
				t.Errorf("a %s of 256 bytes: %d %s", name, a.status, a.body.Raw)
			}
		}
		if after := alice.snapshot(room); after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
		alice.send(room, "m.room.message", text(strings.Repeat("x", 60_000)))
		alice.send(room, strings.Repeat("x", 255), object{})
		alice.refused(413, "M_TOO_LARGE", "POST", at("createRoom"), object{"topic": strings.Repeat("x", 70_000)})
	})
}

// Rooms of version 6 and newer have integers that every language can hold, and nothing else (§ Canonical JSON).
func TestNumbersInEvents(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		for version := 1; version <= 12; version++ {
			room := alice.createRoom(object{"preset": "public_chat", "room_version": fmt.Sprint(version)})
			event := alice.say(room, "x")
			since := alice.now()
			sent := 0
			for _, number := range []string{"1.5", "1e-3", "9007199254740992", "-9007199254740992", "123456789012345678901234567890", "1e400"} {
				content := []byte(`{"a":{"b":[` + number + `]}}`)
				for _, path := range []string{at("rooms", room, "send", "x.test", alice.txn()), at("rooms", room, "state", "x.test", number), at("rooms", room, "redact", event, alice.txn())} {
					a := alice.call("PUT", path, content)
					switch {
					case version >= 6 && (a.status != 400 || a.errcode() != "M_BAD_JSON"):
						t.Errorf("version %d takes %s: %d %s", version, number, a.status, a.body.Raw)
					case version < 6 && number == "1.5" && a.status != 200:
						t.Errorf("version %d refuses %s: %d %s", version, number, a.status, a.body.Raw)
					case a.status >= 500:
						t.Errorf("version %d and %s: %d %s", version, number, a.status, a.body.Raw)
					case a.status == 200:
						sent++
					}
				}
			}
			timeline := roomIn(alice.sync(since, timelineOf(object{"limit": 100})...), "join", room).Get("timeline.events").Array()
			equal(t, fmt.Sprint("events in version ", version), len(timeline), sent)
			for _, number := range []string{"9007199254740991", "-9007199254740991", "0"} {
				id := alice.must("PUT", at("rooms", room, "send", "x.test", alice.txn()), []byte(`{"a":`+number+`}`)).Get("event_id").Str
				equal(t, "a number", alice.must("GET", at("rooms", room, "event", id), nil).Get("content.a").Raw, number)
			}
		}
		// The same for what makes a room.
		for _, body := range []string{`{"initial_state":[{"type":"x.test","content":{"a":1.5}}]}`, `{"creation_content":{"a":9007199254740992}}`,
			`{"power_level_content_override":{"users_default":0.5}}`} {
			if a := alice.call("POST", at("createRoom"), []byte(body)); a.status != 400 || a.errcode() != "M_BAD_JSON" && a.errcode() != "M_INVALID_ROOM_STATE" {
				t.Errorf("createRoom with %s: %d %s", body, a.status, a.body.Raw)
			}
		}
		equal(t, "rooms", len(alice.must("GET", at("joined_rooms"), nil).Get("joined_rooms").Array()), 12)
	})
}

func TestWithoutAToken(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, nobody, liar := d.user(t, "alice"), d.anybody(t), d.anybody(t)
		liar.token = "dat_nonsense"
		room := alice.createRoom(object{"preset": "private_chat"})
		event := alice.say(room, "x")
		reading := []endpoint{{"GET", at("sync"), ""}, {"GET", at("account", "whoami"), ""}, {"GET", at("devices"), ""}, {"GET", at("joined_rooms"), ""},
			{"GET", at("rooms", room, "messages") + "?dir=b", ""}, {"GET", at("rooms", room, "state"), ""}, {"GET", at("rooms", room, "event", event), ""},
			{"GET", at("rooms", room, "members"), ""}, {"GET", at("pushrules") + "/", ""}, {"GET", at("user", alice.userID, "account_data", "x"), ""},
			{"POST", at("logout"), ""}, {"POST", at("logout", "all"), ""}}
		for _, e := range append(reading, bodied(alice, room, event)...) {
			open := []string{at("register"), at("login"), at("refresh"), at("account", "password"), at("account", "deactivate")}
			if contains(open, e.path) {
				continue
			}
			nobody.refused(401, "M_MISSING_TOKEN", e.method, e.path, object{})
			a := liar.refused(401, "M_UNKNOWN_TOKEN", e.method, e.path, object{})
			if a.body.Get("soft_logout").Bool() {
				t.Errorf("%s %s: a token that never was is a soft logout", e.method, e.path)
			}
		}
		liar.refused(401, "M_UNKNOWN_TOKEN", "POST", at("account", "password"), object{})
		liar.refused(401, "M_UNKNOWN_TOKEN", "GET", at("sync")+"?access_token=other", nil)
		nobody.refused(401, "M_UNKNOWN_TOKEN", "GET", at("sync")+"?access_token=other", nil)
		equal(t, "a token in the query", nobody.must("GET", at("account", "whoami")+"?access_token="+alice.token, nil).Get("user_id").Str, alice.userID)
		for _, header := range []string{"Basic eDp5", "Bearer", "Bearer ", alice.token, "bearer"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", d.url()+at("account", "whoami"), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", header)
			response, err := alice.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			equal(t, fmt.Sprintf("with the header %q", header), response.StatusCode, 401)
		}
	})
}

func TestUnknownPathsAndMethods(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for _, base := range d.urls {
			asked := *alice
			asked.base = base
			for _, path := range []string{"/", "/nothing", "/_matrix", "/_matrix/client", "/_matrix/client/v3", at("nothing"), at("sync", "more"), at("rooms", room),
				at("rooms", room, "nothing"), "/_matrix/client/v99/sync", "/_matrix/client/v3//sync", "/_matrix/media/v3/nothing",
				"/_matrix/federation/v1/nothing", "/_matrix/key/v2/nothing", at("user", alice.userID, "nothing"), at("pushrules", "device") + "/",
				"/_synapse/nothing", "/_matrix/client/v3/../v3/nothing"} {
				asked.refused(404, "M_UNRECOGNIZED", "GET", path, nil)
			}
			for path, methods := range map[string][]string{
				at("sync"):                             {"POST", "PUT", "DELETE", "PATCH"},
				at("login"):                            {"PUT", "DELETE"},
				at("createRoom"):                       {"GET", "PUT", "DELETE"},
				at("rooms", room, "state"):             {"PUT", "POST", "DELETE"},
				at("rooms", room, "send", "x", "1"):    {"GET", "POST", "DELETE"},
				at("rooms", room, "receipt", "x", "y"): {"GET", "PUT"},
				at("account", "whoami"):                {"POST", "PUT"},
				at("user", alice.userID, "filter"):     {"GET", "PUT", "DELETE"},
				at("profile", alice.userID):            {"POST", "PATCH"},
				"/_matrix/client/versions":             {"POST", "DELETE"},
			} {
				for _, method := range methods {
					asked.refused(405, "M_UNRECOGNIZED", method, path, object{})
				}
			}
		}
	})
}

func TestBadIDs(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		event := alice.say(room, "x")
		before := alice.snapshot(room)
		long := strings.Repeat("x", 300)
		for _, bad := range []string{"nonsense", "#alias:test.example", "@user:test.example", "!", "!" + long + ":test.example", "!a\x00:test.example", "%", ".."} {
			for _, e := range []endpoint{
				{"GET", at("rooms", bad, "state"), ""}, {"GET", at("rooms", bad, "messages") + "?dir=b", ""}, {"PUT", at("rooms", bad, "send", "x.test", "1"), ""},
				{"POST", at("rooms", bad, "join"), ""}, {"POST", at("rooms", bad, "leave"), ""}, {"POST", at("rooms", bad, "receipt", "m.read", event), ""},
				{"PUT", at("user", alice.userID, "rooms", bad, "account_data", "x.bad"), ""}, {"GET", at("rooms", bad, "members"), ""},
				{"PUT", at("rooms", bad, "typing", alice.userID), ""}, {"GET", at("directory", "list", "room", bad), ""},
			} {
				a := alice.call(e.method, e.path, object{"typing": true})
				if a.status != 400 || a.errcode() != "M_INVALID_PARAM" {
					t.Errorf("%s %s: %d %s", e.method, e.path, a.status, a.body.Raw)
				}
			}
		}
		for _, bad := range []string{"nonsense", "alice", "@", "@alice", ":test.example", "@" + long + ":test.example", "@a\x00:test.example", "!room:test.example"} {
			for _, e := range []endpoint{
				{"POST", at("rooms", room, "invite"), ""}, {"POST", at("rooms", room, "kick"), ""}, {"POST", at("rooms", room, "ban"), ""},
			} {
				alice.refused(400, "M_INVALID_PARAM", e.method, e.path, object{"user_id": bad})
			}
			alice.refused(400, "M_INVALID_PARAM", "GET", at("profile", bad), nil)
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("rooms", room, "typing", bad), object{"typing": true})
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("user", bad, "account_data", "x.bad"), object{})
			alice.refused(400, "M_INVALID_PARAM", "POST", at("user", bad, "filter"), object{})
			alice.refused(400, "M_INVALID_PARAM", "POST", at("createRoom"), object{"invite": []string{bad}})
		}
		for _, bad := range []string{"nonsense", "!room:test.example", "$" + long} {
			alice.refused(400, "M_INVALID_PARAM", "GET", at("rooms", room, "event", bad), nil)
			alice.refused(400, "M_INVALID_PARAM", "GET", at("rooms", room, "context", bad), nil)
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("rooms", room, "redact", bad, "1"), object{})
			alice.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", bad), object{})
		}
		for _, bad := range []string{"nonsense", "#", "#a", "#" + long + ":test.example"} {
			alice.refused(400, "M_INVALID_PARAM", "GET", at("directory", "room", bad), nil)
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("directory", "room", bad), object{"room_id": room})
			alice.refused(400, "M_INVALID_PARAM", "POST", at("join", bad), object{})
		}
		for _, query := range []string{"?dir=b&limit=x", "?dir=b&limit=-1", "?dir=x", "?dir=b&to=nonsense"} {
			alice.refused(400, "M_INVALID_PARAM", "GET", at("rooms", room, "messages")+query, nil)
		}
		alice.refused(400, "M_MISSING_PARAM", "GET", at("rooms", room, "messages"), nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", at("rooms", room, "members")+"?membership=odd", nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", at("rooms", room, "context", event)+"?limit=x", nil)
		for _, filter := range []string{`{"types":1}`, `[]`, `{"limit":-1}`} {
			alice.refused(400, "M_BAD_JSON", "GET", at("rooms", room, "messages")+"?dir=b&filter="+filter, nil)
			alice.refused(400, "M_BAD_JSON", "GET", at("rooms", room, "context", event)+"?filter="+filter, nil)
		}
		if after := alice.snapshot(room); after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
	})
}

// What belongs to a user is theirs alone, and what another's request would change stays as it is.
func TestWhatBelongsToOthers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, mallory := d.user(t, "alice"), d.user(t, "mallory")
		room := alice.createRoom(object{"preset": "private_chat"})
		event := alice.say(room, "x")
		alice.must("PUT", at("user", alice.userID, "account_data", "x.mine"), object{"a": 1})
		filterID := alice.must("POST", at("user", alice.userID, "filter"), object{}).Get("filter_id").Str
		before := alice.snapshot(room)
		for _, e := range []endpoint{
			{"GET", at("user", alice.userID, "account_data", "x.mine"), ""}, {"PUT", at("user", alice.userID, "account_data", "x.mine"), ""},
			{"PUT", at("user", alice.userID, "rooms", room, "account_data", "x.mine"), ""}, {"GET", at("user", alice.userID, "rooms", room, "tags"), ""},
			{"PUT", at("user", alice.userID, "rooms", room, "tags", "u.x"), ""}, {"GET", at("user", alice.userID, "filter", filterID), ""},
			{"POST", at("user", alice.userID, "filter"), ""}, {"PUT", at("profile", alice.userID, "displayname"), ""},
			{"PUT", at("rooms", room, "typing", alice.userID), ""}, {"PUT", at("rooms", room, "send", "m.room.message", "1"), ""},
			{"PUT", at("rooms", room, "state", "m.room.topic"), ""}, {"PUT", at("rooms", room, "redact", event, "1"), ""},
			{"POST", at("rooms", room, "invite"), ""}, {"POST", at("rooms", room, "kick"), ""}, {"POST", at("rooms", room, "leave"), ""},
			{"POST", at("join", room), ""}, {"POST", at("rooms", room, "receipt", "m.read", event), ""}, {"GET", at("rooms", room, "members"), ""},
			{"GET", at("rooms", room, "aliases"), ""}, {"PUT", at("directory", "list", "room", room), ""}, {"POST", at("rooms", room, "read_markers"), ""},
			{"GET", at("rooms", room, "joined_members"), ""}, {"GET", at("rooms", room, "context", event), ""},
		} {
			body := object{"user_id": mallory.userID, "typing": true, "displayname": "x", "visibility": "public", "m.fully_read": event}
			a := mallory.call(e.method, e.path, body)
			if a.status != 403 && a.status != 404 {
				t.Errorf("%s %s: %d %s", e.method, e.path, a.status, a.body.Raw)
			}
		}
		if after := alice.snapshot(room); after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
		equal(t, "rooms of the other", len(mallory.must("GET", at("joined_rooms"), nil).Get("joined_rooms").Array()), 0)
	})
}

// What is kept under a name has one.
func TestAccountDataAndTagsHaveNames(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for _, path := range []string{
			at("user", alice.userID, "account_data", ""),
			at("user", alice.userID, "rooms", room, "account_data", ""),
			at("user", alice.userID, "rooms", room, "tags", ""),
		} {
			alice.refused(400, "M_INVALID_PARAM", "PUT", path, object{})
		}
		for _, e := range alice.sync("").Get("account_data.events").Array() {
			if e.Get("type").Str == "" {
				t.Errorf("account data without a type: %s", e)
			}
		}
	})
}
