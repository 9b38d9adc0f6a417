package blackbox

import (
	"net/url"
	"testing"

	"github.com/tidwall/gjson"
)

func eventsPath(parameters ...string) string {
	q := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		q.Set(parameters[i], parameters[i+1])
	}
	return at("events") + "?" + q.Encode()
}

func TestTheInitialSyncOfOldClients(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "public_chat", "visibility": "public"})
		left, invited := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		bob.join(left)
		last := alice.say(left, "seen")
		bob.must("POST", at("rooms", left, "leave"), object{})
		alice.say(left, "not seen")
		alice.invite(invited, bob)
		alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		said := []string{alice.say(room, "one"), alice.say(room, "two")}
		bob.must("PUT", at("user", bob.userID, "account_data", "x.data"), object{"a": 1})
		bob.must("PUT", at("user", bob.userID, "rooms", room, "account_data", "x.room"), object{"a": 2})
		in := func(answer gjson.Result, name string) gjson.Result {
			for _, r := range answer.Get("rooms").Array() {
				if r.Get("room_id").Str == name {
					return r
				}
			}
			return gjson.Result{}
		}
		answer := bob.must("GET", at("initialSync")+"?limit=2", nil)
		r := in(answer, room)
		equal(t, "membership", r.Get("membership").Str+" "+r.Get("visibility").Str, "join public")
		same(t, "messages", ids(r.Get("messages.chunk")), said)
		equal(t, "room_id of an event", r.Get("messages.chunk.0.room_id").Str, room)
		equal(t, "state", find(r.Get("state"), "m.room.topic", "").Get("content.topic").Str, "tea")
		equal(t, "a member", find(r.Get("state"), "m.room.member", bob.userID).Get("content.membership").Str, "join")
		equal(t, "account data", find(answer.Get("account_data"), "x.data", "").Get("content.a").Int(), 1)
		equal(t, "account data of the room", find(r.Get("account_data"), "x.room", "").Get("content.a").Int(), 2)
		if !find(answer.Get("account_data"), "m.push_rules", "").Exists() {
			t.Error("push rules are missing")
		}
		before := bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1&from="+url.QueryEscape(r.Get("messages.start").Str), nil)
		equal(t, "what is before start", before.Get("chunk.0.type").Str, "m.room.topic")
		one := in(answer, invited)
		equal(t, "the invite", one.Get("membership").Str+" "+one.Get("invite.type").Str+" "+one.Get("invite.state_key").Str, "invite m.room.member "+bob.userID)
		if in(answer, left).Exists() {
			t.Error("a room that was left is there")
		}
		archived := in(bob.must("GET", at("initialSync")+"?archived=true&limit=2", nil), left)
		equal(t, "a room that was left", archived.Get("membership").Str, "leave")
		equal(t, "its last message", archived.Get("messages.chunk.0.event_id").Str, last)
		bob.refused(400, "M_INVALID_PARAM", "GET", at("initialSync")+"?limit=x", nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", at("initialSync")+"?archived=x", nil)
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", at("initialSync"), nil)

		// Its token goes on with /events.
		event := alice.say(room, "three")
		page := bob.must("GET", eventsPath("from", answer.Get("end").Str), nil)
		same(t, "new events", ids(page.Get("chunk")), []string{event})
		equal(t, "start", page.Get("start").Str, answer.Get("end").Str)
		same(t, "after that", ids(bob.must("GET", eventsPath("from", page.Get("end").Str), nil).Get("chunk")), nil)
	})
}

func TestTheEventStreamOfOldClients(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room, other := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		bob.join(other)
		from := bob.must("GET", eventsPath(), nil).Get("end").Str
		waiting := make(chan gjson.Result, 1)
		listener := *bob
		go func() { waiting <- listener.must("GET", eventsPath("from", from, "timeout", "30000"), nil) }()
		event := alice.say(room, "one")
		page := <-waiting
		same(t, "woken by", ids(page.Get("chunk")), []string{event})
		equal(t, "room_id", page.Get("chunk.0.room_id").Str, room)
		elsewhere := alice.say(other, "two")
		same(t, "one room", ids(bob.must("GET", eventsPath("from", page.Get("end").Str, "room_id", room), nil).Get("chunk")), nil)
		same(t, "the other", ids(bob.must("GET", eventsPath("from", page.Get("end").Str, "room_id", other), nil).Get("chunk")), []string{elsewhere})
		from = bob.must("GET", eventsPath(), nil).Get("end").Str
		third := alice.publicRoom()
		alice.invite(third, bob)
		invite := bob.must("GET", eventsPath("from", from, "timeout", "10000"), nil).Get("chunk.0")
		equal(t, "an invite", invite.Get("content.membership").Str+" "+invite.Get("room_id").Str, "invite "+third)

		// A room that is not world readable is nobody's to peek into.
		carol.refused(403, "M_FORBIDDEN", "GET", eventsPath("room_id", room), nil)
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "world_readable"})
		from = carol.must("GET", eventsPath("room_id", room), nil).Get("end").Str
		peeker := *carol
		go func() {
			waiting <- peeker.must("GET", eventsPath("from", from, "room_id", room, "timeout", "30000"), nil)
		}()
		event = alice.say(room, "for everybody")
		page = <-waiting
		same(t, "what is peeked", ids(page.Get("chunk")), []string{event})
		same(t, "peeked after that", ids(carol.must("GET", eventsPath("from", page.Get("end").Str, "room_id", room), nil).Get("chunk")), nil)
		same(t, "without the room", ids(carol.must("GET", eventsPath("from", from), nil).Get("chunk")), nil)

		for _, bad := range [][]string{{"from", "nonsense"}, {"from", "s1_1_1"}, {"timeout", "x"}, {"room_id", "nonsense"}} {
			bob.refused(400, "M_INVALID_PARAM", "GET", eventsPath(bad...), nil)
		}
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", eventsPath(), nil)

		equal(t, "one event", bob.must("GET", at("events", elsewhere), nil).Get("room_id").Str, other)
		carol.refused(404, "M_NOT_FOUND", "GET", at("events", elsewhere), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", at("events", "$nothing"), nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", at("events", "nothing"), nil)
	})
}
