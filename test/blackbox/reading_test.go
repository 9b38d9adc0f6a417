package blackbox

import (
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// receiptsIn lists who has read what in what a sync says of a room: users by "event type thread", sorted.
func receiptsIn(room gjson.Result) map[string][]string {
	all := make(map[string][]string)
	for _, e := range room.Get("ephemeral.events").Array() {
		if e.Get("type").Str != "m.receipt" {
			continue
		}
		for event, types := range e.Get("content").Map() {
			for receiptType, users := range types.Map() {
				for user, receipt := range users.Map() {
					key := event + " " + receiptType
					if thread := receipt.Get("thread_id").Str; thread != "" {
						key += " " + thread
					}
					all[key] = append(all[key], user)
				}
			}
		}
	}
	for _, users := range all {
		slices.Sort(users)
	}
	return all
}

// read sends a receipt, of a thread if one is given.
func (c *client) read(room, receiptType, event string, thread ...string) {
	c.t.Helper()
	body := object{}
	if len(thread) > 0 {
		body["thread_id"] = thread[0]
	}
	c.must("POST", at("rooms", room, "receipt", receiptType, event), body)
}

func TestReceipts(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room, other := alice.publicRoom(), alice.publicRoom()
		for _, c := range []*client{bob, carol} {
			c.join(room)
		}
		one, two := alice.say(room, "one"), alice.say(room, "two")
		elsewhere := alice.say(other, "elsewhere")
		since := map[*client]string{alice: alice.now(), bob: bob.now(), carol: carol.now()}
		bob.read(room, "m.read", one)
		for c, token := range since {
			for _, from := range []string{token, ""} {
				r := roomIn(c.sync(from), "join", room)
				same(t, "who has read one", receiptsIn(r)[one+" m.read"], users(bob))
				receipt := find(r.Get("ephemeral.events"), "m.receipt", "").Get("content." + escape(one) + `.m\.read.` + escape(bob.userID))
				if ago := time.Since(time.UnixMilli(receipt.Get("ts").Int())); ago < -time.Minute || ago > time.Minute {
					t.Errorf("the receipt's time: %s", receipt.Raw)
				}
				if find(r.Get("ephemeral.events"), "m.receipt", "").Get("room_id").Exists() {
					t.Error("a receipt in a sync has a room_id")
				}
			}
		}
		// A user has one receipt of each type: it moves.
		bob.read(room, "m.read", two)
		got := receiptsIn(roomIn(alice.sync(""), "join", room))
		same(t, "who has read two", got[two+" m.read"], users(bob))
		same(t, "who has read one only", got[one+" m.read"], nil)
		// It does not move back.
		bob.read(room, "m.read", one)
		same(t, "after an older receipt", receiptsIn(roomIn(alice.sync(""), "join", room))[two+" m.read"], users(bob))

		// A private receipt is the user's own.
		since[bob], since[alice] = bob.now(), alice.now()
		three := alice.say(room, "three")
		bob.read(room, "m.read.private", three)
		phone := bob.login()
		for _, from := range []string{since[bob], ""} {
			same(t, "a private receipt to its user", receiptsIn(roomIn(phone.sync(from), "join", room))[three+" m.read.private"], users(bob))
		}
		for _, from := range []string{since[alice], ""} {
			got := receiptsIn(roomIn(alice.sync(from), "join", room))
			same(t, "a private receipt to others", got[three+" m.read.private"], nil)
			same(t, "a private receipt as another one", got[three+" m.read"], nil)
		}
		if a := carol.sync(carol.now()); roomIn(a, "join", room).Exists() {
			t.Errorf("a private receipt wakes others: %s", a.Raw)
		}

		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.odd", one), object{})
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", one), object{"thread_id": ""})
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", one), object{"thread_id": 1})
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.fully_read", one), object{"thread_id": "main"})
		bob.refused(403, "M_FORBIDDEN", "POST", at("rooms", other, "receipt", "m.read", elsewhere), object{})
		bob.must("POST", at("rooms", room, "receipt", "m.read", three), nil) // old clients send no body
	})
}

func TestThreadedReceipts(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		root := alice.say(room, "root")
		answer := alice.send(room, "m.room.message", object{"msgtype": "m.text", "body": "in the thread", "m.relates_to": object{"rel_type": "m.thread", "event_id": root}})
		reaction := alice.send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": answer, "key": "+"}})
		last := alice.say(room, "main")
		bob.read(room, "m.read", answer, root)
		bob.read(room, "m.read", root, "main")
		got := receiptsIn(roomIn(alice.sync(""), "join", room))
		same(t, "in the thread", got[answer+" m.read "+root], users(bob))
		same(t, "in the main timeline", got[root+" m.read main"], users(bob))
		bob.read(room, "m.read", reaction, root) // what relates to an event of the thread is in it
		bob.read(room, "m.read", last)
		got = receiptsIn(roomIn(alice.sync(""), "join", room))
		same(t, "in the thread, by a relation", got[reaction+" m.read "+root], users(bob))
		same(t, "unthreaded", got[last+" m.read"], users(bob))
		same(t, "in the main timeline", got[root+" m.read main"], users(bob))
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", answer), object{"thread_id": "main"})
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", last), object{"thread_id": root})
	})
}

