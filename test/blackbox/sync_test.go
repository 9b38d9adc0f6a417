package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// Whatever happens wakes the sync of those whom it concerns, and its answer has nothing else.
func TestASyncIsWoken(t *testing.T) {
	cases := []struct {
		name string
		do   func(alice *client, room, last string, bob *client)
		has  func(bob *client, answer gjson.Result, room, last string) bool
	}{
		{"by a message", func(alice *client, room, _ string, _ *client) { alice.say(room, "wake up") },
			func(_ *client, a gjson.Result, room, _ string) bool {
				return slices.Equal(bodies(roomIn(a, "join", room).Get("timeline.events")), []string{"wake up"})
			}},
		{"by state", func(alice *client, room, _ string, _ *client) {
			alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		},
			func(_ *client, a gjson.Result, room, _ string) bool {
				return stateIn(roomIn(a, "join", room), "m.room.topic", "").Get("content.topic").Str == "tea"
			}},
		{"by a receipt", func(alice *client, room, last string, _ *client) {
			alice.must("POST", at("rooms", room, "receipt", "m.read", last), object{})
		}, func(bob *client, a gjson.Result, room, last string) bool {
			return find(roomIn(a, "join", room).Get("ephemeral.events"), "m.receipt", "").Get("content." + escape(last) + `.m\.read`).Exists()
		}},
		{"by typing", func(alice *client, room, _ string, _ *client) {
			alice.must("PUT", at("rooms", room, "typing", alice.userID), object{"typing": true, "timeout": 30000})
		}, func(_ *client, a gjson.Result, room, _ string) bool {
			return len(find(roomIn(a, "join", room).Get("ephemeral.events"), "m.typing", "").Get("content.user_ids").Array()) == 1
		}},
		{"by account data", func(_ *client, _, _ string, bob *client) {
			bob.must("PUT", at("user", bob.userID, "account_data", "x.test"), object{"a": 1})
		}, func(_ *client, a gjson.Result, _, _ string) bool {
			return find(a.Get("account_data.events"), "x.test", "").Get("content.a").Int() == 1
		}},
		{"by account data of a room", func(_ *client, room, _ string, bob *client) {
			bob.must("PUT", at("user", bob.userID, "rooms", room, "account_data", "x.test"), object{"a": 2})
		}, func(_ *client, a gjson.Result, room, _ string) bool {
			return find(roomIn(a, "join", room).Get("account_data.events"), "x.test", "").Get("content.a").Int() == 2
		}},
		{"by a tag", func(_ *client, room, _ string, bob *client) {
			bob.must("PUT", at("user", bob.userID, "rooms", room, "tags", "u.work"), object{"order": 0.5})
		}, func(_ *client, a gjson.Result, room, _ string) bool {
			return find(roomIn(a, "join", room).Get("account_data.events"), "m.tag", "").Get(`content.tags.u\.work.order`).Num == 0.5
		}},
		{"by a push rule", func(_ *client, room, _ string, bob *client) {
			bob.must("PUT", at("pushrules", "global", "room", room), object{"actions": []string{}})
		}, func(_ *client, a gjson.Result, room, _ string) bool {
			return find(a.Get("account_data.events"), "m.push_rules", "").Get("content.global.room.0.rule_id").Str == room
		}},
		{"by an invite", func(alice *client, _, _ string, bob *client) {
			alice.createRoom(object{"name": "Elsewhere", "invite": []string{bob.userID}})
		}, func(bob *client, a gjson.Result, _, _ string) bool {
			found := false
			a.Get("rooms.invite").ForEach(func(_, r gjson.Result) bool {
				found = find(r.Get("invite_state.events"), "m.room.name", "").Get("content.name").Str == "Elsewhere"
				return !found
			})
			return found
		}},
		{"by a new room of one's own", func(_ *client, _, _ string, bob *client) { bob.createRoom(object{"name": "Mine"}) },
			func(bob *client, a gjson.Result, _, _ string) bool { return len(a.Get("rooms.join").Map()) == 1 }},
		{"by a kick", func(alice *client, room, _ string, bob *client) {
			alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID})
		}, func(_ *client, a gjson.Result, room, _ string) bool {
			return roomIn(a, "leave", room).Exists() && !roomIn(a, "join", room).Exists()
		}},
	}
	run(t, func(t *testing.T, d *deployment) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				alice, bob := d.user(t, "alice"), d.user(t, "bob")
				room := alice.publicRoom()
				bob.join(room)
				last := bob.say(room, "before")
				since := bob.now()
				answer := bob.poll(since)
				c.do(alice, room, last, bob)
				a := answer()
				if !c.has(bob, a, room, last) {
					t.Errorf("woken with %s", a.Raw)
				}
				if slices.Contains(bodies(roomIn(a, "join", room).Get("timeline.events")), "before") {
					t.Errorf("what was there before comes again: %s", a.Raw)
				}
				if again := bob.sync(a.Get("next_batch").Str); len(again.Get("rooms.join").Map())+len(again.Get("rooms.leave").Map()) > 0 {
					t.Errorf("the next sync is not empty: %s", again.Raw)
				}
			})
		}
	})
}

