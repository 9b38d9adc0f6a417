package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

func highlights(more object) object {
	more["actions"] = []any{"notify", object{"set_tweak": "highlight"}}
	return more
}

func match(key, pattern string) object {
	return object{"kind": "event_match", "key": key, "pattern": pattern}
}

// A user's rules have bounds in number and size, and whoever has reached them can still remove some.
func TestPushRulesHaveBounds(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice := d.user(t, "alice")
	const kilo = 1 << 10
	long := strings.Repeat("x", kilo)
	path := func(kind, ruleID string) string { return at("pushrules", "global", kind, ruleID) }
	for _, c := range []struct {
		name, kind string
		body       object
		status     int
		errcode    string
	}{
		{"a pattern", "content", highlights(object{"pattern": long + "x"}), 413, "M_TOO_LARGE"},
		{"a pattern of 80 KB", "content", highlights(object{"pattern": strings.Repeat("a*", 40_000) + "b"}),
			413, "M_TOO_LARGE"},
		{"a pattern of a condition", "override",
			highlights(object{"conditions": []object{match("content.x", long+"x")}}), 413, "M_TOO_LARGE"},
		{"a key", "underride", highlights(object{"conditions": []object{match(long+"x", "x")}}), 413, "M_TOO_LARGE"},
		{"a rule", "override", highlights(object{"conditions": slices.Repeat([]object{match("content.x", long)}, 9)}),
			413, "M_TOO_LARGE"},
		{"conditions", "override",
			highlights(object{"conditions": slices.Repeat([]object{match("content.x", "x")}, 21)}),
			400, "M_INVALID_PARAM"},
		{"actions", "sender", object{"actions": slices.Repeat([]string{"notify"}, 21)}, 400, "M_INVALID_PARAM"},
		{"an action", "room", object{"actions": []object{{"set_tweak": "sound", "value": long}}}, 413, "M_TOO_LARGE"},
	} {
		alice.refused(c.status, c.errcode, "PUT", path(c.kind, "!large:x"), c.body)
	}
	alice.refused(400, "M_INVALID_PARAM", "PUT", path("sender", strings.Repeat("x", 256)),
		object{"actions": []string{}})
	alice.refused(413, "M_TOO_LARGE", "PUT", path("underride", ".m.rule.message")+"/actions",
		object{"actions": []string{long}})
	equal(t, "rules after these", len(ruleIDs(alice.must("GET", at("pushrules")+"/", nil).Get("global.content"))), 0)

	n := 0
	for ; n < 1000; n++ {
		a := alice.call("PUT", path("content", fmt.Sprint("r", n)), object{"pattern": long, "actions": []string{}})
		if a.status != 200 {
			equal(t, "the errcode of a document that is full", fmt.Sprint(a.status, a.errcode()), "413M_TOO_LARGE")
			break
		}
	}
	if n < 200 || n > 260 {
		t.Errorf("%d rules of 1 KB are taken, want what 256 KB hold", n)
	}
	all := alice.must("GET", at("pushrules")+"/", nil)
	if size := len(all.Raw); size > 300<<10 {
		t.Errorf("a user's rules are shown in %d bytes", size)
	}
	alice.must("PUT", path("content", "r0")+"/enabled", object{"enabled": false})
	alice.must("DELETE", path("content", "r1"), nil)
	alice.must("PUT", path("content", "another"), object{"pattern": "x", "actions": []string{}})
}

