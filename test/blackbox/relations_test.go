package blackbox

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// relate sends an event that relates to another one. more are further members of m.relates_to and, below "content", of the content.
func (c *client) relate(room, eventType, relType, parent string, more ...object) string {
	c.t.Helper()
	return c.send(room, eventType, relating(relType, parent, more...))
}

func relating(relType, parent string, more ...object) object {
	relates := object{"rel_type": relType, "event_id": parent}
	content := object{"msgtype": "m.text", "body": relType, "m.relates_to": relates}
	for _, m := range more {
		for key, value := range m {
			if key == "content" {
				for k, v := range value.(object) {
					content[k] = v
				}
			} else {
				relates[key] = value
			}
		}
	}
	return content
}

func (c *client) edit(room, event, text string) string {
	c.t.Helper()
	return c.relate(room, "m.room.message", "m.replace", event, object{"content": object{"m.new_content": object{"msgtype": "m.text", "body": text}}})
}

func (c *client) redact(room, event string) {
	c.t.Helper()
	c.must("PUT", at("rooms", room, "redact", event, c.txn()), object{})
}

// ways is what an event looks like in each endpoint that aggregates what relates to it.
func (c *client) ways(room, event string) map[string]gjson.Result {
	c.t.Helper()
	return map[string]gjson.Result{
		"event":    c.must("GET", at("rooms", room, "event", event), nil),
		"context":  c.must("GET", at("rooms", room, "context", event), nil).Get("event"),
		"messages": byID(c.must("GET", at("rooms", room, "messages")+"?dir=b&limit=100", nil).Get("chunk"), event),
	}
}

func byID(events gjson.Result, event string) gjson.Result {
	for _, e := range events.Array() {
		if e.Get("event_id").Str == event {
			return e
		}
	}
	return gjson.Result{}
}

func TestRelations(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "stranger")
		for _, version := range []string{"1", "11", "12"} {
			room := alice.createRoom(object{"preset": "public_chat", "room_version": version})
			bob.join(room)
			parent := alice.say(room, "parent")
			alice.say(room, "unrelated")
			one := bob.relate(room, "m.room.message", "m.reference", parent)
			two := bob.relate(room, "m.reaction", "m.annotation", parent, object{"key": "👍"})
			three := alice.relate(room, "m.room.encrypted", "m.reference", parent)
			four := alice.relate(room, "m.room.message", "x.odd", parent)
			indirect := bob.relate(room, "m.room.message", "m.reference", one)
			deeper := bob.relate(room, "m.room.message", "m.reference", indirect)
			tooDeep := bob.relate(room, "m.room.message", "m.reference", deeper)
			list := func(who *client, path string) []string {
				t.Helper()
				return ids(who.must("GET", path, nil).Get("chunk"))
			}
			of := v1("rooms", room, "relations", parent)
			same(t, "all children", list(bob, of), []string{four, three, two, one})
			same(t, "forwards", list(bob, of+"?dir=f"), []string{one, two, three, four})
			same(t, "of a type", list(bob, of+"/m.reference"), []string{three, one})
			same(t, "of a type and an event type", list(bob, of+"/m.reference/m.room.encrypted"), []string{three})
			same(t, "of no type", list(bob, of+"/m.nothing"), nil)
			same(t, "recursively", list(bob, of+"?recurse=true"), []string{deeper, indirect, four, three, two, one})
			same(t, "recursively of a type", list(bob, of+"/m.annotation?recurse=true"), []string{two})
			if got := bob.must("GET", of+"?recurse=true", nil).Get("recursion_depth").Int(); got != 3 {
				t.Errorf("recursion_depth is %d", got)
			}
			if bob.must("GET", of, nil).Get("recursion_depth").Exists() {
				t.Error("recursion_depth without recurse")
			}
			var paged []string
			for next := ""; ; {
				page := bob.must("GET", of+"?limit=3&from="+url.QueryEscape(next), nil)
				paged = append(paged, ids(page.Get("chunk"))...)
				if page.Get("prev_batch").Str != next {
					t.Errorf("prev_batch of the page from %q is %q", next, page.Get("prev_batch").Str)
				}
				if next = page.Get("next_batch").Str; next == "" {
					break
				}
			}
			same(t, "in pages", paged, []string{four, three, two, one})
			since := bob.now()
			five := bob.relate(room, "m.room.message", "m.reference", parent)
			same(t, "from a token of a sync, forwards", list(bob, of+"?dir=f&from="+since), []string{five})
			same(t, "to a token of a sync", list(bob, of+"?to="+since), []string{five})

			// A redacted child relates to nothing.
			bob.redact(room, one)
			same(t, "without a redacted child", list(bob, of+"/m.reference"), []string{five, three})
			// Children of a redacted parent remain.
			alice.redact(room, parent)
			same(t, "of a redacted parent", list(bob, of+"/m.reference"), []string{five, three})
			_ = tooDeep

			stranger.refused(404, "M_NOT_FOUND", "GET", of, nil)
			bob.refused(404, "M_NOT_FOUND", "GET", v1("rooms", room, "relations", "$absent"), nil)
			other := bob.publicRoom()
			bob.refused(404, "M_NOT_FOUND", "GET", v1("rooms", other, "relations", parent), nil)
			for _, bad := range []string{"dir=x", "limit=x", "recurse=x", "from=x", "to=x"} {
				bob.refused(400, "M_INVALID_PARAM", "GET", of+"?"+bad, nil)
			}
		}
	})
}

