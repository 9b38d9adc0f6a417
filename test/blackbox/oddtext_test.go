package blackbox

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Text that is legal comes back as it was sent, by every way, however odd it is.
func TestOddTextComesBack(t *testing.T) {
	odd := []string{"", " ", "a\u0000b", "\u2028\u2029", "<script>&amp;", `"quoted" \ back / slash`, "🙂🏳️‍🌈", "e\u0301", "\u202eright to left", "\ufeff", "\u007f\u0001\t\r\n",
		"\ufffd", "\U0010ffff", "'; DROP TABLE x; --", "%00%s%d", "${x}", strings.Repeat("ä", 1000), "a.b|c*d?e#f@g!h\\i"}
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		for _, version := range []string{"1", "12"} {
			room := alice.createRoom(object{"preset": "public_chat", "room_version": version})
			bob.join(room)
			content := object{"msgtype": "m.text", "body": "odd"}
			for i, s := range odd {
				content[fmt.Sprint("value ", i)] = s
				content["key "+s] = []any{s, map[string]any{s: nil}, true, 1}
			}
			raw, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			var want any
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			since := bob.now()
			event := alice.send(room, "m.room.message", content)
			sync := roomIn(bob.sync(since), "join", room).Get("timeline.events.0")
			for name, got := range map[string]string{
				"sync": sync.Get("content").Raw, "event": bob.must("GET", at("rooms", room, "event", event), nil).Get("content").Raw,
				"messages": bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1", nil).Get("chunk.0.content").Raw,
			} {
				var decoded any
				if err := json.Unmarshal([]byte(got), &decoded); err != nil || !reflect.DeepEqual(decoded, want) {
					t.Errorf("version %s, %s: got %s, want %s (%v)", version, name, got, raw, err)
				}
			}
			for _, s := range odd {
				if strings.ContainsRune(s, 0) || len(s) > 255 {
					continue
				}
				path := at("rooms", room, "state", "x.odd") + "/" + strings.TrimPrefix(at(s), "/_matrix/client/v3/")
				id := alice.must("PUT", path, object{"s": s}).Get("event_id").Str
				equal(t, "state of an odd key", alice.must("GET", path, nil).Get("s").String(), s)
				equal(t, "an odd state key", alice.must("GET", at("rooms", room, "event", id), nil).Get("state_key").Str, s)
				equal(t, "an odd state key in a sync", stateIn(roomIn(bob.sync(since, timelineOf(object{"limit": 100})...), "join", room), "x.odd", s).Get("content.s").Str, s)
			}
		}
		for _, s := range odd {
			alice.must("PUT", at("user", alice.userID, "account_data", "x.odd"), object{"s": s})
			equal(t, "odd account data", alice.must("GET", at("user", alice.userID, "account_data", "x.odd"), nil).Get("s").String(), s)
		}
	})
}

