package syncapi_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/test"
)

// What is counted as unread, in an initial sync and in those after it, is what /notifications lists as unread, whatever
// the rules, receipts, threads and redactions are, and on whatever replica.
func TestUnreadCountsAreWhatNotificationsList(t *testing.T) {
	seed := test.Seed(t)
	each(t, func(t *testing.T, w *world) {
		rooms := []id.RoomID{room1, room2}
		for _, room := range rooms {
			w.rooms.create(room, alice)
			w.rooms.member(room, bob, bob, "join")
			w.rooms.member(room, carol, carol, "join")
		}
		m := &countModel{t: t, both: w.replicas(), chance: rand.New(rand.NewPCG(seed, 1)),
			since: make(map[id.UserID]string), shown: make(map[string][2]int64)}
		for range test.Soak(2, 60) {
			m.readAll(rooms)
			m.setRules(rooms)
			for range 15 {
				m.step(rooms)
			}
			m.log = nil
		}
	})
}

// countModel is what has happened in a round, and what users were told.
type countModel struct {
	t      *testing.T
	both   [2]*world
	chance *rand.Rand
	events map[id.RoomID][]said
	since  map[id.UserID]string
	shown  map[string][2]int64
	log    []string
}

type said struct {
	event, thread id.EventID
	sender        id.UserID
}

// any is one of the replicas.
func (m *countModel) any() *world { return m.both[m.chance.IntN(2)] }

// readAll begins a round: what is unread when rules change is not what the new rules list.
func (m *countModel) readAll(rooms []id.RoomID) {
	m.events = map[id.RoomID][]said{}
	for _, room := range rooms {
		last := m.both[0].rooms.say(room, alice, "all is read")
		for _, user := range []id.UserID{bob, carol} {
			m.any().mustRead(user, room, "m.read", last, nil)
		}
	}
}

// setRules gives each user other rules, and another list of whom they ignore.
func (m *countModel) setRules(rooms []id.RoomID) {
	for _, user := range []id.UserID{bob, carol} {
		m.dropRules(user)
		for _, name := range []string{".m.rule.suppress_notices", ".m.rule.is_user_mention", ".m.rule.reaction"} {
			m.enable(user, "override", name, m.chance.IntN(6) != 0)
		}
		m.enable(user, "override", ".m.rule.master", m.chance.IntN(6) == 0)
		m.enable(user, "underride", ".m.rule.message", m.chance.IntN(4) != 0)
		for i := range m.chance.IntN(5) {
			m.putRule(user, rooms, fmt.Sprint("r", i))
		}
		ignored := kv{}
		if m.chance.IntN(4) == 0 {
			ignored[string(alice)] = kv{}
		}
		m.any().must(user, "put_account_data", map[string]string{"userId": string(user), "type": "m.ignored_user_list"},
			kv{"ignored_users": ignored})
		m.note(user, "ignores", ignored)
	}
}

func (m *countModel) dropRules(user id.UserID) {
	for _, kind := range []string{"override", "content", "room", "sender", "underride"} {
		vars := map[string]string{"kind": kind}
		for _, r := range m.any().must(user, "get_push_rules_of_kind", vars, nil).Array() {
			if !r.Get("default").Bool() {
				vars["ruleId"] = r.Get("rule_id").Str
				m.any().must(user, "delete_push_rule", vars, nil)
			}
		}
	}
}

func (m *countModel) enable(user id.UserID, kind, name string, enabled bool) {
	m.any().must(user, "put_push_rule_enabled", map[string]string{"kind": kind, "ruleId": name}, kv{"enabled": enabled})
	m.note(user, name, enabled)
}

func (m *countModel) putRule(user id.UserID, rooms []id.RoomID, name string) {
	body := kv{"actions": one(m, []any{}, []any{"notify"}, []any{"notify", kv{"set_tweak": "highlight"}},
		[]any{"notify", kv{"set_tweak": "highlight", "value": false}})}
	kind := one(m, "override", "content", "room", "sender", "underride")
	switch kind {
	case "override", "underride":
		body["conditions"] = m.conditions(rooms)
	case "content":
		body["pattern"] = one(m, "tea", "c*e", "bo?", "é")
	case "room":
		name = string(one(m, rooms...))
	case "sender":
		name = string(alice)
	}
	m.note(user, "has the rule", kind, name, body)
	m.any().must(user, "put_push_rule", map[string]string{"kind": kind, "ruleId": name}, body)
}

