package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/receipts"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// receipt is POST /rooms/{roomId}/receipt/{receiptType}/{eventId}.
func (s *routes) receipt(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	event, err := r.EventID("eventId")
	if err != nil {
		return nil, err
	}
	var body struct {
		Thread *json.RawMessage `json:"thread_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	receiptType := r.Var("receiptType")
	var thread string
	if body.Thread != nil {
		if json.Unmarshal(*body.Thread, &thread) != nil || !isThread(thread) {
			return nil, mxerr.InvalidParam("thread_id must be %q or the id of a thread's root", receipts.MainThread)
		}
		if receiptType == accountdata.FullyRead {
			return nil, mxerr.InvalidParam("%s is for the whole room: leave out thread_id", accountdata.FullyRead)
		}
	}
	switch receiptType {
	case storage.Read, storage.ReadPrivate, accountdata.FullyRead:
	default:
		return nil, mxerr.InvalidParam("%q is no type of receipt: use %s, %s or %s", receiptType, storage.Read,
			storage.ReadPrivate, accountdata.FullyRead)
	}
	return nil, s.Receipts.Mark(ctx, &receipts.Request{UserID: r.Caller.UserID, RoomID: room, Thread: thread,
		Events: map[string]id.EventID{receiptType: event}})
}

func isThread(thread string) bool {
	_, err := id.ParseEventID(thread)
	return err == nil || thread == receipts.MainThread
}

// readMarkers is POST /rooms/{roomId}/read_markers.
func (s *routes) readMarkers(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	var body struct {
		FullyRead   string `json:"m.fully_read"`
		Read        string `json:"m.read"`
		ReadPrivate string `json:"m.read.private"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	events := make(map[string]id.EventID)
	for markerType, given := range map[string]string{accountdata.FullyRead: body.FullyRead, storage.Read: body.Read,
		storage.ReadPrivate: body.ReadPrivate} {
		if given == "" {
			continue
		}
		if events[markerType], err = id.ParseEventID(given); err != nil {
			return nil, mxerr.InvalidParam("%s: %v", markerType, err)
		}
	}
	if len(events) == 0 {
		return nil, nil
	}
	return nil, s.Receipts.Mark(ctx, &receipts.Request{UserID: r.Caller.UserID, RoomID: room, Events: events})
}