func TestReadMarkers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		one, two, three := alice.say(room, "one"), alice.say(room, "two"), alice.say(room, "three")
		since := bob.now()
		bob.must("POST", at("rooms", room, "read_markers"), object{"m.fully_read": one, "m.read": two, "m.read.private": three})
		for _, token := range []string{since, ""} {
			r := roomIn(bob.sync(token), "join", room)
			equal(t, "m.fully_read", find(r.Get("account_data.events"), "m.fully_read", "").Get("content.event_id").Str, one)
			same(t, "m.read", receiptsIn(r)[two+" m.read"], users(bob))
			same(t, "m.read.private", receiptsIn(r)[three+" m.read.private"], users(bob))
			equal(t, "nothing is unread", r.Get("unread_notifications.notification_count").Int(), 0)
		}
		since = bob.now()
		bob.read(room, "m.fully_read", two)
		equal(t, "m.fully_read by a receipt", find(roomIn(bob.sync(since), "join", room).Get("account_data.events"), "m.fully_read", "").Get("content.event_id").Str, two)
		equal(t, "m.fully_read as account data", bob.must("GET", at("user", bob.userID, "rooms", room, "account_data", "m.fully_read"), nil).Get("event_id").Str, two)
		if a := alice.sync(""); find(roomIn(a, "join", room).Get("account_data.events"), "m.fully_read", "").Exists() {
			t.Error("another user sees the marker")
		}
		bob.must("POST", at("rooms", room, "read_markers"), object{})
		bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "read_markers"), object{"m.fully_read": "nonsense"})
		bob.refused(400, "M_BAD_JSON", "POST", at("rooms", room, "read_markers"), object{"m.fully_read": 1})
		bob.refused(405, "M_BAD_JSON", "PUT", at("user", bob.userID, "rooms", room, "account_data", "m.fully_read"), object{"event_id": one})
		d.user(t, "stranger").refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "read_markers"), object{"m.fully_read": one})
	})
}

func TestTyping(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		typing := func(answer gjson.Result) (who []string, says bool) {
			e := find(roomIn(answer, "join", room).Get("ephemeral.events"), "m.typing", "")
			for _, user := range e.Get("content.user_ids").Array() {
				who = append(who, user.Str)
			}
			slices.Sort(who)
			return who, e.Exists()
		}
		expect := func(what string, answer gjson.Result, want ...*client) string {
			t.Helper()
			got, says := typing(answer)
			if !says || !slices.Equal(got, users(want...)) {
				t.Errorf("%s: %v are typing, want %v: %s", what, got, users(want...), answer.Raw)
			}
			return answer.Get("next_batch").Str
		}
		path := func(c *client) string { return at("rooms", room, "typing", c.userID) }
		wait := alice.poll(alice.now())
		bob.must("PUT", path(bob), object{"typing": true, "timeout": 30000})
		since := expect("start", wait(), bob)
		wait = alice.poll(since)
		alice.must("PUT", path(alice), object{"typing": true, "timeout": 30000})
		since = expect("both", wait(), alice, bob)
		wait = alice.poll(since)
		bob.must("PUT", path(bob), object{"typing": false})
		since = expect("one stops", wait(), alice)
		wait = alice.poll(since)
		alice.must("PUT", path(alice), object{"typing": true, "timeout": 100})
		answer := wait() // says that nothing has changed, or already that the time is over
		for range 2 {
			if who, says := typing(answer); says && len(who) == 0 {
				break
			}
			answer = alice.poll(answer.Get("next_batch").Str)()
		}
		expect("the time is over", answer)
		alice.refused(403, "M_FORBIDDEN", "PUT", path(bob), object{"typing": true})
		d.user(t, "stranger").refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "typing", alice.userID), object{"typing": true})
		alice.refused(400, "M_BAD_JSON", "PUT", path(alice), object{"typing": "yes"})
	})
}

