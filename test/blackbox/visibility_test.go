package blackbox

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tidwall/gjson"
)

// lives are what may happen to somebody between the four sayings of a room: all that matters to what they see of its history.
var lives = map[string][3]string{
	"stranger": {"", "", ""}, "invited": {"invite", "", ""}, "invited last": {"", "", "invite"}, "rejected": {"invite", "leave", ""},
	"joined": {"join", "", ""}, "joined last": {"", "", "join"}, "invited, joined": {"invite", "join", ""}, "left": {"join", "leave", ""},
	"rejoined": {"join", "leave", "join"}, "kicked": {"join", "kick", ""}, "banned": {"join", "ban", ""}, "banned stranger": {"", "ban", ""},
	"unbanned": {"join", "ban", "unban"}, "knocked": {"knock", "", ""}, "knocked, joined": {"knock", "invite", "join"}, "left, invited": {"join", "leave", "invite"},
	"invited, banned": {"invite", "ban", ""},
}

// after is the membership that an action leads to.
var after = map[string]string{"invite": "invite", "join": "join", "leave": "leave", "kick": "leave", "ban": "ban", "unban": "leave", "knock": "knock"}

// visibleTo applies § Room History Visibility, § Server behaviour, to each saying: whether somebody with such a life may see it.
func visibleTo(visibility string, life [3]string) (visible [4]bool) {
	memberships := [4]string{"", "", "", ""}
	for i, action := range life {
		memberships[i+1] = memberships[i]
		if action != "" {
			memberships[i+1] = after[action]
		}
	}
	for i, membership := range memberships {
		joinsLater := slices.Contains(memberships[i+1:], "join")
		switch visibility {
		case "world_readable":
			visible[i] = true
		case "invited":
			// "Accessible to newly joined members from the point they were invited onwards": who only is invited is no member yet.
			visible[i] = membership == "join" || membership == "invite" && joinsLater
		case "joined":
			visible[i] = membership == "join"
		default:
			visible[i] = membership == "join" || joinsLater
		}
	}
	return visible
}

// Every setting, every life and every endpoint that returns events of the past.
func TestTheTableOfHistoryVisibility(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		people := make(map[string]*client)
		for name := range lives {
			people[name] = d.user(t, "x")
		}
		settings := []string{"invited", "world_readable", "shared", "joined", "absent", "x.odd"}
		if d.kind == polylith {
			settings = settings[:2] // for members and for everybody: what a setting means is decided in one component
		}
		for _, visibility := range settings {
			initial := []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}
			if visibility != "absent" {
				initial = append(initial, object{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}})
			}
			room := alice.createRoom(object{"initial_state": initial})
			if visibility == "absent" {
				alice.setState(room, "m.room.history_visibility", "", object{})
			}
			create := find(alice.must("GET", at("rooms", room, "state"), nil), "m.room.create", "").Get("event_id").Str
			var events [4]string
			for i, text := range sayings {
				events[i] = alice.say(room, text)
				alice.send(room, "x.reply", object{"m.relates_to": object{"rel_type": "m.thread", "event_id": events[i]}})
				alice.send(room, "x.reference", object{"text": text, "m.relates_to": object{"rel_type": "m.reference", "event_id": create}})
				if i == len(lives["joined"]) {
					break
				}
				for name, life := range lives {
					people[name].live(alice, room, life[i])
				}
			}
			for name, life := range lives {
				table{t, people[name], room, events, visibility + ", " + name, visibleTo(visibility, life), life}.check(create)
			}
		}
	})
}

// live does to somebody what their life says.
func (c *client) live(alice *client, room, action string) {
	c.t.Helper()
	switch action {
	case "join":
		if alice.call("GET", at("rooms", room, "state", "m.room.member", c.userID), nil).body.Get("membership").Str != "invite" {
			alice.invite(room, c)
		}
		c.join(room)
	case "invite":
		alice.invite(room, c)
	case "leave":
		c.must("POST", at("rooms", room, "leave"), object{})
	case "knock":
		c.must("POST", at("knock", room), object{})
	case "kick", "ban", "unban":
		alice.must("POST", at("rooms", room, action), object{"user_id": c.userID})
	}
}

// table is one row: somebody in a room, and which of the sayings they may see.
type table struct {
	t       *testing.T
	c       *client
	room    string
	events  [4]string
	name    string
	visible [4]bool
	life    [3]string
}

// want lists the sayings that may be seen.
func (r *table) want() (all []string) {
	for i, text := range sayings {
		if r.visible[i] {
			all = append(all, text)
		}
	}
	return all
}