// Children that the viewer may not see are not listed and not aggregated.
func TestRelationsInHistoryThatIsNotVisible(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "private_chat", "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}})
		hidden := alice.say(room, "hidden")
		alice.invite(room, bob)
		bob.join(room)
		root := alice.say(room, "root")
		alice.relate(room, "m.room.message", "m.thread", root)
		last := alice.relate(room, "m.room.message", "m.thread", root)
		bob.must("POST", at("rooms", room, "leave"), object{})
		alice.relate(room, "m.room.message", "m.thread", root)
		alice.edit(room, root, "edited")
		alice.relate(room, "m.room.message", "m.thread", hidden)
		thread := bob.must("GET", at("rooms", room, "event", root), nil).Get(`unsigned.m\.relations`)
		equal(t, "the latest event", thread.Get(`m\.thread.latest_event.event_id`).Str, last)
		equal(t, "the number of events", thread.Get(`m\.thread.count`).Int(), 2)
		if thread.Get(`m\.replace`).Exists() {
			t.Errorf("an edit from after the leave: %s", thread.Raw)
		}
		equal(t, "children", len(bob.must("GET", v1("rooms", room, "relations", root), nil).Get("chunk").Array()), 2)
		same(t, "threads", ids(bob.must("GET", v1("rooms", room, "threads"), nil).Get("chunk")), []string{root})
		bob.refused(404, "M_NOT_FOUND", "GET", v1("rooms", room, "relations", hidden), nil)
	})
}