func TestASyncTimesOut(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, theirs := alice.publicRoom(), bob.publicRoom()
		since := alice.now()
		began := time.Now()
		answer := alice.sync(since, "timeout", "300")
		if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
			t.Errorf("a sync with a timeout of 300 ms took %v", took)
		}
		for _, section := range []string{"join", "invite", "leave", "knock"} {
			equal(t, section+" of a sync without news", len(answer.Get("rooms."+section).Map()), 0)
		}
		alice.say(room, "one")
		same(t, "after the time-out", bodies(roomIn(alice.sync(answer.Get("next_batch").Str), "join", room).Get("timeline.events")), []string{"one"})

		since = alice.now()
		began = time.Now()
		bob.say(theirs, "not for alice")
		if answer = alice.sync(since, "timeout", "300"); len(answer.Get("rooms.join").Map()) > 0 {
			t.Errorf("a sync has a room that the user is not in: %s", answer.Raw)
		}
		if took := time.Since(began); took < 300*time.Millisecond {
			t.Errorf("a stranger's message ended a sync after %v", took)
		}
		began = time.Now()
		if full := alice.sync(since, "timeout", "20000", "full_state", "true"); !stateIn(roomIn(full, "join", room), "m.room.create", "").Exists() {
			t.Errorf("full_state: %s", full.Raw)
		}
		alice.sync("", "timeout", "20000")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("full_state and the initial sync took %v: they do not wait", took)
		}
	})
}

func TestASyncHasWhatIsNew(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, quiet := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		bob.join(quiet)
		var tokens []string
		for n := range 5 {
			tokens = append(tokens, alice.now())
			bob.say(room, fmt.Sprint(n))
		}
		for n, since := range tokens {
			answer := alice.sync(since)
			var want []string
			for m := n; m < 5; m++ {
				want = append(want, fmt.Sprint(m))
			}
			timeline := roomIn(answer, "join", room).Get("timeline")
			same(t, "messages since "+since, bodies(timeline.Get("events")), want)
			equal(t, "limited", timeline.Get("limited").Bool(), false)
			if roomIn(answer, "join", quiet).Exists() {
				t.Error("a room without news is in the answer")
			}
			if state := roomIn(answer, "join", room).Get("state.events").Array(); len(state) > 0 {
				t.Errorf("state that did not change: %v", state)
			}
			for _, e := range timeline.Get("events").Array() {
				if e.Get("room_id").Exists() {
					t.Errorf("an event of a sync has a room_id: %s", e.Raw)
				}
				for _, key := range []string{"event_id", "sender", "origin_server_ts", "type", "content"} {
					if !e.Get(key).Exists() {
						t.Errorf("an event lacks %s: %s", key, e.Raw)
					}
				}
			}
		}
		same(t, "the same token again", bodies(roomIn(alice.sync(tokens[3]), "join", room).Get("timeline.events")), []string{"3", "4"})
		full := roomIn(alice.sync(tokens[4], "full_state", "true"), "join", room)
		same(t, "the timeline with full_state", bodies(full.Get("timeline.events")), []string{"4"})
		if !find(full.Get("state.events"), "m.room.create", "").Exists() || len(memberKeys(full.Get("state.events"))) != 2 {
			t.Errorf("full_state lacks state: %s", full.Raw)
		}
		if !find(roomIn(alice.sync(tokens[4], "full_state", "true"), "join", quiet).Get("state.events"), "m.room.create", "").Exists() {
			t.Error("full_state lacks a room without news")
		}
	})
}

