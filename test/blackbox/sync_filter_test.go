package blackbox

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestFiltersOfTheTimeline(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		since := alice.now()
		alice.say(room, "a1")
		bob.say(room, "b1")
		bob.send(room, "m.sticker", object{"body": "s1", "url": "mxc://test.example/1"})
		alice.send(room, "x.odd", object{"body": "o1"})
		bob.say(room, "b2")
		cases := []struct {
			filter object
			want   string
		}{
			{object{}, "a1 b1 s1 o1 b2"},
			{object{"types": []string{"m.room.message"}}, "a1 b1 b2"},
			{object{"types": []string{"m.*"}}, "a1 b1 s1 b2"},
			{object{"types": []string{}}, ""},
			{object{"not_types": []string{"m.room.*"}}, "s1 o1"},
			{object{"types": []string{"m.*"}, "not_types": []string{"m.sticker"}}, "a1 b1 b2"},
			{object{"senders": []string{bob.userID}}, "b1 s1 b2"},
			{object{"not_senders": []string{bob.userID}}, "a1 o1"},
			{object{"senders": []string{}}, ""},
			{object{"contains_url": true}, "s1"},
			{object{"contains_url": false}, "a1 b1 o1 b2"},
			{object{"rooms": []string{room}}, "a1 b1 s1 o1 b2"},
			{object{"rooms": []string{"!other:test.example"}}, ""},
			{object{"not_rooms": []string{room}}, ""},
			{object{"limit": 2, "senders": []string{alice.userID}}, "a1 o1"},
			{object{"limit": 1, "senders": []string{alice.userID}}, "o1"},
			{object{"limit": 3}, "s1 o1 b2"},
		}
		for _, c := range cases {
			text, _ := json.Marshal(c.filter)
			for _, token := range []string{since, ""} {
				filter := c.filter
				if token == "" { // leaves out what was before
					filter = object{"not_types": []string{"m.room.c*", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility", "m.room.guest_access"}}
					for key, value := range c.filter {
						if key == "not_types" {
							value = append(slices.Clone(filter["not_types"].([]string)), value.([]string)...)
						}
						filter[key] = value
					}
				}
				timeline := roomIn(alice.sync(token, timelineOf(filter)...), "join", room).Get("timeline")
				var got []string
				for _, e := range timeline.Get("events").Array() {
					got = append(got, e.Get("content.body").Str)
				}
				words(t, fmt.Sprintf("since %q with %s", token, text), got, c.want)
				if token != "" && c.filter["limit"] == nil && timeline.Get("limited").Bool() {
					t.Errorf("%s: limited, and nothing was left out by a limit", text)
				}
			}
		}
	})
}

// A limit of 0 gets no timeline: what happened is state, and the rest is found by prev_batch.
func TestATimelineOfNothing(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		since := alice.now()
		alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		last := alice.say(room, "last")
		for _, token := range []string{since, ""} {
			r := roomIn(alice.sync(token, timelineOf(object{"limit": 0})...), "join", room)
			equal(t, "events", r.Get("timeline.events.#").Int(), 0)
			equal(t, "limited", r.Get("timeline.limited").Raw, "true")
			equal(t, "state", find(r.Get("state.events"), "m.room.topic", "").Get("content.topic").Str, "tea")
			page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1&from="+url.QueryEscape(r.Get("timeline.prev_batch").Str), nil)
			equal(t, "what is before prev_batch", page.Get("chunk.0.event_id").Str, last)
		}
		quiet := alice.now()
		if r := roomIn(alice.sync(quiet, timelineOf(object{"limit": 0})...), "join", room); r.Exists() {
			t.Errorf("a room in which nothing happened: %s", r.Raw)
		}
	})
}

func TestFiltersOfTheRest(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		last := alice.say(room, "x")
		bob.must("POST", at("rooms", room, "receipt", "m.read", last), object{})
		bob.must("PUT", at("rooms", room, "typing", bob.userID), object{"typing": true, "timeout": 30000})
		for _, name := range []string{"x.one", "x.two"} {
			alice.must("PUT", at("user", alice.userID, "account_data", name), object{"a": 1})
			alice.must("PUT", at("user", alice.userID, "rooms", room, "account_data", name), object{"a": 1})
		}
		answer := alice.sync("", filtered(object{
			"account_data": object{"types": []string{"x.o*"}},
			"room": object{"rooms": []string{room}, "account_data": object{"not_types": []string{"x.one"}}, "ephemeral": object{"types": []string{"m.receipt"}},
				"state": object{"types": []string{"m.room.create", "m.room.topic"}}, "timeline": object{"limit": 1}},
		})...)
		if roomIn(answer, "join", other).Exists() {
			t.Error("a room that the filter leaves out is there")
		}
		r := roomIn(answer, "join", room)
		var types []string
		for _, list := range []string{"account_data.events", "state.events", "ephemeral.events"} {
			for _, e := range r.Get(list).Array() {
				types = append(types, e.Get("type").Str)
			}
		}
		slices.Sort(types)
		words(t, "types", types, "m.receipt m.room.create m.room.topic x.two")
		equal(t, "global account data", len(answer.Get("account_data.events").Array()), 1)
		equal(t, "global account data", answer.Get("account_data.events.0.type").Str, "x.one")
		if roomIn(alice.sync("", filtered(object{"room": object{"not_rooms": []string{room}}})...), "join", room).Exists() {
			t.Error("a room of not_rooms is there")
		}
		none := alice.sync("", filtered(object{"room": object{"rooms": []string{}}})...)
		equal(t, "rooms of an empty list", len(none.Get("rooms.join").Map()), 0)
	})
}