func TestAggregations(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		event := alice.say(room, "first")
		relations := func(who *client) map[string]gjson.Result {
			t.Helper()
			all := who.ways(room, event)
			for name, e := range all {
				all[name] = e.Get(`unsigned.m\.relations`)
			}
			return all
		}
		for name, r := range relations(bob) {
			if r.Exists() {
				t.Errorf("%s: relations of an event without any: %s", name, r.Raw)
			}
		}
		// Annotations are not aggregated.
		bob.relate(room, "m.reaction", "m.annotation", event, object{"key": "+"})
		one := bob.relate(room, "m.room.message", "m.reference", event)
		two := alice.relate(room, "m.room.encrypted", "m.reference", event)
		alice.edit(room, event, "second")
		third := alice.edit(room, event, "third")
		// None of these replaces it.
		bob.edit(room, event, "by another")
		alice.relate(room, "m.room.message", "m.replace", event)
		alice.relate(room, "x.other", "m.replace", event, object{"content": object{"m.new_content": object{}}})
		alice.edit(room, third, "an edit of an edit")
		alice.setState(room, "m.room.message", "", relating("m.replace", event, object{"content": object{"m.new_content": object{}}}))
		for name, r := range relations(bob) {
			same(t, name+": references", ids(r.Get(`m\.reference.chunk`)), []string{one, two})
			equal(t, name+": edit", r.Get(`m\.replace.event_id`).Str, third)
			equal(t, name+": content of the edit", r.Get(`m\.replace.content.m\.new_content.body`).Str, "third")
			equal(t, name+": kinds", len(r.Map()), 2)
		}
		for name, e := range bob.ways(room, event) {
			equal(t, name+": the content stays", e.Get("content.body").Str, "first")
		}
		// The last edit is redacted, then the event itself.
		alice.redact(room, third)
		for name, r := range relations(bob) {
			equal(t, name+": edit", r.Get(`m\.replace.content.m\.new_content.body`).Str, "second")
		}
		alice.redact(room, event)
		for name, r := range relations(bob) {
			if r.Get(`m\.replace`).Exists() {
				t.Errorf("%s: an edit of a redacted event: %s", name, r.Raw)
			}
			same(t, name+": references", ids(r.Get(`m\.reference.chunk`)), []string{one, two})
		}
	})
}

func TestEncryptedEditsAreAggregated(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		event := alice.send(room, "m.room.encrypted", object{"ciphertext": "x"})
		edit := alice.relate(room, "m.room.encrypted", "m.replace", event)
		for name, e := range alice.ways(room, event) {
			equal(t, name, e.Get(`unsigned.m\.relations.m\.replace.event_id`).Str, edit)
		}
	})
}

// A sync has them where its timeline is limited, and the events themselves elsewhere.
func TestAggregationsInASync(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		since := bob.now()
		alice.say(room, "before")
		event := alice.say(room, "first")
		edit := alice.edit(room, event, "second")
		answer := alice.relate(room, "m.room.message", "m.thread", event)
		for _, token := range []string{"", since} {
			timeline := roomIn(bob.sync(token, timelineOf(object{"limit": 3})...), "join", room).Get("timeline")
			equal(t, "limited", timeline.Get("limited").Bool(), true)
			got := byID(timeline.Get("events"), event).Get(`unsigned.m\.relations`)
			equal(t, "edit", got.Get(`m\.replace.event_id`).Str, edit)
			equal(t, "thread", got.Get(`m\.thread.latest_event.event_id`).Str, answer)
		}
		timeline := roomIn(bob.sync(since, timelineOf(object{"limit": 4})...), "join", room).Get("timeline")
		if got := byID(timeline.Get("events"), event); got.Get(`unsigned.m\.relations`).Exists() || !got.Exists() {
			t.Errorf("aggregations in a timeline that is not limited: %s", timeline.Raw)
		}
	})
}