func TestTokensOfSync(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		now := alice.now()
		page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=2", nil)
		batch := roomIn(alice.sync(""), "join", room).Get("timeline.prev_batch").Str
		for _, bad := range []string{"nonsense", "s1", "s1_x_0_0", "s1_-1_0_0", now + "_1", now + "x", "'; --", page.Get("end").Str, page.Get("start").Str, batch} {
			alice.refused(400, "M_INVALID_PARAM", "GET", syncPath(bad), nil)
		}
		for _, bad := range [][]string{{"timeout", "soon"}, {"timeout", "-1"}, {"full_state", "maybe"}, {"set_presence", "asleep"}, {"use_state_after", "1"}} {
			alice.refused(400, "M_INVALID_PARAM", "GET", syncPath(now, bad...), nil)
		}
		// A token from before a restore of the database is in the future: it must neither fail nor lose what comes then.
		parts := strings.Split(now, "_")
		parts[1] = "9" + parts[1]
		if a := alice.call("GET", syncPath(strings.Join(parts, "_")), nil); a.status != 200 && a.errcode() != "M_INVALID_PARAM" {
			t.Errorf("a token from the future: %d %s", a.status, a.body.Raw)
		}
		// next_batch works where a place in a room is asked for.
		alice.say(room, "new")
		older := alice.must("GET", at("rooms", room, "messages")+"?dir=b&from="+now, nil)
		if len(bodies(older.Get("chunk"))) != 0 || len(older.Get("chunk").Array()) == 0 {
			t.Errorf("/messages from a token of sync: %s", older.Raw)
		}
		newer := alice.must("GET", at("rooms", room, "messages")+"?dir=f&from="+now, nil)
		same(t, "/messages forward from a token of sync", bodies(newer.Get("chunk")), []string{"new"})
	})
}

func TestATransactionIDIsTheDevicesOwn(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		phone := alice.login()
		room := alice.publicRoom()
		bob.join(room)
		since := map[*client]string{alice: alice.now(), phone: phone.now(), bob: bob.now()}
		event := alice.must("PUT", at("rooms", room, "send", "m.room.message", "mine"), object{"msgtype": "m.text", "body": "x"}).Get("event_id").Str
		for c, token := range since {
			for _, answer := range []gjson.Result{c.sync(token), c.sync("")} {
				events := roomIn(answer, "join", room).Get("timeline.events").Array()
				last := events[len(events)-1]
				equal(t, "the last event", last.Get("event_id").Str, event)
				want := map[bool]string{true: "mine"}[c == alice]
				equal(t, "transaction_id", last.Get("unsigned.transaction_id").Str, want)
				if age := last.Get("unsigned.age"); !age.Exists() || age.Int() < 0 || age.Int() > 60000 {
					t.Errorf("age: %s", last.Raw)
				}
				equal(t, "unsigned.membership", last.Get("unsigned.membership").Str, "join")
			}
		}
	})
}

