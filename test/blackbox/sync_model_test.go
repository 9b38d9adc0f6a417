package blackbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// Users who do whatever comes to their minds in rooms, and many clients of each: after every sync each client has the
// state that the server has, as far as its filter lets it know; the sections have the rooms that they must have; no
// event comes twice; and paging back from prev_batch leads to all events.
func TestClientsThatSyncHaveWhatTheServerHas(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		steps := map[deploy.Kind]int{deploy.MonolithSQLite: 1600, deploy.MonolithPostgres: 150, deploy.Polylith: 60}
		chance := rand.New(rand.NewPCG(test.Seed(t), 0))
		for range test.Soak(1, 100) {
			newSyncWorld(t, d, chance).live(steps[d.kind])
		}
	})
}

// live lets the world go on for some steps.
func (w *syncWorld) live(steps int) {
	for step := range steps {
		for range 1 + w.chance.IntN(4) {
			w.act()
		}
		for range 2 {
			w.syncOf(w.views[w.chance.IntN(len(w.views))])
		}
		if w.t.Failed() {
			w.t.Fatalf("at step %d, after:\n%s", step, strings.Join(w.log[max(0, len(w.log)-200):], "\n"))
		}
	}
	for _, v := range w.views {
		w.syncOf(v)
	}
}

// syncWorld is the users, their rooms, and what the test knows of both.
type syncWorld struct {
	t      *testing.T
	chance *rand.Rand
	log    []string
	users  []*client
	views  []*syncView
	rooms  []string
	events map[string][]string            // of a room, that were sent
	is     map[string]map[*client]string  // memberships, by room and user
	before map[string]map[*client]string  // what those who are invited were before
	joined map[string]map[*client][]int64 // when they were joined last: from and to, on the world's clock
	// forgot has who has forgotten which room, and ignores whom users ignore.
	forgot  map[string]map[*client]bool
	ignores map[*client]map[string]bool
	clock   int64
}

// syncView is a client with a filter.
type syncView struct {
	*client
	user         *client
	name         string
	room         object // the filter's
	lazy, after  bool
	includeLeave bool
	selects      func(eventType, sender string) bool // what the filter of the state does; nil: all
	since        string
	clock        int64 // of the last sync
	rooms        map[string]*syncedRoom
}

// syncedRoom is what a client has of a room.
type syncedRoom struct {
	section string
	state   map[stateKey]gjson.Result
	seen    map[string]bool
}

func newSyncWorld(t *testing.T, d *deployment, chance *rand.Rand) *syncWorld {
	w := &syncWorld{t: t, chance: chance, events: make(map[string][]string), is: make(map[string]map[*client]string),
		before: make(map[string]map[*client]string), joined: make(map[string]map[*client][]int64),
		forgot: make(map[string]map[*client]bool), ignores: make(map[*client]map[string]bool)}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		w.users = append(w.users, d.user(t, name))
	}
	other := w.users[0].userID
	timelines := []object{
		{"limit": 0}, {"limit": 1}, {"limit": 2}, {"limit": 3}, {"limit": 5}, {"limit": 10}, {"limit": 50},
		{"limit": 50, "not_types": []string{"m.room.member"}}, {"limit": 10, "not_senders": []string{other}},
		{"limit": 10, "types": []string{"m.room.message", "m.room.topic"}}, {"limit": 3, "senders": []string{other}},
	}
	by := func(_, sender string) bool { return sender == other }
	notBy := func(_, sender string) bool { return sender != other }
	states := []struct {
		filter  object
		selects func(eventType, sender string) bool
	}{
		{object{}, nil}, {object{}, nil}, {object{"lazy_load_members": true}, nil},
		{object{"lazy_load_members": true, "include_redundant_members": true}, nil},
		{object{"not_types": []string{"m.room.topic"}}, func(eventType, _ string) bool {
			return eventType != "m.room.topic"
		}},
		{object{"types": []string{"m.room.member", "x.*"}}, func(eventType, _ string) bool {
			return eventType == "m.room.member" || strings.HasPrefix(eventType, "x.")
		}},
		{object{"senders": []string{other}}, by}, {object{"not_senders": []string{other}}, notBy},
		{object{"lazy_load_members": true, "not_senders": []string{other}}, notBy},
	}
	for _, user := range w.users {
		for i, timeline := range timelines {
			state := states[chance.IntN(len(states))]
			v := &syncView{client: user, user: user, after: chance.IntN(4) == 0, includeLeave: chance.IntN(3) == 0,
				rooms: make(map[string]*syncedRoom)}
			v.lazy, _ = state.filter["lazy_load_members"].(bool)
			v.selects = state.selects
			if v.lazy {
				v.client = user.login() // what is redundant is so for a device
			}
			v.room = object{"timeline": timeline, "state": state.filter, "include_leave": v.includeLeave}
			v.name = fmt.Sprintf("%s %d, %v, use_state_after %v", user.localpart, i, v.room, v.after)
			w.views = append(w.views, v)
		}
	}
	return w
}

