package blackbox

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/tidwall/gjson"
)

// search searches events.
func (c *client) search(term string, more ...object) gjson.Result {
	c.t.Helper()
	return c.must("POST", at("search"), searching(term, more...)).Get("search_categories.room_events")
}

func searching(term string, more ...object) object {
	category := object{"search_term": term}
	for _, m := range more {
		for key, value := range m {
			category[key] = value
		}
	}
	return object{"search_categories": object{"room_events": category}}
}

func resultsOf(found gjson.Result) (all []string) {
	for _, r := range found.Get("results").Array() {
		all = append(all, r.Get("result.event_id").Str)
	}
	return all
}

func TestSearch(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, stranger := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "stranger")
		// A word of its own for each test: others run on the same server, and are not to be found.
		word := "w" + alice.localpart[6:]
		bob.must("PUT", at("profile", bob.userID, "displayname"), object{"displayname": "Bob"})
		room := alice.createRoom(object{"preset": "public_chat", "name": "The " + word + " room", "topic": "About " + word})
		other := alice.publicRoom()
		bob.join(room)
		one := alice.say(room, "one: "+word+", twice "+word)
		two := bob.say(room, "TWO\u0000("+word+")")
		three := alice.say(other, "three "+word)
		alice.say(room, "nothing")
		recent := object{"order_by": "recent"}
		same(t, "newest first", resultsOf(alice.search(word, recent, object{"keys": []string{"content.body"}})), []string{three, two, one})
		same(t, "what was just said, by one who is not in the other room", resultsOf(bob.search(word, recent, object{"keys": []string{"content.body"}})), []string{two, one})
		same(t, "for a stranger", resultsOf(stranger.search(word)), nil)
		all := alice.search(word)
		equal(t, "count of all", all.Get("count").Int(), 5)
		equal(t, "results", len(all.Get("results").Array()), 5)
		equal(t, "highlights", all.Get("highlights").Raw, `["`+word+`"]`)
		if !slices.IsSortedFunc(all.Get("results").Array(), func(a, b gjson.Result) int { return int(b.Get("rank").Num*1e6) - int(a.Get("rank").Num*1e6) }) {
			t.Errorf("not by rank: %s", all.Raw)
		}
		types := func(key string) (all []string) {
			for _, r := range alice.search(word, object{"keys": []string{key}}).Get("results").Array() {
				all = append(all, r.Get("result.type").Str)
			}
			return all
		}
		same(t, "names", types("content.name"), []string{"m.room.name"})
		same(t, "topics", types("content.topic"), []string{"m.room.topic"})
		same(t, "all words", resultsOf(alice.search("ONE "+word)), []string{one})
		same(t, "one of two words", resultsOf(alice.search("absent "+word)), nil)
		same(t, "nothing in it", resultsOf(alice.search(" .,-\u0000 ")), nil)
		for _, odd := range []string{`"`, `"` + word, "NEAR(" + word, word + "*", "body:" + word, "'; DROP TABLE x", "a AND", "^x", "{body} : x", "\\", "&|!<->", ":*", "NOT", "(", "\u2028"} {
			alice.search(odd)
		}

		// Filters.
		same(t, "of a sender", resultsOf(alice.search(word, object{"filter": object{"senders": []string{bob.userID}}})), []string{two})
		same(t, "in a room", resultsOf(alice.search(word, object{"filter": object{"rooms": []string{other}}})), []string{three})
		same(t, "not in a room", resultsOf(alice.search(word, object{"filter": object{"not_rooms": []string{room}}})), []string{three})
		equal(t, "of a type", len(resultsOf(alice.search(word, object{"filter": object{"types": []string{"m.room.message"}}}))), 3)

		// Pages.
		var paged []string
		for next, n := "", 0; n < 9; n++ {
			page := alice.must("POST", at("search")+"?next_batch="+url.QueryEscape(next), searching(word, recent, object{"filter": object{"limit": 2}})).
				Get("search_categories.room_events")
			paged = append(paged, resultsOf(page)...)
			if next = page.Get("next_batch").Str; next == "" {
				break
			}
		}
		same(t, "in pages", paged, resultsOf(alice.search(word, recent)))

		// What surrounds them.
		got := bob.search("two "+word, object{"include_state": true, "event_context": object{"before_limit": 1, "after_limit": 1, "include_profile": true},
			"groupings": object{"group_by": []object{{"key": "room_id"}, {"key": "sender"}}}})
		around := got.Get("results.0.context")
		same(t, "before", ids(around.Get("events_before")), []string{one})
		equal(t, "after", around.Get("events_after.0.content.body").Str, "nothing")
		equal(t, "profile", around.Get("profile_info."+escape(bob.userID)+".displayname").Str, "Bob")
		before := bob.must("GET", at("rooms", room, "messages")+"?dir=b&limit=1&from="+around.Get("start").Str, nil)
		equal(t, "type of what comes before the context", before.Get("chunk.0.type").Str, "m.room.member")
		if !find(got.Get("state."+escape(room)), "m.room.create", "").Exists() {
			t.Errorf("state: %s", got.Get("state").Raw)
		}
		equal(t, "group by room", got.Get("groups.room_id."+escape(room)+".results.0").Str, two)
		equal(t, "group by sender", got.Get("groups.sender."+escape(bob.userID)+".results.0").Str, two)

		// Aggregations come with results, and what is redacted is gone.
		edit := alice.edit(room, one, "edited")
		equal(t, "edit", alice.search("one "+word).Get(`results.0.result.unsigned.m\.relations.m\.replace.event_id`).Str, edit)
		alice.redact(room, one)
		same(t, "after a redaction", resultsOf(alice.search("one "+word)), nil)

		bad := at("search")
		alice.refused(400, "M_MISSING_PARAM", "POST", bad, object{"search_categories": object{"room_events": object{}}})
		for _, wrong := range []object{{"keys": []string{"content.x"}}, {"order_by": "x"}, {"groupings": object{"group_by": []object{{"key": "x"}}}}, {"keys": []string{}},
			{"event_context": object{"before_limit": -1}}} {
			alice.refused(400, "M_INVALID_PARAM", "POST", bad, searching(word, wrong))
		}
		alice.refused(400, "M_BAD_JSON", "POST", bad, searching(word, object{"filter": object{"limit": -1}}))
		alice.refused(400, "M_INVALID_PARAM", "POST", bad+"?next_batch=x", searching(word))
		equal(t, "no category", alice.must("POST", bad, object{"search_categories": object{}}).Get("search_categories").Raw, "{}")
	})
}