func TestInvites(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		since := bob.now()
		room := alice.createRoom(object{"preset": "private_chat", "name": "Tea", "topic": "and cake", "invite": []string{bob.userID}})
		for _, answer := range []gjson.Result{bob.sync(""), bob.sync(since)} {
			events := roomIn(answer, "invite", room).Get("invite_state.events")
			for _, eventType := range []string{"m.room.create", "m.room.name", "m.room.join_rules"} {
				if !find(events, eventType, "").Exists() {
					t.Errorf("the invite lacks %s: %s", eventType, events.Raw)
				}
			}
			equal(t, "who invited", find(events, "m.room.member", bob.userID).Get("sender").Str, alice.userID)
			if roomIn(answer, "join", room).Exists() || roomIn(answer, "leave", room).Exists() {
				t.Error("an invite is in another section too")
			}
			for _, e := range events.Array() {
				for key := range e.Map() {
					if !slices.Contains([]string{"type", "state_key", "content", "sender"}, key) && e.Get("type").Str != "m.room.create" {
						t.Errorf("stripped state has %s: %s", key, e.Raw)
					}
				}
			}
		}
		since = bob.now()
		if a := bob.sync(since); roomIn(a, "invite", room).Exists() {
			t.Error("an invite comes twice")
		}
		alice.say(room, "not for bob")
		if raw := bob.sync(since).Raw; strings.Contains(raw, "not for bob") {
			t.Error("who is invited only sees messages")
		}
		bob.must("POST", at("rooms", room, "leave"), object{})
		rejected := bob.sync(since)
		if roomIn(rejected, "invite", room).Exists() || !roomIn(rejected, "leave", room).Exists() {
			t.Errorf("after the rejection: %s", rejected.Raw)
		}
		if strings.Contains(rejected.Raw, "not for bob") {
			t.Error("who rejected the invite sees messages")
		}
		if a := bob.sync(""); roomIn(a, "invite", room).Exists() || roomIn(a, "leave", room).Exists() {
			t.Errorf("the initial sync after the rejection: %s", a.Raw)
		}
		since = bob.now()
		alice.invite(room, bob)
		invited := bob.sync(since)
		if !roomIn(invited, "invite", room).Exists() {
			t.Errorf("invited again: %s", invited.Raw)
		}
		alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID}) // takes the invite back
		withdrawn := bob.sync(invited.Get("next_batch").Str)
		if roomIn(withdrawn, "invite", room).Exists() || !roomIn(withdrawn, "leave", room).Exists() {
			t.Errorf("after the invite was withdrawn: %s", withdrawn.Raw)
		}
		if both := bob.sync(since); roomIn(both, "invite", room).Exists() {
			t.Errorf("an invite that came and went: %s", both.Raw)
		}
	})
}

// The membership in which one leaves decides what is seen last.
func TestLeaving(t *testing.T) {
	leaving := map[string]func(alice, bob *client, room string){
		"leave": func(_, bob *client, room string) { bob.must("POST", at("rooms", room, "leave"), object{}) },
		"kick": func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID})
		},
		"ban": func(alice, bob *client, room string) {
			alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		},
	}
	run(t, func(t *testing.T, d *deployment) {
		for name, leave := range leaving {
			t.Run(name, func(t *testing.T) {
				alice, bob := d.user(t, "alice"), d.user(t, "bob")
				room := alice.publicRoom()
				bob.join(room)
				since := bob.now()
				alice.say(room, "last words")
				leave(alice, bob, room)
				alice.say(room, "behind the back")
				alice.setState(room, "m.room.topic", "", object{"topic": "behind the back"})
				left := bob.sync(since)
				section := roomIn(left, "leave", room)
				same(t, "what one who left sees", bodies(section.Get("timeline.events")), []string{"last words"})
				events := section.Get("timeline.events").Array()
				last := events[len(events)-1]
				membership := map[string]string{"ban": "ban"}[name]
				if membership == "" {
					membership = "leave"
				}
				if last.Get("type").Str != "m.room.member" || last.Get("content.membership").Str != membership {
					t.Errorf("the last event is %s", last.Raw)
				}
				if strings.Contains(left.Raw, "behind the back") || roomIn(left, "join", room).Exists() {
					t.Errorf("the sync of one who left: %s", left.Raw)
				}
				if next := bob.sync(left.Get("next_batch").Str); len(next.Get("rooms.leave").Map())+len(next.Get("rooms.join").Map()) > 0 {
					t.Errorf("the next sync: %s", next.Raw)
				}
				if roomIn(bob.sync(""), "leave", room).Exists() {
					t.Error("the initial sync has a left room without include_leave")
				}
				archived := roomIn(bob.sync("", filtered(object{"room": object{"include_leave": true}})...), "leave", room)
				if !archived.Exists() || strings.Contains(archived.Raw, "behind the back") || !slices.Contains(bodies(archived.Get("timeline.events")), "last words") {
					t.Errorf("the initial sync with include_leave: %s", archived.Raw)
				}
				if name == "ban" {
					return
				}
				since = bob.now()
				bob.join(room)
				alice.say(room, "welcome back")
				back := roomIn(bob.sync(since), "join", room)
				equal(t, "the topic after the rejoin", stateIn(back, "m.room.topic", "").Get("content.topic").Str, "behind the back")
				if !stateIn(back, "m.room.create", "").Exists() || !slices.Contains(bodies(back.Get("timeline.events")), "welcome back") {
					t.Errorf("after the rejoin: %s", back.Raw)
				}
				bob.must("POST", at("rooms", room, "leave"), object{})
				bob.must("POST", at("rooms", room, "forget"), object{})
				if roomIn(bob.sync("", filtered(object{"room": object{"include_leave": true}})...), "leave", room).Exists() {
					t.Error("a forgotten room is in the sync")
				}
			})
		}
	})
}

