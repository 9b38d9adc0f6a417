package syncapi_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	typingapi "github.com/matrix-org/dendrite/typingserver/api"
)

func (w *world) read(user id.UserID, room id.RoomID, receiptType string, event id.EventID, body kv) error {
	w.t.Helper()
	_, err := w.call(user, "receipt", map[string]string{"roomId": string(room), "receiptType": receiptType, "eventId": string(event)}, "", body)
	return err
}

func (w *world) mustRead(user id.UserID, room id.RoomID, receiptType string, event id.EventID, body kv) {
	w.t.Helper()
	if err := w.read(user, room, receiptType, event, body); err != nil {
		w.t.Fatal(err)
	}
}

// unread is what an initial sync counts, notifications and highlights.
func (w *world) unread(user id.UserID, room id.RoomID) [2]int64 {
	w.t.Helper()
	counts := in(w.get(user, ""), "join", room).Get("unread_notifications")
	return [2]int64{counts.Get("notification_count").Int(), counts.Get("highlight_count").Int()}
}

func (w *world) wantUnread(user id.UserID, room id.RoomID, notify, highlight int64, when string) {
	w.t.Helper()
	if got := w.unread(user, room); got != [2]int64{notify, highlight} {
		w.t.Errorf("%s: %v unread, want %d and %d", when, got, notify, highlight)
	}
}

func mention(users ...id.UserID) kv {
	return kv{"msgtype": "m.text", "body": "hey", "m.mentions": kv{"user_ids": users}}
}

func TestReceiptsAndCounts(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.wantUnread(bob, room1, 0, 0, "after joining")
		one := w.rooms.say(room1, alice, "one")
		w.rooms.state(room1, alice, "m.room.topic", "", kv{"topic": "state does not notify"})
		w.rooms.put(room1, alice, "m.room.message", nil, mention(bob))
		three := w.rooms.say(room1, alice, "three")
		w.wantUnread(bob, room1, 3, 1, "three messages")
		w.wantUnread(alice, room1, 0, 0, "of her own")
		since, sinceAlice := next(w.get(bob, "")), next(w.get(alice, ""))
		poll := w.poll(alice, sinceAlice)
		w.mustRead(bob, room1, "m.read", one, nil)
		answer := receive(t, poll)
		receipt := in(answer, "join", room1).Get(`ephemeral.events.#(type=="m.receipt").content`)
		if ts := receipt.Get(gjson.Escape(string(one)) + `.m\.read.` + gjson.Escape(string(bob)) + ".ts"); ts.Int() == 0 {
			t.Errorf("alice does not see bob's receipt: %s", answer)
		}
		w.wantUnread(bob, room1, 2, 1, "one is read")
		answer = w.get(bob, since)
		if n := in(answer, "join", room1).Get("unread_notifications.notification_count").Int(); n != 2 {
			t.Errorf("bob's own device is told %d: %s", n, answer)
		}
		sinceAlice = next(w.get(alice, sinceAlice))
		w.mustRead(bob, room1, "m.read.private", three, nil)
		w.wantUnread(bob, room1, 0, 0, "all is read")
		if answer := w.get(alice, sinceAlice); in(answer, "join", room1).Exists() {
			t.Errorf("alice sees a private receipt: %s", answer)
		}
		before := w.db.Count()
		w.mustRead(bob, room1, "m.read.private", one, nil)
		if w.db.Count().Since(before).Rows != 0 {
			t.Error("a receipt that goes back is written")
		}
		w.wantUnread(bob, room1, 0, 0, "a receipt that goes back")
		four := w.rooms.say(room1, alice, "four")
		w.wantUnread(bob, room1, 1, 0, "four")
		w.rooms.put(room1, alice, "m.room.redaction", nil, kv{}, redacts(four))
		w.wantUnread(bob, room1, 0, 0, "four is redacted")
		w.rooms.put(room1, alice, "m.room.message", nil, mention(bob))
		w.rooms.say(room1, bob, "my answer")
		w.wantUnread(bob, room1, 0, 0, "answering is reading")
		if err := w.read(carol, room1, "m.read", one, nil); !mxerr.Is(err, "M_FORBIDDEN") {
			t.Errorf("a receipt of somebody else: %v", err)
		}
		if err := w.read(bob, room1, "m.unread", one, nil); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("an unknown receipt: %v", err)
		}
		if err := w.read(bob, room1, "m.read", one, kv{"thread_id": ""}); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("an empty thread: %v", err)
		}
	})
}