func TestStoredFilters(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		alice.say(room, "one")
		alice.say(room, "two")
		path := at("user", alice.userID, "filter")
		filterID := alice.must("POST", path, object{"room": object{"timeline": object{"limit": 1}}}).Get("filter_id").Str
		if filterID == "" || filterID[0] == '{' {
			t.Fatalf("the filter's id is %q", filterID)
		}
		equal(t, "the filter", alice.must("GET", path+"/"+filterID, nil).Get("room.timeline.limit").Int(), 1)
		same(t, "a sync by the filter's id", bodies(roomIn(alice.sync("", "filter", filterID), "join", room).Get("timeline.events")), []string{"two"})
		other := alice.must("POST", path, object{"room": object{"timeline": object{"limit": 2}}}).Get("filter_id").Str
		same(t, "a sync by another filter's id", bodies(roomIn(alice.sync("", "filter", other), "join", room).Get("timeline.events")), []string{"one", "two"})

		bob.refused(403, "M_FORBIDDEN", "GET", path+"/"+filterID, nil)
		bob.refused(403, "M_FORBIDDEN", "POST", path, object{})
		alice.refused(404, "M_NOT_FOUND", "GET", path+"/99999999", nil)
		alice.refused(404, "M_NOT_FOUND", "GET", path+"/nothing", nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", syncPath("", "filter", "99999999"), nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", syncPath("", "filter", "nothing"), nil)
		alice.refused(400, "M_NOT_JSON", "GET", syncPath("", "filter", "{nonsense"), nil)
		for _, bad := range []string{`{"room":[]}`, `{"room":{"timeline":{"limit":"ten"}}}`, `{"room":{"timeline":{"limit":-1}}}`, `{"event_format":"odd"}`,
			`{"room":{"timeline":{"types":"m.room.message"}}}`, `{"room":{"rooms":["nonsense"]}}`, `{"room":{"timeline":{"senders":["nobody"]}}}`,
			`{"event_fields":"content"}`, `{"room":{"include_leave":1}}`} {
			alice.refused(400, "M_BAD_JSON", "GET", syncPath("", "filter", bad), nil)
			alice.refused(400, "M_BAD_JSON", "POST", path, []byte(bad))
		}
		alice.refused(400, "M_NOT_JSON", "POST", path, []byte(`{`))
		if a := alice.call("POST", path, object{"event_fields": []string{strings.Repeat("x", 100_000)}}); a.status != 413 || a.errcode() != "M_TOO_LARGE" {
			t.Errorf("a huge filter: %d %s", a.status, a.errcode())
		}
	})
}

func TestFormsOfEvents(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		since := alice.now()
		event := alice.send(room, "m.room.message", object{"msgtype": "m.text", "body": "x", "a.b": object{"c": 1, "d": 2}})
		one := func(filter object) map[string]any {
			t.Helper()
			events := roomIn(alice.sync(since, filtered(filter)...), "join", room).Get("timeline.events").Array()
			if len(events) != 1 {
				t.Fatalf("%d events", len(events))
			}
			return events[0].Value().(map[string]any)
		}
		text := func(v any) string {
			raw, _ := json.Marshal(v)
			return string(raw)
		}
		equal(t, "event_fields", text(one(object{"event_fields": []string{"type", "content.body", "nothing", "content.nothing.at.all"}})),
			`{"content":{"body":"x"},"type":"m.room.message"}`)
		equal(t, "event_fields with an escaped dot", text(one(object{"event_fields": []string{`content.a\.b.c`, "event_id"}})),
			`{"content":{"a.b":{"c":1}},"event_id":"`+event+`"}`)
		equal(t, "a whole object", text(one(object{"event_fields": []string{"content"}})["content"]), `{"a.b":{"c":1,"d":2},"body":"x","msgtype":"m.text"}`)

		federation := one(object{"event_format": "federation"})
		for _, key := range []string{"auth_events", "prev_events", "depth", "hashes", "signatures", "origin_server_ts", "room_id"} {
			if federation[key] == nil {
				t.Errorf("the federation format lacks %s: %v", key, federation)
			}
		}
		plain := one(object{"event_format": "client"})
		for _, key := range []string{"auth_events", "prev_events", "depth", "hashes", "signatures"} {
			if plain[key] != nil {
				t.Errorf("the client format has %s", key)
			}
		}
	})
}