// Who joins gets the whole state, and what they may see of the time before.
func TestJoining(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		alice.setState(room, "m.room.topic", "", object{"topic": "tea"})
		for n := range 15 {
			alice.say(room, fmt.Sprint(n))
		}
		since := bob.now()
		bob.join(room)
		for _, parameters := range [][]string{nil, {"use_state_after", "true"}} {
			joined := roomIn(bob.sync(since, parameters...), "join", room)
			state := joined.Get("state.events")
			if parameters != nil {
				state = joined.Get("state_after.events")
				if joined.Get("state").Exists() {
					t.Error("use_state_after: state is there")
				}
				equal(t, "own membership in state_after", find(state, "m.room.member", bob.userID).Get("content.membership").Str, "join")
			} else if joined.Get("state_after").Exists() {
				t.Error("state_after is there")
			}
			for _, eventType := range []string{"m.room.create", "m.room.topic", "m.room.power_levels", "m.room.join_rules"} {
				if !find(state, eventType, "").Exists() {
					t.Errorf("the state of a room just joined lacks %s", eventType)
				}
			}
			equal(t, "the other's membership", find(state, "m.room.member", alice.userID).Get("content.membership").Str, "join")
			timeline := joined.Get("timeline")
			equal(t, "limited", timeline.Get("limited").Bool(), true)
			events := timeline.Get("events").Array()
			equal(t, "events", len(events), 10)
			equal(t, "the last event", events[len(events)-1].Get("state_key").Str, bob.userID)
			equal(t, "prev_batch continues", bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1&from="+timeline.Get("prev_batch").Str, nil).Get("chunk.0.content.body").Str, "5")
		}
	})
}

func TestTheSummary(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.createRoom(object{"preset": "public_chat"})
		bob.join(room)
		alice.invite(room, carol)
		of := func(sync gjson.Result, joined, invited int64, heroes ...*client) {
			t.Helper()
			summary := roomIn(sync, "join", room).Get("summary")
			equal(t, "joined", summary.Get(`m\.joined_member_count`).Int(), joined)
			equal(t, "invited", summary.Get(`m\.invited_member_count`).Int(), invited)
			var got []string
			for _, hero := range summary.Get(`m\.heroes`).Array() {
				got = append(got, hero.Str)
			}
			slices.Sort(got)
			same(t, "heroes", got, users(heroes...))
		}
		first := alice.sync("")
		of(first, 2, 1, bob, carol)
		of(bob.sync(""), 2, 1, alice, carol)
		carol.join(room)
		second := alice.sync(first.Get("next_batch").Str)
		equal(t, "joined after a join", roomIn(second, "join", room).Get(`summary.m\.joined_member_count`).Int(), 3)
		equal(t, "invited after a join", roomIn(second, "join", room).Get(`summary.m\.invited_member_count`).Int(), 0)
		alice.say(room, "x")
		third := alice.sync(second.Get("next_batch").Str)
		if count := roomIn(third, "join", room).Get(`summary.m\.joined_member_count`); count.Exists() && count.Int() != 3 {
			t.Errorf("the count: %s", third.Raw)
		}
		bob.must("POST", at("rooms", room, "leave"), object{})
		carol.must("POST", at("rooms", room, "leave"), object{})
		of(alice.sync(""), 1, 0, bob, carol) // nobody else is there: those who left
	})
}