// A NUL, or half of a surrogate pair, is refused or kept, but breaks nothing.
func TestTextThatDatabasesRefuse(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		event := alice.say(room, "x")
		for _, bad := range []string{`a\u0000b`, `\ud800`, `\udc00x`, `\ud800\ud800`, `@a\u0000:test.example`, `#a\u0000:test.example`} {
			auth := `"auth":{"type":"m.login.dummy","session":"` + bad + `"}`
			for _, e := range []endpoint{
				{"POST", at("register"), `{"username":"` + bad + `","password":"long enough 1","auth":{"type":"m.login.dummy"}}`},
				{"POST", at("register"), `{"device_id":"` + bad + `","password":"long enough 1","auth":{"type":"m.login.dummy"}}`},
				{"POST", at("register"), `{"initial_device_display_name":"` + bad + `","password":"long enough 1","auth":{"type":"m.login.dummy"}}`},
				{"POST", at("register"), `{"password":"long ` + bad + `","auth":{"type":"m.login.dummy"}}`},
				{"POST", at("register"), `{"password":"long enough 1",` + auth + `}`},
				{"POST", at("login"), `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"` + bad + `"},"password":"x"}`},
				{"POST", at("login"), `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"` + alice.localpart + `"},"password":"` + alice.password + `","device_id":"` + bad + `"}`},
				{"POST", at("login"), `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"` + alice.localpart + `"},"password":"` + alice.password + `","initial_device_display_name":"` + bad + `"}`},
				{"POST", at("login"), `{"type":"m.login.token","token":"` + bad + `"}`},
				{"POST", at("refresh"), `{"refresh_token":"` + bad + `"}`},
				{"PUT", at("devices", alice.deviceID), `{"display_name":"` + bad + `"}`},
				{"POST", at("delete_devices"), `{"devices":["` + bad + `"]}`},
				{"PUT", at("profile", alice.userID, "displayname"), `{"displayname":"` + bad + `"}`},
				{"PUT", at("profile", alice.userID, "avatar_url"), `{"avatar_url":"mxc://x/` + bad + `"}`},
				{"PUT", at("profile", alice.userID, "org.example.x"), `{"org.example.x":"` + bad + `"}`},
				{"POST", at("user_directory", "search"), `{"search_term":"` + bad + `"}`},
				{"POST", at("createRoom"), `{"name":"` + bad + `","topic":"` + bad + `"}`},
				{"POST", at("createRoom"), `{"room_alias_name":"` + bad + `"}`},
				{"POST", at("createRoom"), `{"invite":["` + bad + `"]}`},
				{"POST", at("createRoom"), `{"room_version":"` + bad + `"}`},
				{"POST", at("createRoom"), `{"initial_state":[{"type":"` + bad + `","content":{}}]}`},
				{"POST", at("createRoom"), `{"initial_state":[{"type":"x","state_key":"` + bad + `","content":{}}]}`},
				{"POST", at("createRoom"), `{"creation_content":{"x":"` + bad + `"}}`},
				{"POST", at("rooms", room, "invite"), `{"user_id":"` + bad + `"}`},
				{"POST", at("rooms", room, "ban"), `{"user_id":"@x:test.example","reason":"` + bad + `"}`},
				{"POST", at("rooms", room, "kick"), `{"user_id":"` + bad + `"}`},
				{"POST", at("join", room), `{"reason":"` + bad + `"}`},
				{"PUT", at("rooms", room, "send", "m.room.message", alice.txn()), `{"body":"` + bad + `","` + bad + `":1}`},
				{"PUT", at("rooms", room, "send", "m.reaction", alice.txn()), `{"m.relates_to":{"rel_type":"m.thread","event_id":"` + bad + `"}}`},
				{"PUT", at("rooms", room, "send", "m.room.message", alice.txn()), `{"m.mentions":{"user_ids":["` + bad + `"]}}`},
				{"PUT", at("rooms", room, "send", "m.room.redaction", alice.txn()), `{"redacts":"` + bad + `"}`},
				{"PUT", at("rooms", room, "redact", event, alice.txn()), `{"reason":"` + bad + `"}`},
				{"PUT", at("rooms", room, "state", "m.room.name"), `{"name":"` + bad + `"}`},
				{"PUT", at("rooms", room, "state", "m.room.topic"), `{"topic":"` + bad + `"}`},
				{"PUT", at("rooms", room, "state", "m.room.canonical_alias"), `{"alias":"` + bad + `"}`},
				{"PUT", at("directory", "room", "#"+alice.localpart+":test.example"), `{"room_id":"` + bad + `"}`},
				{"POST", at("publicRooms"), `{"filter":{"generic_search_term":"` + bad + `"}}`},
				{"POST", at("publicRooms"), `{"since":"` + bad + `"}`},
				{"POST", at("user", alice.userID, "filter"), `{"event_fields":["` + bad + `"],"room":{"timeline":{"types":["` + bad + `"],"senders":["` + bad + `"]}}}`},
				{"POST", at("user", alice.userID, "filter"), `{"event_fields":["` + bad + `"]}`},
				{"PUT", at("user", alice.userID, "account_data", "x.bad"), `{"x":"` + bad + `"}`},
				{"PUT", at("user", alice.userID, "account_data", "m.ignored_user_list"), `{"ignored_users":{"` + bad + `":{}}}`},
				{"PUT", at("user", alice.userID, "rooms", room, "tags", "u.x"), `{"x":"` + bad + `"}`},
				{"PUT", at("pushrules", "global", "content", "x"), `{"pattern":"` + bad + `","actions":[]}`},
				{"PUT", at("pushrules", "global", "content", "x", "actions"), `{"actions":["` + bad + `"]}`},
				{"POST", at("rooms", room, "receipt", "m.read", event), `{"thread_id":"` + bad + `"}`},
				{"POST", at("rooms", room, "read_markers"), `{"m.read":"$` + bad + `","m.fully_read":"$` + bad + `"}`},
			} {
				a := alice.call(e.method, e.path, []byte(e.wrong))
				if a.status >= 500 {
					t.Errorf("%s %s with %s: %d %s", e.method, e.path, e.wrong, a.status, a.body.Raw)
				}
			}
			for _, path := range []string{
				at("user", alice.userID, "account_data", "a\x00b"), at("rooms", room, "state", "a\x00b"), at("rooms", room, "state", "x", "a\x00b"),
				at("rooms", room, "event", "$a\x00b"), at("profile", "@a\x00:test.example"), at("devices", "a\x00"), at("directory", "room", "#a\x00:test.example"),
				at("pushrules", "global", "content", "a\x00"), at("register", "available") + "?username=a%00", at("sync") + "?since=%00", at("sync") + "?filter=%00",
				at("sync") + "?filter=%7B%22a%22%3A%22%00%22%7D", at("rooms", room, "messages") + "?dir=b&from=%00", at("publicRooms") + "?since=%00",
				at("user", alice.userID, "account_data", "\xff"), at("rooms", room, "state", "\xff"), at("rooms", room, "state", "x", "\xff"),
				at("rooms", room, "event", "$\xff"), at("profile", "@\xff:test.example"), at("devices", "\xff"), at("pushrules", "global", "content", "\xff"),
				at("sync") + "?since=%ff", at("publicRooms") + "?server=%ff",
			} {
				if a := alice.call("GET", path, nil); a.status >= 500 || a.status == 200 && !strings.Contains(path, "ublicRooms") {
					t.Errorf("GET %s: %d %s", path, a.status, a.body.Raw)
				}
			}
			for _, path := range []string{
				at("rooms", room, "send", "a\x00b", "1"), at("rooms", room, "send", "x", "a\x00b"), at("rooms", room, "state", "x", "a\x00b"), at("rooms", room, "send", "\xff", "1"),
				at("rooms", room, "send", "x", "\xff"), at("rooms", room, "state", "x", "\xff"), at("user", alice.userID, "account_data", "a\x00b"),
				at("user", alice.userID, "account_data", "\xff"), at("user", alice.userID, "rooms", room, "tags", "a\x00b"), at("user", alice.userID, "rooms", room, "tags", "\xff"),
				at("profile", alice.userID, "org.\xff"), at("devices", "\xff"),
			} {
				if a := alice.call("PUT", path, object{"display_name": "x"}); a.status >= 500 || a.status == 200 {
					t.Errorf("PUT %s: %d %s", path, a.status, a.body.Raw)
				}
			}
		}
		// What was taken can be read.
		for _, e := range alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1000", nil).Get("chunk").Array() {
			if !json.Valid([]byte(e.Raw)) {
				t.Errorf("an event is no JSON: %s", e.Raw)
			}
		}
		alice.snapshot(room)
		alice.say(room, "still here")
	})
}