func pick[T any](chance *rand.Rand, all []T) T { return all[chance.IntN(len(all))] }

// act does something, which the server may refuse.
func (w *syncWorld) act() {
	w.t.Helper()
	user, other := pick(w.chance, w.users), pick(w.chance, w.users)
	if len(w.rooms) < 2 || w.chance.IntN(60) == 0 {
		w.create(user)
		return
	}
	room := pick(w.chance, w.rooms[max(0, len(w.rooms)-4):])
	w.clock++
	path := func(segments ...string) string { return at(append([]string{"rooms", room}, segments...)...) }
	state := func(eventType, key string, content object) {
		w.do(user, room, "PUT", path("state", eventType, key), content)
	}
	target := object{"user_id": other.userID}
	switch w.chance.IntN(24) {
	case 0, 1, 2:
		text := object{"msgtype": "m.text", "body": fmt.Sprint(w.clock)}
		w.do(user, room, "PUT", path("send", "m.room.message", user.txn()), text)
	case 3, 4:
		state("m.room.topic", "", object{"topic": fmt.Sprint(w.clock)})
	case 5:
		state("m.room.name", "", object{"name": fmt.Sprint(w.clock)})
	case 6:
		state("x.state", pick(w.chance, []string{"", "a", other.userID[1:]}), object{"n": w.clock})
	case 7, 8:
		visibility := pick(w.chance, []string{"joined", "invited", "shared", "world_readable"})
		state("m.room.history_visibility", "", object{"history_visibility": visibility})
	case 9:
		state("m.room.join_rules", "",
			object{"join_rule": pick(w.chance, []string{"public", "public", "knock", "invite"})})
	case 10:
		if w.is[room][user] == "join" {
			state("m.room.member", user.userID, object{"membership": "join", "displayname": fmt.Sprint(w.clock)})
		}
	case 11, 12, 13:
		if w.do(user, room, "POST", at("join", room), object{}) {
			w.became(room, user, "join")
		}
	case 14, 15:
		if w.do(user, room, "POST", path("leave"), object{}) && w.is[room][user] != "ban" {
			w.became(room, user, "leave")
		}
	case 16, 17:
		if w.is[room][other] != "join" && w.do(user, room, "POST", path("invite"), target) {
			w.became(room, other, "invite")
		}
	case 18:
		if w.do(user, room, "POST", path("kick"), target) {
			w.became(room, other, "leave")
		}
	case 19:
		if w.do(user, room, "POST", path("ban"), target) {
			w.became(room, other, "ban")
		}
	case 20:
		if w.is[room][other] == "ban" && w.do(user, room, "POST", path("unban"), target) {
			w.became(room, other, "leave")
		}
		if w.do(user, room, "POST", at("knock", room), object{}) {
			w.became(room, user, "knock")
		}
	case 21:
		if sent := w.events[room]; len(sent) > 0 {
			w.do(user, room, "PUT", path("redact", pick(w.chance, sent), user.txn()), object{})
		}
	case 22:
		if w.do(user, room, "POST", path("forget"), object{}) {
			w.forgot[room][user] = true
		}
	case 23:
		if w.chance.IntN(4) == 0 {
			w.ignore(user)
		}
	}
}

// ignore has a user ignore others than before, or nobody.
func (w *syncWorld) ignore(user *client) {
	w.t.Helper()
	ignored, users := make(map[string]bool), make(object)
	for _, other := range w.users {
		if other != user && w.chance.IntN(4) == 0 {
			ignored[other.userID], users[other.userID] = true, object{}
		}
	}
	if w.do(user, "", "PUT", at("user", user.userID, "account_data", "m.ignored_user_list"),
		object{"ignored_users": users}) {
		w.ignores[user] = ignored
	}
}

func (w *syncWorld) create(user *client) {
	w.t.Helper()
	version := fmt.Sprint(1 + w.chance.IntN(12))
	request := object{"preset": "public_chat", "room_version": version,
		"power_level_content_override": object{"state_default": 0, "invite": 0, "events": object{}}}
	if w.chance.IntN(2) == 0 {
		request["initial_state"] = []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}
	}
	room := user.createRoom(request)
	w.log = append(w.log, fmt.Sprintf("%d: %s makes %s of version %s", w.clock, user.localpart, room, version))
	w.rooms = append(w.rooms, room)
	w.is[room], w.before[room] = make(map[*client]string), make(map[*client]string)
	w.joined[room], w.forgot[room] = make(map[*client][]int64), make(map[*client]bool)
	w.became(room, user, "join")
}

