package blackbox

import (
	"strings"
	"testing"
	"time"
)

func TestATransactionIDMakesOneEvent(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room, other := alice.publicRoom(), alice.publicRoom()
		path := at("rooms", room, "send", "m.room.message", "same")
		first := alice.must("PUT", path, object{"body": "1", "msgtype": "m.text"}).Get("event_id").Str
		equal(t, "the event of a repeated request", alice.must("PUT", path, object{"body": "2", "msgtype": "m.text"}).Get("event_id").Str, first)
		elsewhere := alice.must("PUT", at("rooms", other, "send", "m.room.message", "same"), object{"body": "1", "msgtype": "m.text"}).Get("event_id").Str
		if elsewhere == first {
			t.Error("a transaction id is not scoped by its room")
		}
		if device := alice.login(); device.must("PUT", path, object{"body": "1", "msgtype": "m.text"}).Get("event_id").Str == first {
			t.Error("a transaction id is not scoped by its device")
		}
		e := alice.must("GET", at("rooms", room, "event", first), nil)
		for _, path := range []string{at("rooms", room, "send", "m.room.message", ""),
			at("rooms", room, "redact", first, "")} {
			for _, path := range []string{path, delaying(path, time.Hour)} {
				alice.refused(400, "M_INVALID_PARAM", "PUT", path, object{"msgtype": "m.text", "body": "x"})
			}
		}
		equal(t, "unsigned.transaction_id to the sending device", e.Get("unsigned.transaction_id").Str, "same")
		other2 := alice.login()
		if other2.must("GET", at("rooms", room, "event", first), nil).Get("unsigned.transaction_id").Exists() {
			t.Error("another device sees the transaction id")
		}
	})
}

func TestState(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "private_chat"})
		first := alice.setState(room, "m.room.topic", "", object{"topic": "one"})
		equal(t, "the event of the same state again", alice.setState(room, "m.room.topic", "", object{"topic": "one"}), first)
		second := alice.setState(room, "m.room.topic", "", object{"topic": "two"})
		equal(t, "content", alice.must("GET", at("rooms", room, "state", "m.room.topic"), nil).Get("topic").Str, "two")
		equal(t, "content with an empty key", alice.must("GET", at("rooms", room, "state", "m.room.topic")+"/", nil).Get("topic").Str, "two")
		event := alice.must("GET", at("rooms", room, "state", "m.room.topic")+"?format=event", nil)
		equal(t, "format=event", event.Get("event_id").Str, second)
		all := alice.must("GET", at("rooms", room, "state"), nil)
		equal(t, "the whole state", find(all, "m.room.topic", "").Get("event_id").Str, second)
		changed := alice.must("GET", at("rooms", room, "event", second), nil)
		equal(t, "replaces_state", changed.Get("unsigned.replaces_state").Str, first)
		equal(t, "prev_content", changed.Get("unsigned.prev_content.topic").Str, "one")
		alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "state", "m.room.nothing"), nil)
		bob.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "state"), nil)
		bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "state", "m.room.topic"), object{"topic": "three"})
		bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "send", "m.room.message", "1"), object{"body": "x"})
	})
}

func TestRedaction(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		secret, kept := alice.say(room, "secret"), alice.say(room, "kept")
		bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "redact", secret, "1"), object{})
		redaction := alice.must("PUT", at("rooms", room, "redact", secret, "1"), object{"reason": "slip"}).Get("event_id").Str
		equal(t, "the event of a repeated request", alice.must("PUT", at("rooms", room, "redact", secret, "1"), object{}).Get("event_id").Str, redaction)
		e := bob.must("GET", at("rooms", room, "event", secret), nil)
		if e.Get("content.body").Exists() || e.Get("unsigned.redacted_because.event_id").Str != redaction {
			t.Errorf("the redacted event: %s", e.Raw)
		}
		equal(t, "another event", bob.must("GET", at("rooms", room, "event", kept), nil).Get("content.body").Str, "kept")
		if raw := bob.sync("").Raw; strings.Contains(raw, `"secret"`) {
			t.Error("a sync shows what was redacted")
		}
		theirs := bob.say(room, "from bob")
		alice.must("PUT", at("rooms", room, "redact", theirs, "2"), object{}) // a creator may
		alice.refused(404, "M_NOT_FOUND", "PUT", at("rooms", room, "redact", "$nothing", "3"), object{})
	})
}

func TestMessagesAndContext(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		var sent []string
		for _, text := range strings.Fields("a b c d e f g h i j") {
			sent = append(sent, alice.say(room, text))
		}
		path := at("rooms", room, "messages")
		var seen []string
		from := ""
		for {
			page := alice.must("GET", path+"?dir=b&limit=4"+from, nil)
			seen = append(seen, ids(page.Get("chunk"))...)
			if !page.Get("end").Exists() {
				break
			}
			from = "&from=" + page.Get("end").Str
			if len(seen) > 100 {
				t.Fatal("pages do not end")
			}
		}
		for i, id := range seen[:10] {
			equal(t, "paging back", id, sent[9-i])
		}
		create := alice.must("GET", at("rooms", room, "event", seen[len(seen)-1]), nil)
		equal(t, "the last event of all", create.Get("type").Str, "m.room.create")

		forward := alice.must("GET", path+"?dir=f&limit=100", nil)
		equal(t, "events forward", len(forward.Get("chunk").Array()), len(seen))
		filtered := alice.must("GET", path+`?dir=b&limit=3&filter={"types":["m.room.member"]}`, nil)
		equal(t, "filtered events", len(filtered.Get("chunk").Array()), 1)

		around := alice.must("GET", at("rooms", room, "context", sent[5])+"?limit=4", nil)
		equal(t, "the event of the context", around.Get("event.event_id").Str, sent[5])
		equal(t, "before", strings.Join(ids(around.Get("events_before")), " "), sent[4]+" "+sent[3])
		equal(t, "after", strings.Join(ids(around.Get("events_after")), " "), sent[6]+" "+sent[7])
		back := alice.must("GET", path+"?dir=b&limit=1&from="+around.Get("start").Str, nil)
		equal(t, "before the context", back.Get("chunk.0.event_id").Str, sent[2])
		on := alice.must("GET", path+"?dir=f&limit=1&from="+around.Get("end").Str, nil)
		equal(t, "after the context", on.Get("chunk.0.event_id").Str, sent[8])

		alice.refused(400, "M_INVALID_PARAM", "GET", path+"?dir=b&from=nonsense", nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", path+"?dir=sideways", nil)
		alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "context", "$nothing"), nil)
		alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "event", "$nothing"), nil)
	})
}

// TestARedactionIsSentAsAnEvent is § Redactions, Client behaviour: in all room versions, wherever they have the id of what is redacted.
func TestARedactionIsSentAsAnEvent(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		for _, version := range []string{"1", "3", "10", "11", "12"} {
			room := alice.createRoom(object{"room_version": version})
			said := alice.say(room, "said")
			redaction := alice.send(room, "m.room.redaction", object{"redacts": said, "reason": "a reason"})
			event := alice.must("GET", at("rooms", room, "event", said), nil)
			equal(t, "the content in version "+version, event.Get("content").Raw, "{}")
			because := event.Get("unsigned.redacted_because")
			equal(t, "the redaction in version "+version, because.Get("event_id").Str, redaction)
			equal(t, "the reason in version "+version, because.Get("content.reason").Str, "a reason")
			for _, place := range []string{"redacts", "content.redacts"} { // both, for clients of either form
				equal(t, place+" in version "+version, because.Get(place).Str, said)
			}
		}
	})
}