func (m *countModel) conditions(rooms []id.RoomID) []kv {
	match := func(key, pattern string) kv { return kv{"kind": "event_match", "key": key, "pattern": pattern} }
	all := []kv{match("room_id", string(one(m, rooms...))), match("room_id", "!ONE:example.org"),
		match("content.body", "te?"), match("content.msgtype", "m.not*"), {"kind": "contains_display_name"},
		{"kind": "room_member_count", "is": ">2"}, {"kind": "sender_notification_permission", "key": "room"},
		{"kind": "event_property_is", "key": "content.n", "value": 3},
		{"kind": "event_property_contains", "key": "content.list", "value": "x"}}
	m.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:m.chance.IntN(3)]
}

// step is one event, redaction or receipt. Senders redact their own events: the redaction of somebody who is ignored
// is not shown, and neither is the new count before the next event.
func (m *countModel) step(rooms []id.RoomID) {
	room := one(m, rooms...)
	events := m.events[room]
	switch n := m.chance.IntN(10); {
	case n < 6:
		m.say(room)
	case len(events) == 0:
	case n < 7:
		target := one(m, events...)
		m.note("in", room, target.sender, "redacts", target.event)
		m.both[0].rooms.put(room, target.sender, "m.room.redaction", nil, kv{}, redacts(target.event))
	default:
		m.receipt(one(m, bob, carol), room, one(m, events...))
	}
	for _, user := range []id.UserID{bob, carol} {
		for _, room := range rooms {
			m.compare(user, room)
		}
	}
}

func (m *countModel) say(room id.RoomID) {
	e := said{sender: one(m, alice, alice, alice, bob, carol)}
	content := kv{"msgtype": one(m, "m.text", "m.text", "m.notice"), "n": m.chance.IntN(5),
		"body": one(m, "tea", "a cafe", "bob!", "BOB TEA", "é", "nothing", "carol's cake", "ten", "steam")}
	if m.chance.IntN(3) == 0 {
		content["list"] = []any{"x", 1}
	}
	if m.chance.IntN(4) == 0 {
		content["m.mentions"] = kv{"user_ids": []id.UserID{bob}, "room": m.chance.IntN(2) == 0}
	}
	if events := m.events[room]; len(events) > 0 && m.chance.IntN(3) == 0 {
		root := one(m, events...)
		e.thread = cmp.Or(root.thread, root.event)
		content["m.relates_to"] = kv{"rel_type": "m.thread", "event_id": e.thread}
	}
	eventType := one(m, "m.room.message", "m.room.message", "m.reaction", "m.room.encrypted")
	e.event = m.both[0].rooms.put(room, e.sender, eventType, nil, content)
	m.events[room] = append(m.events[room], e)
	m.note("in", room, e.sender, "says", eventType, e.event, content)
}

func (m *countModel) receipt(user id.UserID, room id.RoomID, target said) {
	body := kv{}
	if m.chance.IntN(2) == 0 {
		body["thread_id"] = cmp.Or(target.thread, "main")
	}
	receiptType := one(m, "m.read", "m.read.private")
	m.note("in", room, user, receiptType, target.event, body)
	m.any().mustRead(user, room, receiptType, target.event, body)
}

// note remembers what was done in a round.
func (m *countModel) note(what ...any) { m.log = append(m.log, fmt.Sprintln(what...)) }

// one chooses one of some values.
func one[T any](m *countModel, of ...T) T { return of[m.chance.IntN(len(of))] }

func (m *countModel) compare(user id.UserID, room id.RoomID) {
	w := m.any()
	listed := [2]int64{}
	for i, query := range []string{"limit=1000", "limit=1000&only=highlight"} {
		for from := ""; ; {
			answer, err := w.call(user, "notifications", nil, query+from, nil)
			if err != nil {
				m.t.Fatal(err)
			}
			for _, n := range answer.Get("notifications").Array() {
				if n.Get("room_id").Str == string(room) && !n.Get("read").Bool() {
					listed[i]++
				}
			}
			if !answer.Get("next_token").Exists() {
				break
			}
			from = "&from=" + answer.Get("next_token").Str
		}
	}
	if got := m.any().unread(user, room); got != listed {
		m.t.Fatalf("%s in %s counts %v, listed are %v: %v", user, room, got, listed, m.log)
	}
	key := string(user) + string(room)
	answer := m.any().get(user, m.since[user])
	for _, r := range []id.RoomID{room1, room2} {
		k := string(user) + string(r)
		if c := in(answer, "join", r).Get("unread_notifications"); c.Exists() {
			m.shown[k] = [2]int64{c.Get("notification_count").Int(), c.Get("highlight_count").Int()}
		}
	}
	m.since[user] = next(answer)
	if m.shown[key] != listed {
		m.t.Fatalf("%s in %s was told %v, listed are %v: %v", user, room, m.shown[key], listed, m.log)
	}
}