// do tells whether the server did it.
func (w *syncWorld) do(user *client, room, method, path string, body object) bool {
	w.t.Helper()
	a := user.call(method, path, body)
	if a.status >= 500 {
		w.t.Errorf("%s %s %v by %s: %d %s", method, path, body, user.localpart, a.status, a.body.Raw)
	}
	text, err := url.PathUnescape(path)
	if err != nil || a.status != 200 {
		return false
	}
	if event := a.body.Get("event_id").Str; event != "" {
		w.events[room] = append(w.events[room], event)
	}
	w.log = append(w.log, fmt.Sprintf("%d: %s %s %v %s", w.clock, user.localpart, text, body, a.body.Raw))
	return true
}

func (w *syncWorld) became(room string, user *client, membership string) {
	was := w.is[room][user]
	if membership != was {
		delete(w.forgot[room], user)
	}
	if membership == "invite" && was != "invite" {
		w.before[room][user] = was
	}
	w.is[room][user] = membership
	w.clock++
	switch {
	case membership == "join" && was != "join":
		w.joined[room][user] = []int64{w.clock, 1 << 62}
	case membership != "join" && was == "join":
		w.joined[room][user][1] = w.clock
	}
}

// syncOf syncs a client, and compares what it has then with the server.
func (w *syncWorld) syncOf(v *syncView) {
	w.t.Helper()
	w.clock++
	if v.since != "" && w.chance.IntN(25) == 0 {
		v.since, v.rooms, v.clock = "", make(map[string]*syncedRoom), 0 // it begins anew
	}
	parameters := filtered(object{"room": v.room})
	if v.after {
		parameters = append(parameters, "use_state_after", "true")
	}
	full := w.chance.IntN(15) == 0
	if full {
		parameters = append(parameters, "full_state", "true")
	}
	if w.chance.IntN(8) == 0 {
		lost := v.sync(v.since, parameters...)
		w.log = append(w.log, fmt.Sprintf("%d: sync of %s that is lost: %s", w.clock, v.name, lost.Get("next_batch").Str))
		if w.chance.IntN(2) == 0 {
			w.act()
		}
	}
	answer := v.sync(v.since, parameters...)
	w.log = append(w.log, fmt.Sprintf("%d: sync of %s, full_state %v, since %q: %s", w.clock, v.name, full, v.since,
		answer.Get("next_batch").Str))
	for section, rooms := range answer.Get("rooms").Map() {
		for room, r := range rooms.Map() {
			w.take(v, room, section, r)
		}
	}
	for _, room := range w.rooms {
		w.compare(v, room, answer)
	}
	v.since, v.clock = answer.Get("next_batch").Str, w.clock
}

// take does what a client does with a room of an answer.
func (w *syncWorld) take(v *syncView, room, section string, r gjson.Result) {
	w.t.Helper()
	k := v.rooms[room]
	if k == nil {
		k = &syncedRoom{state: make(map[stateKey]gjson.Result), seen: make(map[string]bool)}
		v.rooms[room] = k
	}
	came := k.section != section || w.joined[room][v.user] != nil && w.joined[room][v.user][0] > v.clock
	k.section = section
	if section == "invite" || section == "knock" {
		own := find(r.Get(section+"_state.events"), "m.room.member", v.userID)
		if own.Get("content.membership").Str != section {
			w.t.Errorf("%s: %s_state of %s does not say so: %s", v.name, section, room, r.Raw)
		}
		return
	}
	if after := r.Get("state_after").Exists(); after != v.after || r.Get("state").Exists() == v.after {
		w.t.Errorf("%s: state_after is there: %v", v.name, after)
	}
	if limit := int(v.room["timeline"].(object)["limit"].(int)); len(r.Get("timeline.events").Array()) > limit {
		w.t.Errorf("%s: a limit of %d, and a timeline of %s", v.name, limit, r.Get("timeline").Raw)
	}
	if came && r.Get("timeline.limited").Bool() {
		k.seen = make(map[string]bool)
	}
	for _, e := range r.Get("timeline.events").Array() {
		event := e.Get("event_id").Str
		if k.seen[event] {
			w.t.Errorf("%s: %s comes twice: %s", v.name, event, r.Raw)
		}
		k.seen[event] = true
		if sender := e.Get("sender").Str; w.ignores[v.user][sender] && !e.Get("state_key").Exists() {
			w.t.Errorf("%s: ignores %s, and gets %s", v.name, sender, e.Raw)
		}
	}
	events := make(map[string]gjson.Result)
	for _, list := range []string{"state", "state_after", "timeline"} {
		for _, e := range r.Get(list + ".events").Array() {
			events[e.Get("event_id").Str] = e
		}
	}
	state := make(map[stateKey]string)
	apply(state, r)
	for key, event := range state {
		k.state[key] = events[event]
	}
	if section == "join" && w.chance.IntN(8) == 0 {
		w.pageBack(v, room, r.Get("timeline"))
	}
}