func TestThreads(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, noisy, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "noisy"), d.user(t, "stranger")
		room := alice.publicRoom()
		bob.join(room)
		noisy.join(room)
		path := v1("rooms", room, "threads")
		list := func(who *client, parameters string) []string {
			t.Helper()
			return ids(who.must("GET", path+parameters, nil).Get("chunk"))
		}
		same(t, "no threads", list(bob, ""), nil)
		first, second, third := alice.say(room, "first"), bob.say(room, "second"), noisy.say(room, "third")
		reply := func(who *client, root string) string { return who.relate(room, "m.room.message", "m.thread", root) }
		reply(bob, first)
		reply(alice, second)
		latest := reply(alice, first)
		reply(alice, third)
		same(t, "by the latest event", list(bob, ""), []string{third, first, second})
		same(t, "with the user", list(bob, "?include=participated"), []string{first, second})
		same(t, "with another user", list(noisy, "?include=participated"), []string{third})
		edit := alice.edit(room, latest, "edited")
		for name, e := range bob.ways(room, first) {
			thread := e.Get(`unsigned.m\.relations.m\.thread`)
			equal(t, name+": latest event", thread.Get("latest_event.event_id").Str, latest)
			equal(t, name+": edit of the latest event", thread.Get(`latest_event.unsigned.m\.relations.m\.replace.event_id`).Str, edit)
			equal(t, name+": count", thread.Get("count").Int(), 2)
			equal(t, name+": participated", thread.Get("current_user_participated").Bool(), true)
		}
		equal(t, "not participated", noisy.must("GET", at("rooms", room, "event", first), nil).Get(`unsigned.m\.relations.m\.thread.current_user_participated`).Raw, "false")
		var paged []string
		for next := ""; ; {
			page := bob.must("GET", path+"?limit=1&from="+url.QueryEscape(next), nil)
			paged = append(paged, ids(page.Get("chunk"))...)
			if next = page.Get("next_batch").Str; next == "" {
				break
			}
		}
		same(t, "in pages", paged, []string{third, first, second})

		// Of somebody who is ignored neither the events nor their number count, and their root is redacted.
		last := reply(noisy, second)
		same(t, "after another reply", list(bob, ""), []string{second, third, first})
		bob.must("PUT", at("user", bob.userID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{noisy.userID: object{}}})
		got := bob.must("GET", path, nil).Get("chunk")
		same(t, "without those who are ignored", ids(got), []string{third, first, second})
		equal(t, "body of an ignored root", byID(got, third).Get("content.body").Exists(), false)
		for name, e := range bob.ways(room, second) {
			equal(t, name+": count without the ignored", e.Get(`unsigned.m\.relations.m\.thread.count`).Int(), 1)
		}
		equal(t, "count for others", alice.must("GET", at("rooms", room, "event", second), nil).Get(`unsigned.m\.relations.m\.thread.count`).Int(), 2)
		equal(t, "latest for others", alice.must("GET", at("rooms", room, "event", second), nil).Get(`unsigned.m\.relations.m\.thread.latest_event.event_id`).Str, last)

		// A redacted reply leaves the thread.
		alice.redact(room, latest)
		equal(t, "count after a redaction", bob.must("GET", at("rooms", room, "event", first), nil).Get(`unsigned.m\.relations.m\.thread.count`).Int(), 1)

		stranger.refused(403, "M_FORBIDDEN", "GET", path, nil)
		stranger.refused(403, "M_FORBIDDEN", "GET", v1("rooms", "!absent:"+string(d.config.Matrix.ServerName), "threads"), nil)
		for _, bad := range []string{"include=x", "limit=0", "limit=x", "from=x"} {
			bob.refused(400, "M_INVALID_PARAM", "GET", path+"?"+bad, nil)
		}
	})
}

func TestRelationsThatAreRefused(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		event := alice.say(room, "event")
		reaction := bob.relate(room, "m.reaction", "m.annotation", event, object{"key": "a\u0000b"})
		again := func() string { return at("rooms", room, "send", "m.reaction", bob.txn()) }
		bob.refused(400, "M_DUPLICATE_ANNOTATION", "PUT", again(), relating("m.annotation", event, object{"key": "a\u0000b"}))
		bob.relate(room, "m.reaction", "m.annotation", event, object{"key": "a"})
		bob.relate(room, "x.reaction", "m.annotation", event, object{"key": "a"})
		alice.relate(room, "m.reaction", "m.annotation", event, object{"key": "a"})
		bob.redact(room, reaction)
		bob.relate(room, "m.reaction", "m.annotation", event, object{"key": "a\u0000b"})
		// A repeated request is the same one.
		path := again()
		for range 2 {
			bob.must("PUT", path, relating("m.annotation", event, object{"key": "b"}))
		}
		// Of many at once one is taken.
		taken := 0
		results := make(chan answer)
		for range 8 {
			path := again()
			go func() { results <- bob.call("PUT", path, relating("m.annotation", event, object{"key": "c"})) }()
		}
		for range 8 {
			if a := <-results; a.status == 200 {
				taken++
			} else if a.errcode() != "M_DUPLICATE_ANNOTATION" {
				t.Errorf("%d %s", a.status, a.body.Raw)
			}
		}
		equal(t, "annotations taken", taken, 1)

		inThread := bob.relate(room, "m.room.message", "m.thread", event)
		bob.refused(400, "M_UNKNOWN", "PUT", at("rooms", room, "send", "m.room.message", bob.txn()), relating("m.thread", inThread))
		// A rich reply relates to nothing in this sense.
		reply := bob.send(room, "m.room.message", object{"body": "x", "msgtype": "m.text", "m.relates_to": object{"m.in_reply_to": object{"event_id": event}}})
		bob.relate(room, "m.room.message", "m.thread", reply)
		// What does not match the schema is ignored.
		for i, odd := range []any{nil, 1, "x", []any{}, object{"rel_type": 1, "event_id": event}, object{"rel_type": "m.reference"},
			object{"rel_type": "m.reference", "event_id": 1}, object{"rel_type": "m.ref\u0000", "event_id": event}, object{"rel_type": "", "event_id": event}} {
			bob.send(room, "x.odd", object{"m.relates_to": odd, "n": i})
		}
		if got := bob.must("GET", v1("rooms", room, "relations", event)+"/m.reference", nil).Get("chunk"); len(got.Array()) > 0 {
			t.Errorf("odd relations: %s", got.Raw)
		}
	})
}