// A search finds what its user may see, and nothing in encrypted rooms.
func TestSearchSeesWhatItsUserSees(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		word := "w" + alice.localpart[6:]
		room := alice.createRoom(object{"preset": "private_chat", "initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}})
		say := func(what string) string { return alice.say(room, word+" "+what) }
		say("before")
		alice.invite(room, bob)
		say("invited")
		same(t, "who is invited", resultsOf(bob.search(word)), nil)
		bob.join(room)
		during := say("during")
		bob.must("POST", at("rooms", room, "leave"), object{})
		say("after")
		same(t, "who has left", resultsOf(bob.search(word)), []string{during})
		equal(t, "who has stayed", len(resultsOf(alice.search(word))), 4)
		bob.must("POST", at("rooms", room, "forget"), object{})
		same(t, "who has forgotten", resultsOf(bob.search(word)), nil)
		alice.setState(room, "m.room.encryption", "", object{"algorithm": "m.megolm.v1.aes-sha2"})
		same(t, "in an encrypted room", resultsOf(alice.search(word)), nil)
		chinese := alice.publicRoom()
		event := alice.say(chinese, "你好世界 "+word)
		same(t, "words without spaces", resultsOf(alice.search("世界 "+word)), []string{event})
	})
}

// A long history is indexed before it is searched.
func TestSearchOfALongHistory(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		word := "w" + alice.localpart[6:]
		room := alice.publicRoom()
		for i := range 450 {
			alice.say(room, fmt.Sprint(word, " number ", i))
		}
		found := alice.search(word, object{"order_by": "recent", "filter": object{"limit": 100}})
		equal(t, "count", found.Get("count").Int(), 450)
		equal(t, "results", len(found.Get("results").Array()), 100)
		equal(t, "one of them", len(resultsOf(alice.search(word+" 7"))), 1)
	})
}
