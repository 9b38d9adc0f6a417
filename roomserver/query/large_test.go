package query_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	. "github.com/matrix-org/dendrite/test/roomtest"
)

// mostBytes is what an answer may have: its bound, and what is the last in it with what relates to that.
const mostBytes = 1<<20 + 5*64<<10

// relate sends a message that relates to another.
func relate(w *World, room id.RoomID, to id.EventID, how, body string) id.EventID {
	w.T.Helper()
	content := fmt.Sprintf(`{"msgtype":"m.text","body":%q,"m.new_content":{},`+
		`"m.relates_to":{"rel_type":%q,"event_id":%q}}`, body, how, to)
	return Must(w, w.SendEvent,
		api.SendEventRequest{RequestKey: api.RequestKey(fmt.Sprint(to, how, len(body), body[:min(9, len(body))])),
			RoomID: room, Sender: Alice, Type: "m.room.message", Content: json.RawMessage(content)}).EventID
}

// bytesOf is what the events of an answer have.
func bytesOf(t *testing.T, events ...api.Event) int {
	t.Helper()
	all, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// An answer has a bound in bytes, whatever limit is asked for; its token goes on exactly where it stopped, so that all
// pages together are what one was.
func TestAnswersHaveABoundInBytes(t *testing.T) {
	for _, n := range []int{12, 120} { // of 60 KB
		w := New(t, true)
		room := w.Room("shared")
		root := w.Say(room, Alice, "root")
		var sent []id.EventID
		for i := range n {
			sent = append(sent, relate(w, room, root, "m.reference",
				fmt.Sprintf("%08d ", i)+strings.Repeat("x", 60_000)))
		}
		backward := slices.Clone(sent)
		slices.Reverse(backward)
		whole := n <= 16 // fits into one page

		for _, back := range []bool{true, false} {
			want := map[bool][]id.EventID{true: backward, false: sent}[back]
			var messages, related []id.EventID
			req := api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 1000, Backward: back,
				Filter: &api.EventFilter{Types: []string{"m.room.message"}, LazyLoadMembers: true}}
			for calls := 1; ; calls++ {
				res := Must(w, w.QueryMessages, req)
				if size := bytesOf(t, res.Chunk...); size > mostBytes || len(res.Chunk) == 0 || len(res.State) != 1 {
					t.Fatalf("n %d: a page of %d messages has %d bytes, %d members", n, len(res.Chunk), size,
						len(res.State))
				}
				messages = append(messages, ids(res.Chunk)...)
				if req.From = res.End; res.End == nil {
					if (calls == 1) != whole {
						t.Errorf("n %d: %d pages", n, calls)
					}
					break
				}
			}
			messages = slices.DeleteFunc(messages, func(e id.EventID) bool { return e == root })
			if !slices.Equal(messages, want) {
				t.Errorf("n %d, backward %v: the pages have %d messages of %d, or in another order", n, back,
					len(messages), n)
			}
			relations := api.QueryRelationsRequest{Viewer: as(Alice), RoomID: room, EventID: root, Limit: 1000,
				Backward: back}
			for {
				res := Must(w, w.QueryRelations, relations)
				if size := bytesOf(t, res.Chunk...); size > mostBytes || len(res.Chunk) == 0 {
					t.Fatalf("n %d: a page of %d relations has %d bytes", n, len(res.Chunk), size)
				}
				related = append(related, ids(res.Chunk)...)
				if relations.From = res.End; res.End == nil {
					break
				}
			}
			if !slices.Equal(related, want) {
				t.Errorf("n %d, backward %v: the pages have %d relations of %d, or in another order", n, back,
					len(related), n)
			}
		}

		// What is around an event, and from there on in both directions.
		around := Must(w, w.QueryContext, api.QueryContextRequest{Viewer: as(Alice), RoomID: room, EventID: sent[n/2],
			Limit: 1000, Filter: Messages()})
		if size := bytesOf(t, append(around.Before, around.After...)...); size > mostBytes || len(around.Before) == 0 ||
			len(around.After) == 0 {
			t.Errorf("n %d: %d events before and %d after one have %d bytes", n, len(around.Before), len(around.After),
				size)
		}
		all := ids(around.After)
		for _, e := range append([]api.Event{around.Event}, around.Before...) {
			all = append([]id.EventID{e.PDU.ID()}, all...)
		}
		for _, back := range []bool{true, false} {
			from := map[bool]*api.OrderKey{true: &around.Start, false: &around.End}[back]
			req := api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 1000, From: from, Backward: back,
				Filter: Messages()}
			for req.From != nil {
				res := Must(w, w.QueryMessages, req)
				for _, e := range res.Chunk {
					if back {
						all = append([]id.EventID{e.PDU.ID()}, all...)
					} else {
						all = append(all, e.PDU.ID())
					}
				}
				req.From = res.End
			}
		}
		if want := append([]id.EventID{root}, sent...); !slices.Equal(all, want) {
			t.Errorf("n %d: the context and what is beyond have %d messages of %d, or in another order", n, len(all),
				len(want))
		}
	}
}

