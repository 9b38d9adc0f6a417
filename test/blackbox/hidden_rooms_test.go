package blackbox

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/httputil"
)

// Whether there is a room that they may not know of, nobody learns by any endpoint that names a room: it answers the
// same, to the letter, as if there were none.
func TestARoomThatIsHiddenIsNoRoom(t *testing.T) {
	oneOf(t, switched, func(t *testing.T, d *deployment) {
		all := routes(t)
		for _, version := range []string{"5", "11", "12"} {
			alice, bob, guest := d.user(t, "alice"), d.user(t, "bob"), d.anybody(t)
			guest.took(guest.must("POST", at("register")+"?kind=guest", object{}))
			room := alice.createRoom(object{"room_version": version, "preset": "private_chat"})
			restricted := alice.createRoom(object{"initial_state": []object{{"type": "m.room.join_rules",
				"content": object{"join_rule": "restricted",
					"allow": []object{{"type": "m.room_membership", "room_id": room}}}}}})
			event := alice.say(room, "hidden")
			alice.must("PUT", at("directory", "room", "#secret-"+alice.localpart+":test.example"), object{"room_id": room})
			none := "!" + strings.Repeat("A", 43)
			if strings.Contains(room, ":") {
				none = "!AAAAAAAAAAAAAAAAAAAAAAAAAA:test.example"
			}
			for _, who := range []*client{bob, guest} {
				for i := range all {
					if who == guest && all[i].Auth != httputil.AuthGuest {
						continue
					}
					for _, q := range questionsOf(t, &all[i], who, alice, event) {
						hidden, absent := q.about(room), q.about(none)
						if hidden != absent {
							t.Errorf("version %s, %s %s %v:\n\tis there:     %s\n\tis not there: %s", version, q.method,
								q.path, q.body, hidden, absent)
						}
						if version == "12" && strings.Contains("join room_join knock", all[i].Name) {
							equal(t, "the answer for a restricted room", q.about(restricted), absent)
						}
					}
				}
			}
		}
	})
}

// question is a request about a room, which is !room in it.
type question struct {
	by           *client
	method, path string
	body         any
}

// about asks it, and returns all of the answer that does not name the room.
func (q question) about(room string) string {
	q.by.t.Helper()
	path := strings.ReplaceAll(q.path, url.PathEscape("!room"), url.PathEscape(room))
	got := q.by.call(q.method, path, replaced(q.body, "!room", room))
	if got.body.Get("next_batch").Exists() || got.body.Get("chunk").Exists() {
		return fmt.Sprint(got.status, got.body.Get("rooms"), got.body.Get("chunk")) // the tokens go on
	}
	return fmt.Sprint(got.status, strings.ReplaceAll(got.body.Raw, room, "!room"), got.header["Content-Type"],
		got.header["Cache-Control"],
		got.header["Retry-After"])
}

// questionsOf are those that a route can be asked about a room, with bodies that are as they should be and others;
// none if it is about none. Alice is in the room, where she sent the event.
func questionsOf(t *testing.T, route *httputil.Route, by, alice *client, event string) (all []question) {
	t.Helper()
	bodies := map[string][]object{
		"kick":    {{"user_id": alice.userID}, {"user_id": by.userID}},
		"ban":     {{"user_id": alice.userID}, {"user_id": by.userID}},
		"unban":   {{"user_id": alice.userID}, {"user_id": by.userID}},
		"invite":  {{"user_id": alice.userID}, {"user_id": by.userID}},
		"upgrade": {{"new_version": "11"}, {"new_version": "x"}}, "typing": {{"typing": true}, {"typing": false}},
		"put_published": {{"visibility": "public"}, {"visibility": "private"}}, "put_alias": {{"room_id": "!room"}},
		"report_room": {{"reason": "x"}}, "report_event": {{"reason": "x"}},
		"send": {{"msgtype": "m.text", "body": "x"}, {"redacts": event},
			{"m.relates_to": object{"rel_type": "m.thread", "event_id": event}},
			{"m.relates_to": object{"rel_type": "m.annotation", "key": "x", "event_id": event}}},
		"put_state": {{"name": "x"}, {"membership": "join"}, {"membership": "leave"}, {"membership": "invite"},
			{"membership": "knock"}, {"membership": "ban"},
			{"alias": "#hidden-room-test:test.example"}, {"aliases": []string{"#hidden-room-test:test.example"}},
			{"users": object{alice.userID: "x"}}},
		"read_markers": {{"m.fully_read": event}, {"m.read": event}, {"m.read.private": event}},
		"put_tag":      {{"order": 0.5}},
		"search": {{"search_categories": object{"room_events": object{"search_term": "hidden",
			"filter": object{"rooms": []string{"!room"}}}}}},
	}[route.Name]
	const later = "?org.matrix.msc4140.delay=100000"
	queries := map[string][]string{"send": {later}, "redact": {later}, "put_state": {later},
		"timestamp_to_event": {"?ts=0&dir=f"},
		"messages":           {"?dir=b", "?dir=f&from=t0_1"},
		"hierarchy":          {"?from=1"}, "events": {"?timeout=0&room_id=%21room"},
		"members": {"?membership=join", "?at=t0_1"}, "sync": {`?filter={"room":{"rooms":["%21room"]}}`}}[route.Name]
	types := map[string][]string{"send": {"m.room.message", "m.room.redaction", "m.reaction"},
		"put_state": {"m.room.name", "m.room.member",
			"m.room.canonical_alias", "m.room.aliases", "m.room.create", "m.room.power_levels"}}[route.Name]
	vars := map[string]string{"roomid": "!room", "roomidoralias": "!room", "userid": by.userID, "eventid": event,
		"txnid": "t", "tag": "x",
		"receipttype": "m.read", "reltype": "m.thread", "eventtype": "m.x",
		"alias": "#x-" + by.localpart + ":test.example", "sessionid": "x", "version": "1",
		"deviceid": "x", "networkid": "x"}
	if strings.Contains(route.Path, "/room_keys/") {
		queries = []string{"?version=1"}
	}
	if strings.Contains(strings.ToLower(route.Path), "{roomid") {
		bodies, queries = append(bodies, object{}), append(queries, "")
	} else if bodies != nil {
		queries = []string{""}
	} else if queries == nil {
		return nil
	}
	for _, vars["type"] = range append(types, "m.x") {
		for _, vars["statekey"] = range []string{"", by.userID, alice.userID, "test.example"} {
			if vars["statekey"] != "" && !strings.Contains(strings.ToLower(route.Path), "{statekey}") {
				continue
			}
			path := fill(t, route.Path, vars)
			for _, query := range queries {
				if !changes(route) {
					all = append(all, question{by, route.Method, path + query, nil})
					continue
				}
				for _, body := range bodies {
					all = append(all, question{by, route.Method, path + query, body})
				}
			}
		}
	}
	return all
}

// replaced is an object with other words in its texts.
func replaced(value any, words ...string) any {
	replace := strings.NewReplacer(words...)
	switch v := value.(type) {
	case object:
		all := make(object, len(v))
		for key, value := range v {
			all[replace.Replace(key)] = replaced(value, words...)
		}
		return all
	case []string:
		all := make([]string, len(v))
		for i := range v {
			all[i] = replace.Replace(v[i])
		}
		return all
	case string:
		return replace.Replace(v)
	}
	return value
}