// said is which sayings are among what an endpoint returned, oldest first. What may not be read at all has none.
func (r *table) said(a answer, list string, text func(e gjson.Result) string) (all []string) {
	r.t.Helper()
	if a.status != 200 && a.status != 403 && a.status != 404 {
		r.t.Errorf("%s: %d %s", r.name, a.status, a.body.Raw)
	}
	for _, e := range a.body.Get(list).Array() {
		if s := text(e); slices.Contains(sayings, s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return slices.Index(sayings, a) - slices.Index(sayings, b) })
	return all
}

func (r table) check(create string) {
	t := r.t
	t.Helper()
	body := func(e gjson.Result) string { return e.Get("content.body").Str }
	get := func(path string) answer { return r.c.call("GET", path, nil) }
	want := r.want()
	same(t, r.name+": /messages backwards", r.said(get(at("rooms", r.room, "messages")+"?dir=b&limit=100"), "chunk", body), want)
	same(t, r.name+": /messages forwards", r.said(get(at("rooms", r.room, "messages")+"?dir=f&limit=100"), "chunk", body), want)
	same(t, r.name+": /threads", r.said(get(v1("rooms", r.room, "threads")), "chunk", body), want)

	everJoined, member := false, r.life != [3]string{}
	for _, action := range r.life {
		everJoined = everJoined || action == "join"
	}
	for _, text := range r.said(get(at("rooms", r.room, "initialSync")), "messages.chunk", body) {
		if !slices.Contains(want, text) || !everJoined {
			t.Errorf("%s: /initialSync has %q", r.name, text)
		}
	}
	// The first event of the room is older than its visibility, so it is shared: those see it who have joined since.
	related := want
	if !everJoined {
		related = nil
	}
	same(t, r.name+": /relations", r.said(get(v1("rooms", r.room, "relations", create)), "chunk", func(e gjson.Result) string { return e.Get("content.text").Str }), related)

	for i, event := range r.events {
		for what, path := range map[string]string{"/event": at("rooms", r.room, "event", event), "/context": at("rooms", r.room, "context", event) + "?limit=100",
			"/relations": v1("rooms", r.room, "relations", event)} {
			if a := get(path); a.status == 200 != r.visible[i] {
				t.Errorf("%s: %s of %q: %d %s", r.name, what, sayings[i], a.status, a.body.Raw)
			}
		}
		if a := get(at("rooms", r.room, "context", event) + "?limit=100"); a.status == 200 {
			around := append(r.said(a, "events_before", body), sayings[i])
			same(t, r.name+": around "+sayings[i], append(around, r.said(a, "events_after", body)...), want)
		}
		if r.visible[i] {
			ts := get(at("rooms", r.room, "event", event)).body.Get("origin_server_ts").Int()
			for _, dir := range []string{"b", "f"} {
				a := get(fmt.Sprintf("%s?ts=%d&dir=%s", v1("rooms", r.room, "timestamp_to_event"), ts, dir))
				if found := get(at("rooms", r.room, "event", a.body.Get("event_id").Str)); a.status != 200 || found.status != 200 {
					t.Errorf("%s: the event at the time of %q: %d %s, which reads as %d", r.name, sayings[i], a.status, a.body.Raw, found.status)
				}
			}
		}
		found := r.c.must("POST", at("search"), searching(sayings[i], object{"filter": object{"rooms": []string{r.room}}}))
		if hits := len(found.Get("search_categories.room_events.results").Array()); hits == 1 != (r.visible[i] && member) {
			t.Errorf("%s: a search for %q finds %d", r.name, sayings[i], hits)
		}
	}
	// In a sync, what came before the newest membership may be cut off; but nothing is there that may not be seen.
	sync := r.c.sync("", filtered(object{"room": object{"include_leave": true, "timeline": object{"limit": 100}}})...)
	for _, section := range []string{"join", "leave"} {
		for _, text := range r.said(answer{status: 200, body: roomIn(sync, section, r.room)}, "timeline.events", body) {
			if !slices.Contains(want, text) {
				t.Errorf("%s: a sync has %q", r.name, text)
			}
		}
	}
	if now := r.life[2]; now == "join" || r.life[1] == "join" && now == "" || r.life[0] == "join" && r.life[1] == "" && now == "" {
		// A timeline is also cut where a change of state that the user may not see would leave their client with an
		// older one.
		timeline := roomIn(sync, "join", r.room).Get("timeline")
		got := r.said(answer{status: 200, body: timeline}, "events", body)
		if timeline.Get("limited").Bool() {
			got = append(r.said(get(at("rooms", r.room, "messages")+"?dir=b&limit=100&from="+
				timeline.Get("prev_batch").Str), "chunk", body), got...)
		}
		same(t, r.name+": /sync", got, want)
	}
}