// What is aggregated counts: small events may have large ones that relate to them.
func TestWhatIsAggregatedCounts(t *testing.T) {
	const n = 40
	w := New(t, true)
	room := w.Room("shared")
	large := strings.Repeat("x", 60_000)
	var roots []id.EventID
	for i := range n {
		root := w.Say(room, Alice, fmt.Sprint(i))
		roots = append(roots, root)
		relate(w, room, root, "m.replace", large)
		reply := relate(w, room, root, "m.thread", fmt.Sprint("small ", i))
		relate(w, room, reply, "m.replace", large)
	}
	last := w.Say(room, Alice, "last")
	var messages, threads []id.EventID
	req := api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, Limit: 1000, Backward: true, Filter: Messages()}
	for more := true; more; more = req.From != nil {
		res := Must(w, w.QueryMessages, req)
		if size := bytesOf(t, res.Chunk...); size > mostBytes {
			t.Fatalf("a page of %d messages has %d bytes", len(res.Chunk), size)
		}
		for i := range res.Chunk {
			e := &res.Chunk[i]
			if !slices.Contains(roots, e.PDU.ID()) {
				continue
			}
			messages = append(messages, e.PDU.ID())
			if r := e.Relations; r == nil || r.Replace == nil || r.Thread == nil || r.Thread.Latest.Relations == nil ||
				r.Thread.Latest.Relations.Replace == nil {
				t.Errorf("what relates to %s is left out", e.PDU.ID())
			}
		}
		req.From = res.End
	}
	list := api.QueryThreadsRequest{Viewer: as(Alice), RoomID: room, Limit: 1000}
	for more := true; more; more = list.From != nil {
		res := Must(w, w.QueryThreads, list)
		if size := bytesOf(t, res.Chunk...); size > mostBytes || len(res.Chunk) == 0 {
			t.Fatalf("a page of %d threads has %d bytes", len(res.Chunk), size)
		}
		threads = append(threads, ids(res.Chunk)...)
		list.From = res.End
	}
	slices.Reverse(roots)
	if !slices.Equal(messages, roots) || !slices.Equal(threads, roots) {
		t.Errorf("%d messages and %d threads of %d, or in another order", len(messages), len(threads), n)
	}
	around := Must(w, w.QueryContext, api.QueryContextRequest{Viewer: as(Alice), RoomID: room, EventID: last,
		Limit: 1000, Filter: Messages()})
	if size := bytesOf(t, around.Before...); size > mostBytes || len(around.Before) == 0 {
		t.Errorf("%d events before the last have %d bytes", len(around.Before), size)
	}
	next := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: &around.Start,
		Limit: 1, Backward: true, Filter: Messages()})
	whole := Must(w, w.QueryMessages, api.QueryMessagesRequest{Viewer: as(Alice), RoomID: room, From: &around.Start,
		Limit: 1, Filter: Messages()})
	if got, want := whole.Chunk[0].PDU.ID(), around.Before[len(around.Before)-1].PDU.ID(); got != want ||
		len(next.Chunk) != 1 {
		t.Errorf("the context begins at %s, its token at %s", want, got)
	}
}

// A page of a search has a bound in bytes, what is around its results and the state of their rooms included, and the
// next page goes on exactly where it stopped.
func TestAPageOfASearchHasABoundInBytes(t *testing.T) {
	const n = 30
	Databases(t, func(t *testing.T, w *World) {
		for _, recent := range []bool{true, false} {
			room := w.Room("shared")
			word := map[bool]string{true: "new", false: "good"}[recent]
			var sent []id.EventID
			for i := range n {
				sent = append(sent, w.Say(room, Alice, fmt.Sprint(strings.Repeat(word+" ", 1+i%3),
					strings.Repeat("x", 60_000))))
			}
			slices.Sort(sent)
			req := api.QuerySearchRequest{Viewer: as(Alice), Term: word, Keys: []string{"body"}, Recent: recent,
				Limit: 100, Context: true, Before: 50, After: 50, IncludeState: true}
			var found []id.EventID
			for more := true; more; more = req.From != nil {
				res := Must(w, w.QuerySearch, req)
				size := bytesOf(t, res.State[room]...)
				for i := range res.Results {
					result := &res.Results[i]
					found = append(found, result.Event.PDU.ID())
					size += bytesOf(t,
						slices.Concat([]api.Event{result.Event}, result.Context.Before, result.Context.After)...)
				}
				if size > 1<<20+mostBytes || len(res.Results) == 0 || res.Count != n {
					t.Fatalf("a page of %d results of %d has %d bytes", len(res.Results), res.Count, size)
				}
				req.From = res.Next
			}
			slices.Sort(found)
			if !slices.Equal(found, sent) {
				t.Errorf("the pages have %d results of %d, or others", len(found), n)
			}
		}
	})
}
