package answer

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// A client that applies the timeline after the state has the state at the end: where state resolution moves the state,
// or something is not shown, the timeline is cut after the last event that is wrong, and no later.
func TestWhereATimelineIsCut(t *testing.T) {
	type row struct {
		event         string // its key and a number; "m" for a message
		before, after byte   // the states
		flags         int64
	}
	topic := func(events ...string) map[string]string { return map[string]string{"topic": events[0]} }
	for name, test := range map[string]struct {
		rows  []row
		end   byte
		later map[string]string // by key; "" for one that is gone
		shows bool
		cut   int
	}{
		"nothing": {nil, 1, nil, true, 0},
		"all is shown": {[]row{{"topic1", 1, 2, 0}, {"m", 2, 2, 0}, {"topic2", 2, 3, 0}}, 3,
			topic("topic2"), true, 0},
		"the last is not shown": {[]row{{"topic1", 1, 2, 0}, {"m", 2, 2, 0}}, 3, topic("topic2"), false, 1},
		"one between is not shown": {[]row{{"topic1", 1, 2, 0}, {"topic3", 3, 4, 0}}, 4,
			topic("topic3"), false, 0},
		"another key is not shown": {[]row{{"topic1", 1, 2, 0}, {"name1", 3, 4, 0}}, 4,
			map[string]string{"topic": "topic2", "name": "name1"}, false, 1},
		"the last loses": {[]row{{"topic1", 1, 2, 0}, {"topic2", 2, 2, storage.Complex}, {"m", 2, 2, 0}}, 2,
			topic("topic1"), false, 2},
		"the first wins again": {[]row{{"topic1", 1, 2, 0}, {"topic2", 2, 3, 0}, {"m", 3, 2, storage.Complex}}, 2,
			topic("topic1"), false, 2},
		"what was before wins again": {[]row{{"topic1", 1, 2, 0}, {"m", 2, 1, storage.Complex}, {"m", 1, 1, 0}}, 1,
			nil, false, 1},
		"the key is gone": {[]row{{"topic1", 1, 2, 0}, {"m", 2, 3, storage.Complex}}, 3,
			topic(""), false, 1},
		"a message changes another key": {[]row{{"topic1", 1, 2, 0}, {"m", 2, 3, storage.Complex}}, 3,
			map[string]string{"topic": "topic1", "name": "name2"}, false, 0},
		"what is soft-failed moves much": {[]row{{"topic1", 1, 2, 0}, {"name1", 2, 3, 0}, {"m", 5, 5, 0}}, 5,
			map[string]string{"topic": "topic2", "name": "name2"}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			a := &answering{Request: &Request{Filter: filter.Default()}}
			own := new(storage.Membership)
			r := &room{kind: joined, own: own, membership: own, root: roomserver.Root{test.end}, later: make(later)}
			for i, row := range test.rows {
				r.rows = append(r.rows, storage.TimelineRow{Flags: row.flags,
					RootBefore: roomserver.Root{row.before}, RootAfter: roomserver.Root{row.after}})
				r.timeline = append(r.timeline, parsed(t, row.event, i))
			}
			for key, event := range test.later {
				tuple := roomserver.StateKeyTuple{Type: key}
				if r.later[tuple] = nil; event != "" {
					r.later[tuple] = parsed(t, event, 0)
				}
			}
			if shows := r.showsAll(); shows != test.shows {
				t.Errorf("it shows all: %v", shows)
			}
			if cut := a.stale(r); cut != test.cut {
				t.Errorf("%d events are cut, want %d", cut, test.cut)
			}
			// Where the filter of the state leaves the key out, the right event could not be given either.
			a.Filter.Room.State = &roomserver.EventFilter{NotTypes: []string{"topic", "name"}}
			if cut := a.stale(r); cut != 0 {
				t.Errorf("%d events are cut in vain", cut)
			}
		})
	}
}

// parsed is an event with that id: a state event whose type is its key, or a message.
func parsed(t *testing.T, name string, n int) *roomserver.Event {
	t.Helper()
	text := fmt.Sprintf(`{"type":%q,"state_key":"","sender":"@a:here","room_id":"!r:here","content":{}}`,
		name[:len(name)-1])
	if name == "m" {
		name = fmt.Sprint("message", n)
		text = `{"type":"m.room.message","sender":"@a:here","room_id":"!r:here","content":{}}`
	}
	e, err := pdu.ParseTrusted("11", id.EventID(name), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &roomserver.Event{PDU: e}
}