// pageBack compares what a client has by following prev_batch with all that is there.
func (w *syncWorld) pageBack(v *syncView, room string, timeline gjson.Result) {
	w.t.Helper()
	f := maps.Clone(v.room["timeline"].(object))
	delete(f, "limit")
	all := func(from string) (events []string) {
		for {
			path := at("rooms", room, "messages") + "?dir=b&limit=60&filter=" + url.QueryEscape(filtered(f)[1])
			if from != "" {
				path += "&from=" + from
			}
			page := v.must("GET", path, nil)
			for _, e := range page.Get("chunk").Array() {
				if !w.ignores[v.user][e.Get("sender").Str] || e.Get("state_key").Exists() {
					events = append(events, e.Get("event_id").Str)
				}
			}
			if from = page.Get("end").Str; from == "" {
				return events
			}
		}
	}
	got := ids(timeline.Get("events"))
	slices.Reverse(got)
	got = append(got, all(timeline.Get("prev_batch").Str)...)
	same(w.t, v.name+": the timeline and what is before it of "+room, got, all(""))
}

// compare compares what a client has of a room with the server.
func (w *syncWorld) compare(v *syncView, room string, answer gjson.Result) {
	w.t.Helper()
	is, k := w.is[room][v.user], v.rooms[room]
	sections := map[string]string{
		"join": "join", "invite": "invite", "knock": "knock", "leave": "leave", "ban": "leave"}
	section := sections[is]
	hidden := is == "invite" && w.ignores[v.user] != nil // it may be from somebody whom they ignored then
	if k == nil {
		archived := section == "leave" && v.includeLeave && v.since == "" && !w.forgot[room][v.user]
		if !hidden && (section != "" && section != "leave" || archived) {
			w.t.Errorf("%s: the user's membership of %s is %q, and there is nothing of it", v.name, room, is)
		}
		return
	}
	if hidden && k.section == sections[w.before[room][v.user]] {
		return
	}
	if k.section != section {
		w.t.Errorf("%s: the user's membership of %s is %q, and it is in %q", v.name, room, is, k.section)
		return
	}
	if section == "invite" || section == "knock" {
		return
	}
	own := k.state[stateKey{"m.room.member", v.userID}]
	if v.selects == nil && own.Get("content.membership").Str != is {
		w.t.Errorf("%s: the user's membership of %s is %q, and the client has %s", v.name, room, is, own.Raw)
	}
	spans := w.joined[room][v.user]
	inAnswer := answer.Get("rooms." + section + "." + escape(room))
	if !inAnswer.Exists() || spans == nil || w.forgot[room][v.user] ||
		section == "leave" && spans[1] <= v.clock && v.since != "" {
		return // nothing can have changed, or nothing that the user sees
	}
	w.compareState(v, room, k, section)
}

func (w *syncWorld) compareState(v *syncView, room string, k *syncedRoom, section string) {
	w.t.Helper()
	server := make(map[stateKey]bool)
	for _, e := range v.must("GET", at("rooms", room, "state"), nil).Array() {
		key := stateKey{e.Get("type").Str, e.Get("state_key").Str}
		server[key] = true
		has, known := k.state[key]
		isMember := key.eventType == "m.room.member"
		switch {
		case v.selects != nil && !v.selects(key.eventType, e.Get("sender").Str):
			continue // the filter leaves it out
		case isMember && section == "leave" && key.key == v.userID:
			continue // it may have changed after they left, which compare looks at
		case v.lazy && isMember && !known && key.key != v.userID:
			continue
		}
		if has.Get("event_id").Str != e.Get("event_id").Str {
			w.t.Errorf("%s: of %s the client has %s, the server %s", v.name, room, has.Raw, e.Raw)
		}
	}
	for key, e := range k.state {
		if !server[key] {
			w.t.Errorf("%s: of %s the client has %s, the server nothing", v.name, room, e.Raw)
		}
	}
}
