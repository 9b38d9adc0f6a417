package blackbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/test/deploy"
)

// What relates to the events of a sync counts too: where it is too much the timelines are cut, and the rest is found by
// paging back.
func TestASyncOfMuchThatIsAggregatedIsCut(t *testing.T) {
	deploy.Chosen(t, monolithSQLite)
	d := own(t, monolithSQLite, nil)
	alice := d.user(t, "alice")
	room := alice.publicRoom()
	var roots []string
	for range 400 {
		roots = append(roots, alice.say(room, "small"))
	}
	for _, root := range roots {
		edit := object{"msgtype": "m.text", "body": strings.Repeat("x", 60_000), "url": "mxc://test.example/x",
			"m.new_content": object{}, "m.relates_to": object{"rel_type": "m.replace", "event_id": root}}
		alice.must("PUT", at("rooms", room, "send", "m.room.message", alice.txn()), edit)
	}
	small := object{"limit": 399, "types": []string{"m.room.message"}, "contains_url": false}
	answer := alice.sync("", timelineOf(small)...)
	timeline := roomIn(answer, "join", room).Get("timeline")
	if size := len(answer.Raw); size > 21<<20 || size < 12<<20 {
		t.Errorf("an answer of %d bytes", size)
	}
	got := ids(timeline.Get("events"))
	for _, e := range timeline.Get("events").Array() {
		if !e.Get(`unsigned.m\.relations.m\.replace`).Exists() {
			t.Fatalf("the edit of %s is left out", e.Raw)
		}
	}
	slices.Reverse(got)
	delete(small, "limit")
	for from := timeline.Get("prev_batch").Str; from != ""; {
		page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=20&filter="+
			`{"types":["m.room.message"],"contains_url":false}`+"&from="+from, nil)
		got = append(got, ids(page.Get("chunk"))...)
		from = page.Get("end").Str
	}
	slices.Reverse(got)
	same(t, "the timeline and what is before it", got, roots)
}
