package blackbox

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// searchWorld is a user's rooms, in one of two worlds: in one of them things are said that the user may not see.
type searchWorld struct {
	t             *testing.T
	alice, viewer *client
	word          string
	hidden        bool
	names         []string // what is called otherwise in the other world, and a name for it
}

// room is one in which alice says things while the user is in it and, in the one world, while they are not. What the
// user's life there is, says life.
func (w *searchWorld) room(life string) {
	w.t.Helper()
	room := w.alice.createRoom(object{"initial_state": []object{
		{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}},
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}})
	unseen := make(map[string]bool)
	membership := func(by *client, action string) {
		by.must("POST", at("rooms", room, action), object{"user_id": w.viewer.userID})
	}
	in := false
	for n, step := range append([]string{""}, strings.Fields(life)...) {
		switch step {
		case "invite", "kick", "ban", "unban":
			membership(w.alice, step)
		case "knock":
			w.viewer.must("POST", at("knock", room), object{})
		case "join", "leave":
			membership(w.viewer, step)
		}
		in = step == "join" || in && step == ""
		for i := range 3 {
			// Words that are more or less often in it, which makes ranks.
			text := fmt.Sprint(strings.Repeat(w.word+" ", 1+(n+i)%3), "text ", n, " ", i)
			if in {
				w.alice.say(room, text)
			} else if w.hidden {
				unseen[w.alice.say(room, text)] = true
			}
		}
	}
	named := 0
	for _, event := range ids(w.alice.must("GET", at("rooms", room, "messages")+"?dir=f&limit=1000",
		nil).Get("chunk")) {
		if !unseen[event] {
			named++
			w.names = append(w.names, event, fmt.Sprintf("event %d of %s", named, life))
		}
	}
	w.names = append(w.names, room, "room of "+life)
}

// told makes one text of an answer: what depends on the clock and the names of things alone is left out.
func (w *searchWorld) told(value any) any {
	replace := strings.NewReplacer(append(slices.Clone(w.names), w.alice.userID, "alice", w.viewer.userID, "viewer",
		w.word, "word")...)
	var clean func(any) any
	clean = func(value any) any {
		switch v := value.(type) {
		case map[string]any:
			all := make(map[string]any, len(v))
			for key, value := range v {
				switch key {
				case "origin_server_ts", "age", "start", "end":
				case "next_batch":
					all[key] = "more"
				case "state": // events in no particular order
					rooms, _ := clean(value).(map[string]any)
					for room, events := range rooms {
						list, _ := events.([]any)
						slices.SortFunc(list, func(a, b any) int {
							return strings.Compare(fmt.Sprint(a),
								fmt.Sprint(b))
						})
						rooms[room] = list
					}
					all[key] = rooms
				default:
					all[replace.Replace(key)] = clean(value)
				}
			}
			return all
		case []any:
			for i := range v {
				v[i] = clean(v[i])
			}
		case string:
			return replace.Replace(v)
		}
		return value
	}
	return clean(value)
}

// answers are those to many searches, with all their pages.
func (w *searchWorld) answers() []string {
	w.t.Helper()
	var all []string
	for _, more := range []object{
		{}, {"order_by": "recent"}, {"filter": object{"limit": 2}},
		{"filter": object{"limit": 2}, "order_by": "recent"},
		{"filter": object{"limit": 3, "types": []string{"m.room.message"}}},
		{"filter": object{"senders": []string{w.viewer.userID}}},
		{"keys": []string{"content.name"}},
		{"include_state": true, "event_context": object{"before_limit": 3, "after_limit": 3, "include_profile": true},
			"filter":    object{"limit": 4},
			"groupings": object{"group_by": []object{{"key": "room_id"}, {"key": "sender"}}}},
	} {
		for _, term := range []string{w.word, w.word + " text"} {
			for next, n := "", 0; n == 0 || next != "" && n < 50; n++ {
				found := w.viewer.must("POST", at("search")+"?next_batch="+url.QueryEscape(next), searching(term, more))
				text, err := json.Marshal(w.told(found.Value()))
				if err != nil {
					w.t.Fatal(err)
				}
				all = append(all, string(text))
				next = found.Get("search_categories.room_events.next_batch").Str
			}
		}
	}
	return all
}