func TestThreadsAreCountedApart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		root := w.rooms.say(room1, alice, "root")
		reply := func() id.EventID {
			return w.rooms.put(room1, alice, "m.room.message", nil, kv{"msgtype": "m.text", "body": "in thread",
				"m.relates_to": kv{"rel_type": "m.thread", "event_id": root}})
		}
		first := reply()
		w.rooms.put(room1, alice, "m.room.message", nil, kv{"msgtype": "m.text", "body": "about a reply",
			"m.relates_to": kv{"rel_type": "m.reference", "event_id": first}})
		main := w.rooms.say(room1, alice, "main")
		count := func(when string, inMain, inThread int64) {
			t.Helper()
			r := in(w.get(bob, "", "filter", `{"room":{"timeline":{"unread_thread_notifications":true}}}`), "join", room1)
			if n := r.Get("unread_notifications.notification_count").Int(); n != inMain {
				t.Errorf("%s: %d in the main timeline, want %d", when, n, inMain)
			}
			if n := r.Get("unread_thread_notifications." + gjson.Escape(string(root)) + ".notification_count").Int(); n != inThread {
				t.Errorf("%s: %d in the thread, want %d", when, n, inThread)
			}
		}
		count("at first", 2, 2)
		w.mustRead(bob, room1, "m.read", first, kv{"thread_id": string(root)})
		count("one of the thread is read", 2, 1)
		w.mustRead(bob, room1, "m.read", main, kv{"thread_id": "main"})
		count("the main timeline is read", 0, 1)
		if err := w.read(bob, room1, "m.read", first, kv{"thread_id": "main"}); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("a receipt for the wrong thread: %v", err)
		}
		last := reply()
		count("another reply", 0, 2)
		w.mustRead(bob, room1, "m.read", last, nil)
		count("all is read", 0, 0)
	})
}

func TestPushRulesSayWhatCounts(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.rooms.say(room1, alice, "one")
		since := next(w.get(bob, ""))
		rule := map[string]string{"kind": "room", "ruleId": string(room1)}
		w.must(bob, "put_push_rule", rule, kv{"actions": []string{}})
		answer := w.get(bob, since)
		if !answer.Get(`account_data.events.#(type=="m.push_rules").content.global.room.0`).Exists() {
			t.Errorf("the new rule is not synced: %s", answer)
		}
		w.rooms.say(room1, alice, "two")
		w.wantUnread(bob, room1, 1, 0, "muted after the first")
		w.rooms.put(room1, alice, "m.room.message", nil, mention(bob))
		w.wantUnread(bob, room1, 2, 1, "a mention in a muted room")
		w.must(bob, "delete_push_rule", rule, nil)
		w.rooms.say(room1, alice, "four")
		w.wantUnread(bob, room1, 3, 1, "unmuted")
		w.must(bob, "put_push_rule", map[string]string{"kind": "content", "ruleId": "cake"}, kv{"pattern": "cake", "actions": []any{"notify", kv{"set_tweak": "highlight"}}})
		w.rooms.say(room1, alice, "there is cake")
		w.wantUnread(bob, room1, 4, 2, "a keyword")
		w.mustRead(bob, room1, "m.read", w.rooms.say(room1, alice, "bye"), nil)
		w.wantUnread(bob, room1, 0, 0, "all is read")
		if _, err := w.call(bob, "get_push_rule", map[string]string{"kind": "room", "ruleId": "none"}, "", nil); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("a rule that is not there: %v", err)
		}
		if !w.must(bob, "get_push_rules", nil, nil).Get(`global.override.#(rule_id==".m.rule.master")`).Exists() {
			t.Error("the default rules are missing")
		}
	})
}