func TestAccountData(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		for scope, path := range map[string]func(*client, string) string{
			"global": func(c *client, name string) string { return at("user", c.userID, "account_data", name) },
			"room":   func(c *client, name string) string { return at("user", c.userID, "rooms", room, "account_data", name) },
		} {
			events := func(answer gjson.Result) gjson.Result {
				if scope == "global" {
					return answer.Get("account_data.events")
				}
				return roomIn(answer, "join", room).Get("account_data.events")
			}
			alice.refused(404, "M_NOT_FOUND", "GET", path(alice, "x.test"), nil)
			since := alice.now()
			alice.must("PUT", path(alice, "x.test"), object{"n": 1, "text": "ä"})
			equal(t, "what was put", alice.must("GET", path(alice, "x.test"), nil).Get("n").Int(), 1)
			alice.must("PUT", path(alice, "x.test"), object{"n": 2})
			equal(t, "what was put after", alice.must("GET", path(alice, "x.test"), nil).Raw, `{"n":2}`)
			for _, token := range []string{since, ""} {
				equal(t, scope+" in a sync", find(events(alice.sync(token)), "x.test", "").Get("content").Raw, `{"n":2}`)
			}
			if find(events(bob.sync("")), "x.test", "").Exists() {
				t.Error("another user sees account data")
			}
			bob.refused(403, "M_FORBIDDEN", "GET", path(alice, "x.test"), nil)
			bob.refused(403, "M_FORBIDDEN", "PUT", path(alice, "x.test"), object{"n": 3})
			equal(t, "after a refused change", alice.must("GET", path(alice, "x.test"), nil).Raw, `{"n":2}`)
			alice.refused(405, "M_BAD_JSON", "PUT", path(alice, "m.push_rules"), object{})
			alice.refused(405, "M_BAD_JSON", "PUT", path(alice, "m.fully_read"), object{})
			alice.refused(400, "M_BAD_JSON", "PUT", path(alice, "x.test"), []byte(`[1]`))
			alice.refused(400, "M_NOT_JSON", "PUT", path(alice, "x.test"), []byte(`{`))
			alice.must("PUT", path(alice, "x.test"), object{}) // is how clients delete
			equal(t, "emptied", alice.must("GET", path(alice, "x.test"), nil).Raw, `{}`)
		}
		if !alice.must("GET", at("user", alice.userID, "account_data", "m.push_rules"), nil).Get("global.override").IsArray() {
			t.Error("m.push_rules cannot be read")
		}
		alice.refused(400, "M_INVALID_PARAM", "PUT", at("user", alice.userID, "rooms", "nonsense", "account_data", "x.test"), object{})
	})
}

func TestTags(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		path := at("user", alice.userID, "rooms", room, "tags")
		equal(t, "no tags", alice.must("GET", path, nil).Get("tags").Raw, `{}`)
		since := alice.now()
		alice.must("PUT", path+"/m.favourite", object{"order": 0.25})
		alice.must("PUT", path+"/u.work", object{})
		alice.must("PUT", path+"/u.gone", nil)
		alice.must("DELETE", path+"/u.gone", nil)
		alice.must("DELETE", path+"/u.never", nil)
		const want = `{"m.favourite":{"order":0.25},"u.work":{}}`
		equal(t, "the tags", alice.must("GET", path, nil).Get("tags").Raw, want)
		for _, token := range []string{since, ""} {
			equal(t, "the tags in a sync", find(roomIn(alice.sync(token), "join", room).Get("account_data.events"), "m.tag", "").Get("content.tags").Raw, want)
		}
		alice.refused(400, "M_BAD_JSON", "PUT", path+"/u.bad", object{"order": "first"})
		bob.refused(403, "M_FORBIDDEN", "GET", path, nil)
		bob.refused(403, "M_FORBIDDEN", "PUT", path+"/u.bad", object{})
		bob.refused(403, "M_FORBIDDEN", "DELETE", path+"/u.work", nil)
		equal(t, "after refused changes", alice.must("GET", path, nil).Get("tags").Raw, want)
	})
}

func TestTheInitialSyncOfARoom(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "stranger")
		room := alice.publicRoom()
		path := at("rooms", room, "initialSync")
		bob.join(room)
		bob.must("PUT", at("user", bob.userID, "rooms", room, "tags", "m.favourite"), object{})
		alice.say(room, "one")
		last := alice.say(room, "two")
		got := bob.must("GET", path+"?limit=1", nil)
		equal(t, "room", got.Get("room_id").Str, room)
		equal(t, "membership", got.Get("membership").Str, "join")
		equal(t, "visibility", got.Get("visibility").Str, "private")
		same(t, "messages", ids(got.Get("messages.chunk")), []string{last})
		equal(t, "state", find(got.Get("state"), "m.room.member", bob.userID).Get("content.membership").Str, "join")
		equal(t, "account data", find(got.Get("account_data"), "m.tag", "").Get(`content.tags.m\.favourite`).Exists(), true)
		same(t, "before", bodies(bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1&from="+got.Get("messages.start").Str, nil).Get("chunk")), []string{"one"})
		bob.must("POST", at("rooms", room, "leave"), object{})
		alice.say(room, "after")
		left := bob.must("GET", path, nil)
		equal(t, "membership of one who left", left.Get("membership").Str, "leave")
		same(t, "messages to one who left", bodies(left.Get("messages.chunk")), []string{"one", "two"})
		stranger.refused(403, "M_FORBIDDEN", "GET", path, nil)
		alice.invite(room, stranger)
		stranger.refused(403, "M_FORBIDDEN", "GET", path, nil)
		stranger.refused(403, "M_FORBIDDEN", "GET", at("rooms", "!absent:x", "initialSync"), nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", path+"?limit=x", nil)
	})
}
