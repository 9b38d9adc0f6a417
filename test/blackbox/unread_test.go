package blackbox

import (
	"testing"

	"github.com/tidwall/gjson"
)

// counts are the unread notifications and highlights of a room, as the initial sync has them.
func (c *client) counts(room string) [2]int64 {
	c.t.Helper()
	return countsIn(roomIn(c.sync(""), "join", room))
}

func countsIn(room gjson.Result) [2]int64 {
	return [2]int64{room.Get("unread_notifications.notification_count").Int(), room.Get("unread_notifications.highlight_count").Int()}
}

func text(body string, more ...any) object {
	o := object{"msgtype": "m.text", "body": body}
	for i := 0; i < len(more); i += 2 {
		o[more[i].(string)] = more[i+1]
	}
	return o
}

// Each event counts as the predefined rules say.
func TestWhatCounts(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.publicRoom()
		bob.join(room)
		carol.join(room)
		target := alice.say(room, "first")
		bob.read(room, "m.read", target)
		cases := []struct {
			name string
			do   func() string
			want [2]int64
		}{
			{"a message", func() string { return alice.say(room, "x") }, [2]int64{1, 0}},
			{"an encrypted event", func() string { return alice.send(room, "m.room.encrypted", object{"algorithm": "x"}) }, [2]int64{1, 0}},
			{"a mention", func() string {
				return alice.send(room, "m.room.message", text("x", "m.mentions", object{"user_ids": []string{bob.userID}}))
			}, [2]int64{1, 1}},
			{"a mention of another", func() string {
				return alice.send(room, "m.room.message", text("x", "m.mentions", object{"user_ids": []string{carol.userID}}))
			}, [2]int64{1, 0}},
			{"a mention in an event that does not notify otherwise", func() string {
				return alice.send(room, "x.odd", object{"m.mentions": object{"user_ids": []string{bob.userID}}})
			}, [2]int64{1, 1}},
			{"a mention of the room", func() string {
				return alice.send(room, "m.room.message", text("@room", "m.mentions", object{"room": true}))
			}, [2]int64{1, 1}},
			{"a mention of the room without the power", func() string {
				return carol.send(room, "m.room.message", text("@room", "m.mentions", object{"room": true}))
			}, [2]int64{1, 0}},
			{"a notice", func() string { return alice.send(room, "m.room.message", object{"msgtype": "m.notice", "body": "x"}) }, [2]int64{0, 0}},
			{"a reaction", func() string {
				return alice.send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": target, "key": "+"}})
			}, [2]int64{0, 0}},
			{"an edit", func() string {
				return alice.send(room, "m.room.message", text("* x", "m.new_content", text("x"), "m.relates_to", object{"rel_type": "m.replace", "event_id": target}))
			}, [2]int64{0, 0}},
			{"state", func() string { return alice.setState(room, "m.room.topic", "", object{"topic": "x"}) }, [2]int64{0, 0}},
			{"an event of another type", func() string { return alice.send(room, "x.odd", object{}) }, [2]int64{0, 0}},
			{"a tombstone", func() string {
				return alice.setState(room, "m.room.tombstone", "", object{"body": "x", "replacement_room": room})
			}, [2]int64{1, 1}},
			{"a call", func() string { return alice.send(room, "m.call.invite", object{"call_id": "1"}) }, [2]int64{1, 0}},
		}
		for _, c := range cases {
			since := bob.now()
			event := c.do()
			equal(t, c.name, bob.counts(room), c.want)
			equal(t, c.name+", in an incremental sync", countsIn(roomIn(bob.sync(since), "join", room)), c.want)
			since = bob.now()
			bob.read(room, "m.read", event)
			equal(t, c.name+", read", bob.counts(room), [2]int64{})
			if r := roomIn(bob.sync(since), "join", room); !r.Get("unread_notifications.notification_count").Exists() || countsIn(r) != [2]int64{} {
				t.Errorf("%s: the sync after the receipt has %s", c.name, r.Raw)
			}
		}
	})
}

func TestUnreadCounts(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		alice.say(room, "before the join")
		bob.join(room)
		equal(t, "after joining", bob.counts(room), [2]int64{})
		var events []string
		for range 3 {
			events = append(events, alice.say(room, "x"))
		}
		mention := alice.send(room, "m.room.message", text("x", "m.mentions", object{"user_ids": []string{bob.userID}}))
		equal(t, "unread", bob.counts(room), [2]int64{4, 1})
		equal(t, "one's own messages", alice.counts(room), [2]int64{})
		bob.read(room, "m.read", events[1])
		equal(t, "read in part", bob.counts(room), [2]int64{2, 1})
		bob.read(room, "m.read", events[0])
		equal(t, "read further up", bob.counts(room), [2]int64{2, 1})
		bob.read(room, "m.read.private", mention)
		equal(t, "read in private", bob.counts(room), [2]int64{})
		bob.read(room, "m.read", events[2])
		equal(t, "the public receipt is behind", bob.counts(room), [2]int64{})
		alice.say(room, "x")
		equal(t, "unread again", bob.counts(room), [2]int64{1, 0})
		bob.say(room, "an answer")
		equal(t, "having answered", bob.counts(room), [2]int64{})
		equal(t, "the other", alice.counts(room), [2]int64{1, 0})

		slip := alice.send(room, "m.room.message", text("x", "m.mentions", object{"user_ids": []string{bob.userID}}))
		equal(t, "before a redaction", bob.counts(room), [2]int64{1, 1})
		alice.must("PUT", at("rooms", room, "redact", slip, alice.txn()), object{})
		equal(t, "a redaction takes back what it redacts", bob.counts(room), [2]int64{})

		alice.say(room, "x")
		bob.must("POST", at("rooms", room, "leave"), object{})
		alice.say(room, "x")
		bob.join(room)
		equal(t, "after joining again", bob.counts(room), [2]int64{})
	})
}