func TestAccountDataTagsAndMarkers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		first := w.get(alice, "")
		if !first.Get(`account_data.events.#(type=="m.push_rules")`).Exists() {
			t.Errorf("the initial sync has no push rules: %s", first)
		}
		vars := map[string]string{"userId": string(alice), "type": "org.example.config"}
		if _, err := w.call(alice, "get_account_data", vars, "", nil); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("account data that is not there: %v", err)
		}
		if _, err := w.call(bob, "put_account_data", vars, "", kv{}); !mxerr.Is(err, "M_FORBIDDEN") {
			t.Errorf("account data of somebody else: %v", err)
		}
		for _, own := range []string{"m.fully_read", "m.push_rules"} {
			_, err := w.call(alice, "put_account_data", map[string]string{"userId": string(alice), "type": own}, "", kv{})
			if m, is := mxerr.As(err); !is || m.Status != 405 || m.Code != "M_BAD_JSON" {
				t.Errorf("%s can be set: %v", own, err)
			}
		}
		poll := w.poll(alice, next(first))
		w.must(alice, "put_account_data", vars, kv{"a": 1})
		answer := receive(t, poll)
		if answer.Get(`account_data.events.#(type=="org.example.config").content.a`).Int() != 1 {
			t.Errorf("account data is not synced: %s", answer)
		}
		if w.must(alice, "get_account_data", vars, nil).Get("a").Int() != 1 {
			t.Error("account data is not read back")
		}
		tag := map[string]string{"userId": string(alice), "roomId": string(room1), "tag": "u.work"}
		w.must(alice, "put_tag", tag, kv{"order": 0.5})
		answer = w.get(alice, next(answer))
		if in(answer, "join", room1).Get(`account_data.events.#(type=="m.tag").content.tags.u\.work.order`).Num != 0.5 {
			t.Errorf("the tag is not synced: %s", answer)
		}
		w.must(alice, "delete_tag", tag, nil)
		if n := len(w.must(alice, "get_tags", tag, nil).Get("tags").Map()); n != 0 {
			t.Errorf("%d tags are left", n)
		}
		said := w.rooms.say(room1, alice, "read this")
		since := next(w.get(alice, next(answer)))
		w.must(alice, "read_markers", map[string]string{"roomId": string(room1)}, kv{"m.fully_read": said, "m.read": said})
		answer = w.get(alice, since)
		if in(answer, "join", room1).Get(`account_data.events.#(type=="m.fully_read").content.event_id`).Str != string(said) {
			t.Errorf("the read marker is not synced: %s", answer)
		}
		if again := w.get(alice, next(answer)); in(again, "join", room1).Exists() {
			t.Errorf("something is said twice: %s", again)
		}
	})
}

func TestTyping(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		since := next(w.get(alice, ""))
		types := func(users ...id.UserID) {
			message, err := json.Marshal(typingapi.OutputTyping{RoomID: room1, Users: users, Number: time.Now().UnixMicro()})
			if err == nil {
				err = w.transport.Publish(t.Context(), typingapi.Topic, string(room1), message)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		poll := w.poll(alice, since)
		types(bob)
		answer := receive(t, poll)
		if who := in(answer, "join", room1).Get(`ephemeral.events.#(type=="m.typing").content.user_ids.0`).Str; who != string(bob) {
			t.Errorf("who types: %s", answer)
		}
		poll = w.poll(alice, next(answer))
		types([]id.UserID{}...)
		answer = receive(t, poll)
		if who := in(answer, "join", room1).Get(`ephemeral.events.#(type=="m.typing").content.user_ids`); !who.Exists() || len(who.Array()) != 0 {
			t.Errorf("nobody types: %s", answer)
		}
	})
}
