package receipts

import (
	"encoding/json"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// move is a request with the places of its events, and what stands so far.
type move struct {
	*Request
	places map[id.EventID]place

	old       []storage.Receipt // of the thread
	fullyRead json.RawMessage   // the content of the marker
}

// check refuses what names events that the user does not see, or that are in another thread.
func (m *move) check() error {
	for _, event := range m.Events {
		p, found := m.places[event]
		switch {
		case !found:
			return mxerr.NotFound("event %s is not in room %s, or you may not see it", event, m.RoomID)
		case m.Thread == "":
		case m.Thread == MainThread && p.thread != "":
			return mxerr.InvalidParam("event %s is in thread %s, not in the main timeline", event, p.thread)
		case m.Thread != MainThread && string(p.thread) != m.Thread && !(string(event) == m.Thread && p.isRoot):
			return mxerr.InvalidParam("event %s is not in thread %s", event, m.Thread)
		}
	}
	return nil
}

// moves tells whether anything moves.
func (m *move) moves() bool {
	for markerType := range m.Events {
		if m.isForward(markerType) {
			return true
		}
	}
	return false
}

// isForward tells whether a receipt moves forward, or the fully-read marker at all: users may set that back.
func (m *move) isForward(markerType string) bool {
	event := m.Events[markerType]
	if markerType == accountdata.FullyRead {
		return gjson.GetBytes(m.fullyRead, "event_id").Str != string(event)
	}
	old := m.standing(markerType)
	return old == nil || !m.places[event].isBehind(event, old)
}

// standing is the receipt of a type, if there is one.
func (m *move) standing(receiptType string) *storage.Receipt {
	i := slices.IndexFunc(m.old, func(r storage.Receipt) bool { return r.Type == receiptType })
	if i < 0 {
		return nil
	}
	return &m.old[i]
}

// addsThread tells whether there will be one more receipt for a thread.
func (m *move) addsThread() bool {
	if m.Thread == "" || m.Thread == MainThread {
		return false
	}
	for receiptType := range m.Events {
		if m.standing(receiptType) == nil {
			return true
		}
	}
	return false
}

// rows are those of what moves, at a time in ms.
func (m *move) rows(pos, now int64) (*storage.Changes, error) {
	changes := new(storage.Changes)
	for markerType, event := range m.Events {
		if !m.isForward(markerType) {
			continue
		}
		if markerType == accountdata.FullyRead {
			content, err := httputil.Marshal(map[string]any{"event_id": event})
			if err != nil {
				return nil, err
			}
			changes.AccountData = append(changes.AccountData,
				storage.AccountData{UserID: m.UserID, RoomID: m.RoomID, Type: markerType, Pos: pos, Content: content})
			continue
		}
		p := m.places[event]
		receipt := storage.Receipt{RoomID: m.RoomID, UserID: m.UserID, Type: markerType, Thread: m.Thread, Pos: pos,
			EventID: event,
			Order:   p.order, Place: p.pos, TS: now}
		if old := m.standing(markerType); old != nil {
			receipt.Place = max(receipt.Place, old.Place) // nothing becomes unread again
		}
		changes.Receipts = append(changes.Receipts, receipt)
	}
	return changes, nil
}