func TestUnreadCountsOfThreads(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		root := alice.say(room, "root")
		relation := object{"rel_type": "m.thread", "event_id": root}
		reply := func(more ...any) string {
			return alice.send(room, "m.room.message", text("x", append(more, "m.relates_to", relation)...))
		}
		first := reply()
		reply("m.mentions", object{"user_ids": []string{bob.userID}})
		alice.say(room, "main")
		check := func(what string, main, thread [2]int64) {
			t.Helper()
			r := roomIn(bob.sync("", timelineOf(object{"unread_thread_notifications": true})...), "join", room)
			equal(t, what+": main", countsIn(r), main)
			of := r.Get("unread_thread_notifications." + escape(root))
			equal(t, what+": thread", [2]int64{of.Get("notification_count").Int(), of.Get("highlight_count").Int()}, thread)
			both := roomIn(bob.sync(""), "join", room)
			equal(t, what+": room", countsIn(both), [2]int64{main[0] + thread[0], main[1] + thread[1]})
			if both.Get("unread_thread_notifications").Exists() {
				t.Error("counts of threads that were not asked for")
			}
		}
		check("unread", [2]int64{2, 0}, [2]int64{2, 1})
		bob.read(room, "m.read", first, root)
		check("the first of the thread", [2]int64{2, 0}, [2]int64{1, 1})
		bob.read(room, "m.read", root, "main")
		check("the root in the main timeline", [2]int64{1, 0}, [2]int64{1, 1})
		last := alice.say(room, "main")
		bob.read(room, "m.read", last)
		check("all, unthreaded", [2]int64{}, [2]int64{})
		reply()
		check("the thread goes on", [2]int64{}, [2]int64{1, 0})
	})
}

// A user's own rules change what counts from then on.
func TestCountsByOwnRules(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		mention := func(c *client) object { return text("x", "m.mentions", object{"user_ids": []string{c.userID}}) }
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		member := func() *client {
			c := d.user(t, "bob")
			c.join(room)
			return c
		}
		muted := member()
		muted.must("PUT", at("pushrules", "global", "room", room), object{"actions": []string{}})
		deaf := member()
		deaf.must("PUT", at("pushrules", "global", "override", room), object{"actions": []string{},
			"conditions": []object{{"kind": "event_match", "key": "room_id", "pattern": room}}})
		off := member()
		off.must("PUT", at("pushrules", "global", "override", ".m.rule.master", "enabled"), object{"enabled": true})
		picky := member()
		picky.must("PUT", at("pushrules", "global", "content", "tea"), object{"pattern": "tea", "actions": []any{"notify", object{"set_tweak": "highlight"}}})
		apart := member()
		apart.must("PUT", at("pushrules", "global", "sender", alice.userID), object{"actions": []string{}})
		quiet := member()
		quiet.must("PUT", at("pushrules", "global", "underride", ".m.rule.message", "actions"), object{"actions": []string{}})
		usual := member()

		alice.say(room, "plain")
		for who, want := range map[*client][2]int64{muted: {}, deaf: {}, off: {}, picky: {1, 0}, apart: {}, quiet: {}, usual: {1, 0}} {
			equal(t, "a message to "+who.userID, who.counts(room), want)
		}
		alice.say(room, "some Tea, please")
		for who, want := range map[*client][2]int64{muted: {}, deaf: {}, picky: {2, 1}, usual: {2, 0}} {
			equal(t, "a keyword to "+who.userID, who.counts(room), want)
		}
		alice.say(room, "a steam engine")
		equal(t, "a keyword within a word", picky.counts(room), [2]int64{3, 1})
		for _, who := range []*client{muted, deaf, off, usual} {
			alice.send(room, "m.room.message", mention(who))
		}
		equal(t, "a mention in a muted room", muted.counts(room), [2]int64{1, 1})
		equal(t, "a mention in a room without any", deaf.counts(room), [2]int64{})
		equal(t, "a mention with everything off", off.counts(room), [2]int64{})
		equal(t, "a mention as usual", usual.counts(room), [2]int64{7, 1})

		// What counted before stays.
		usual.must("PUT", at("pushrules", "global", "room", room), object{"actions": []string{}})
		equal(t, "muted afterwards", usual.counts(room), [2]int64{7, 1})
		last := alice.say(room, "x")
		equal(t, "a message after muting", usual.counts(room), [2]int64{7, 1})
		usual.must("DELETE", at("pushrules", "global", "room", room), nil)
		alice.say(room, "x")
		equal(t, "a message after unmuting", usual.counts(room), [2]int64{8, 1})
		usual.read(room, "m.read", last)
		equal(t, "read up to what was muted", usual.counts(room), [2]int64{1, 0})
	})
}