func TestTimestampToEvent(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "stranger")
		room := alice.publicRoom()
		var events []string
		var times []int64
		for i := range 3 {
			time.Sleep(5 * time.Millisecond) // none has the time of the one before
			events = append(events, alice.say(room, fmt.Sprint(i)))
			times = append(times, alice.must("GET", at("rooms", room, "event", events[i]), nil).Get("origin_server_ts").Int())
		}
		time.Sleep(5 * time.Millisecond)
		bob.join(room)
		path := v1("rooms", room, "timestamp_to_event")
		for i, event := range events {
			for _, c := range []struct {
				ts  int64
				dir string
			}{{times[i], "f"}, {times[i], "b"}, {times[i] - 1, "f"}, {times[i] + 1, "b"}} {
				got := bob.must("GET", fmt.Sprintf("%s?ts=%d&dir=%s", path, c.ts, c.dir), nil)
				equal(t, fmt.Sprint(i, c), got.Get("event_id").Str, event)
				equal(t, fmt.Sprint(i, c, " time"), got.Get("origin_server_ts").Int(), times[i])
			}
		}
		first := bob.must("GET", path+"?ts=0&dir=f", nil).Get("event_id").Str
		equal(t, "the first event", bob.must("GET", at("rooms", room, "event", first), nil).Get("type").Str, "m.room.create")
		bob.refused(404, "M_NOT_FOUND", "GET", path+"?ts=0&dir=b", nil)
		bob.refused(404, "M_NOT_FOUND", "GET", fmt.Sprintf("%s?ts=%d&dir=f", path, time.Now().Add(time.Hour).UnixMilli()), nil)
		stranger.refused(403, "M_FORBIDDEN", "GET", path+"?ts=0&dir=f", nil)
		bob.refused(400, "M_MISSING_PARAM", "GET", path+"?ts=0", nil)
		bob.refused(400, "M_MISSING_PARAM", "GET", path+"?dir=f", nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", path+"?ts=x&dir=f", nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", path+"?ts=0&dir=x", nil)

		// What is not visible is not found, and what comes after is.
		private := alice.createRoom(object{"preset": "private_chat", "invite": []string{bob.userID}, "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}})
		time.Sleep(5 * time.Millisecond)
		hidden := alice.must("GET", at("rooms", private, "event", alice.say(private, "hidden")), nil).Get("origin_server_ts").Int()
		alice.say(private, "hidden")
		bob.join(private)
		for _, dir := range []string{"f", "b"} {
			found := bob.must("GET", fmt.Sprintf("%s?ts=%d&dir=%s", v1("rooms", private, "timestamp_to_event"), hidden, dir), nil).Get("event_id").Str
			equal(t, "the visible event next to a hidden one", bob.must("GET", at("rooms", private, "event", found), nil).Get("state_key").Str, bob.userID)
		}
	})
}