// A user's most expensive rules and another's largest messages keep nobody waiting. A sync that begins after a send got
// its answer has what was sent: if the rules took seconds, it would come back without.
func TestHostilePushRulesStopNobody(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		hostile, helper, other := d.user(t, "hostile"), d.user(t, "helper"), d.user(t, "other")
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		trap, room := hostile.publicRoom(), alice.publicRoom()
		helper.join(trap)
		other.join(trap)
		bob.join(room)
		put := func(kind string, i int, rule object) {
			// A server may refuse a rule, but not be stopped by it.
			hostile.call("PUT", at("pushrules", "global", kind, fmt.Sprint("r", i)), highlights(rule))
		}
		stars, deep := strings.Repeat("a*", 511)+"b", "content"+strings.Repeat(".d", 400)
		for i := range 40 {
			put("content", i, object{"pattern": stars})
			put("underride", i, object{"conditions": []object{match("content.body", strings.Repeat("?", 1023)+"b")}})
		}
		put("override", 0, object{"conditions": []object{match("content.x", stars), match(deep, "*")}})
		put("content", -1, object{"pattern": strings.Repeat("a*", 40_000) + "b"})
		since, otherSince := bob.now(), other.now()
		for range 3 {
			large := helper.send(trap, "m.room.message",
				text(strings.Repeat("a", 40_000), "x", strings.Repeat("a", 15_000)))
			if got := ids(roomIn(other.sync(otherSince), "join",
				trap).Get("timeline.events")); !slices.Contains(got, large) {
				t.Fatalf("a member of the room sees %q and not the large message", got)
			}
			said := alice.say(room, "hello")
			if got := ids(roomIn(bob.sync(since), "join", room).Get("timeline.events")); !slices.Contains(got, said) {
				t.Fatalf("a bystander sees %q and not what was just sent", got)
			}
		}
		equal(t, "what the messages count", hostile.counts(trap), [2]int64{3, 0})
		equal(t, "notifications", hostile.must("GET", at("notifications"), nil).Get("notifications.#").Int(), 3)
	})
}

// Whom an event mentions is no matter of how many others it mentions before, and the counts agree with the list of
// notifications.
func TestEveryMentionCounts(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		many := make([]string, 1000)
		for i := range many {
			many[i] = fmt.Sprintf("@nobody%d:%s", i, strings.SplitN(bob.userID, ":", 2)[1])
		}
		want := 0
		for _, c := range []struct {
			name     string
			mentions any
			counts   bool
		}{
			{"the last of many", object{"user_ids": append(many, bob.userID)}, true},
			{"among what is no user id", object{"user_ids": []any{1, "x", nil, object{}, bob.userID, bob.userID}},
				true},
			{"a string", object{"user_ids": bob.userID}, false},
			{"an object", object{"user_ids": object{"x": bob.userID}}, false},
			{"a list within a list", object{"user_ids": [][]string{{bob.userID}}}, false},
		} {
			alice.send(room, "m.room.message", text("x", "m.mentions", c.mentions))
			if c.counts {
				want++
			}
			equal(t, "highlights after "+c.name, bob.counts(room)[1], int64(want))
			listed := bob.must("GET", at("notifications")+"?only=highlight", nil).Get("notifications.#").Int()
			equal(t, "listed highlights after "+c.name, listed, int64(want))
		}
	})
}

// A rule on the sender's power asks for it whether the event mentions the room by m.mentions or not.
func TestARuleOnThePowerOfTheSender(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
	room := alice.publicRoom()
	bob.join(room)
	carol.join(room)
	bob.must("PUT", at("pushrules", "global", "override", "roomnotif"), highlights(object{
		"conditions": []object{match("content.body", "@room"),
			{"kind": "sender_notification_permission", "key": "room"}}}))
	alice.say(room, "@room, look")
	carol.say(room, "@room, look")
	equal(t, "counts", bob.counts(room), [2]int64{2, 1})
	events := bob.must("GET", at("notifications")+"?only=highlight", nil).Get("notifications")
	equal(t, "the highlight", gjson.Get(events.Raw, "0.event.sender").Str, alice.userID)
}

// A room's stripped state, which each sync of every invited user may show, has a bound: what is largest is left out.
func TestStrippedStateOfAnInviteHasABound(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	room := alice.createRoom(object{"preset": "private_chat", "name": "small"})
	long := strings.Repeat("x", 50_000)
	alice.setState(room, "m.room.topic", "", object{"topic": long})
	alice.setState(room, "m.room.avatar", "", object{"url": "mxc://" + long})
	alice.setState(room, "m.room.encryption", "", object{"algorithm": "m.megolm.v1.aes-sha2", "x": long})
	alice.invite(room, bob)
	state := roomIn(bob.sync(""), "invite", room).Get("invite_state.events")
	if len(state.Raw) > 70_000 {
		t.Errorf("an invite shows %d bytes of stripped state", len(state.Raw))
	}
	equal(t, "the name", find(state, "m.room.name", "").Get("content.name").Str, "small")
	equal(t, "the invite", find(state, "m.room.member", bob.userID).Get("content.membership").Str, "invite")
	for _, eventType := range []string{"m.room.create", "m.room.join_rules"} {
		if !find(state, eventType, "").Exists() {
			t.Errorf("%s is left out", eventType)
		}
	}
}