// What somebody may not see changes nothing in the answer to a search: neither its results, nor counts, ranks, groups
// or pages.
func TestSearchTellsNothingOfWhatItsUserMayNotSee(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		for _, lives := range [][]string{
			{""}, {"invite"}, {"knock"}, {"knock kick"}, {"invite leave"}, {"invite join"}, {"invite join leave"},
			{"invite join kick"},
			{"invite join ban"}, {"invite join leave invite join"}, {"invite join kick knock"},
			{"invite join ban unban invite"},
			{"invite join", "invite join leave", "invite", "knock"},
		} {
			var told [2][]string
			for i := range told {
				w := &searchWorld{t: t, alice: d.user(t, "alice"), viewer: d.user(t, "viewer"), hidden: i == 1}
				w.word = "w" + w.alice.localpart[6:]
				for _, life := range lives {
					w.room(life)
				}
				told[i] = w.answers()
			}
			for i := range max(len(told[0]), len(told[1])) {
				if i >= len(told[0]) || i >= len(told[1]) || told[0][i] != told[1][i] {
					t.Errorf("%q: answer %d of %d without what is hidden, and of %d with it, differs", lives, i,
						len(told[0]), len(told[1]))
					if i < len(told[0]) && i < len(told[1]) {
						t.Errorf("\n%s\n%s", told[0][i], told[1][i])
					}
					break
				}
			}
			if strings.Contains(lives[0], "join") && !strings.Contains(told[1][0], "text") {
				t.Errorf("%q: nothing is found: %s", lives, told[1][0])
			}
		}
	})
}

// What a search counts is what its filter selects, without what is redacted or was said by users who are erased.
func TestSearchCountsWhatItFinds(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, late := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "late")
		word := "w" + alice.localpart[6:]
		room := alice.publicRoom()
		bob.join(room)
		for i := range 4 {
			bob.say(room, fmt.Sprint(word, i, " ", word))
			alice.say(room, fmt.Sprint(word, i, " ", word))
		}
		count := func(c *client, want int64, more ...object) {
			t.Helper()
			found := c.search(word, more...)
			equal(t, "count", found.Get("count").Int(), want)
			equal(t, "results", int64(len(resultsOf(found))), want)
		}
		count(alice, 8)
		count(alice, 4, object{"filter": object{"senders": []string{bob.userID}}})
		count(alice, 0, object{"filter": object{"types": []string{"m.room.name"}}})
		alice.redact(room, resultsOf(alice.search(word))[0])
		count(alice, 7)
		bob.must("POST", at("account", "deactivate"), object{"auth": bob.auth(""), "erase": true})
		late.join(room)
		count(late, int64(len(resultsOf(alice.search(word,
			object{"filter": object{"senders": []string{alice.userID}}})))))
	})
}

// Pages go on after the last result that was shown, whatever comes and goes before it.
func TestPagesOfASearchLoseAndDoubleNothing(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		for _, order := range []string{"recent", "rank"} {
			alice := d.user(t, "alice")
			word := "w" + alice.localpart[6:]
			room, other := alice.publicRoom(), alice.publicRoom()
			for i := range 17 {
				alice.say(room, strings.Repeat(word+" ", 1+i%3))
			}
			query := object{"order_by": order, "filter": object{"limit": 5}}
			all := resultsOf(alice.search(word, object{"order_by": order, "filter": object{"limit": 50}}))
			var paged []string
			for next, n := "", 0; n == 0 || next != "" && n < 20; n++ {
				page := alice.must("POST", at("search")+"?next_batch="+url.QueryEscape(next),
					searching(word, query)).Get("search_categories.room_events")
				paged = append(paged, resultsOf(page)...)
				next = page.Get("next_batch").Str
				switch n {
				case 0:
					alice.redact(room, paged[0])
				case 1:
					alice.redact(room, paged[len(paged)-1])
					alice.say(other, strings.Repeat(word+" ", 10)) // the newest, and the best
				}
			}
			same(t, "in pages, "+order, paged, all)
		}
	})
}
