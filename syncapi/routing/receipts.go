package routing

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// mainThread is the thread id of what is in no thread.
const mainThread = "main"

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
			return nil, mxerr.InvalidParam("thread_id must be %q or the id of a thread's root", mainThread)
		}
		if receiptType == fullyRead {
			return nil, mxerr.InvalidParam("%s is for the whole room: leave out thread_id", fullyRead)
		}
	}
	switch receiptType {
	case storage.Read, storage.ReadPrivate, fullyRead:
	default:
		return nil, mxerr.InvalidParam("%q is no type of receipt: use %s, %s or %s", receiptType, storage.Read, storage.ReadPrivate, fullyRead)
	}
	return nil, s.mark(ctx, r.Caller.UserID, room, thread, map[string]id.EventID{receiptType: event})
}

func isThread(thread string) bool {
	_, err := id.ParseEventID(thread)
	return err == nil || thread == mainThread
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
	markers := make(map[string]id.EventID)
	for markerType, given := range map[string]string{fullyRead: body.FullyRead, storage.Read: body.Read, storage.ReadPrivate: body.ReadPrivate} {
		if given == "" {
			continue
		}
		if markers[markerType], err = id.ParseEventID(given); err != nil {
			return nil, mxerr.InvalidParam("%s: %v", markerType, err)
		}
	}
	if len(markers) == 0 {
		return nil, nil
	}
	return nil, s.mark(ctx, r.Caller.UserID, room, "", markers)
}

// place is where an event stands.
type place struct {
	order  roomserver.OrderKey
	pos    int64 // of the newest row that a receipt for the event covers; 0 if the event is not known
	thread id.EventID
	row    bool // the event has a row of its own
}

// mark moves receipts and the fully-read marker of a room forward.
func (s *routes) mark(ctx context.Context, user id.UserID, room id.RoomID, thread string, markers map[string]id.EventID) error {
	membership, err := s.Room.QueryMembership(ctx, roomserver.QueryMembershipRequest{RoomID: room, UserID: user})
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if membership.Membership != "join" {
		return mxerr.Forbidden("you are not in room %s", room)
	}
	places, err := s.places(ctx, user, room, markers)
	if err != nil {
		return err
	}
	for markerType, event := range markers {
		p := places[event]
		if p.row && thread != "" && thread != mainThread && string(p.thread) != thread && string(event) != thread {
			return mxerr.InvalidParam("event %s is not in thread %s", event, thread)
		}
		if p.row && thread == mainThread && p.thread != "" {
			return mxerr.InvalidParam("event %s is in thread %s, not in the main timeline", event, p.thread)
		}
		if markerType == fullyRead && p.pos == 0 {
			return mxerr.NotFound("event %s is not in room %s, or you may not see it", event, room)
		}
	}
	if markers, err = s.forward(ctx, user, room, thread, markers, places); err != nil || len(markers) == 0 {
		return err
	}
	return s.Storage.Commit(ctx, "receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		if event, has := markers[storage.Read]; has {
			s.Output.Append(ctx, tx, string(user), api.TypeReceipt, &api.OutputReceipt{
				RoomID: room, UserID: user, EventID: event, ThreadID: thread, Timestamp: time.Now().UnixMilli()})
		}
		storage.AddReading(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
			return s.markers(ctx, tx, pos, user, room, thread, markers, places)
		})
		return nil
	})
}

// places finds the events: in the timeline, or by the roomserver, of what the user may see.
func (s *routes) places(ctx context.Context, user id.UserID, room id.RoomID, markers map[string]id.EventID) (map[id.EventID]place, error) {
	places := make(map[id.EventID]place)
	missing := slices.Collect(maps.Values(markers))
	for _, last := range []bool{false, true} {
		err := s.Storage.Read(ctx, "places of receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
			rows, err := s.Storage.Events(ctx, tx, missing)
			for _, row := range rows {
				if row.RoomID == room {
					places[row.EventID] = place{row.Order, row.Pos, row.Thread, true}
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		missing = slices.DeleteFunc(missing, func(event id.EventID) bool { _, has := places[event]; return has })
		if len(missing) == 0 {
			return places, nil
		}
		if !last {
			s.Engine.Barrier(ctx) // it may be on its way here
		}
	}
	found, err := s.Room.QueryEvents(ctx, roomserver.QueryEventsRequest{Viewer: roomserver.Viewer{UserID: user}, RoomID: room, EventIDs: missing})
	if err != nil {
		return nil, fmt.Errorf("events of receipts: %w", err)
	}
	err = s.Storage.Read(ctx, "places of receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		for i := range found.Events {
			e := &found.Events[i]
			p := place{order: e.Order, pos: 1} // older than everything in the timeline
			row, err := s.Storage.BeforeOrder(ctx, tx, room, e.Order)
			if err != nil {
				return err
			}
			if row != nil {
				p.pos = row.Pos
			}
			places[e.PDU.ID()] = p
		}
		return nil
	})
	return places, err
}

// isBehind tells whether a receipt would not move forward.
func isBehind(old []storage.Receipt, receiptType, thread string, event id.EventID, p place) bool {
	return slices.ContainsFunc(old, func(o storage.Receipt) bool {
		return o.Type == receiptType && o.Thread == thread && (o.EventID == event || o.Place > 0 && p.pos > 0 && p.order.Compare(o.Order) <= 0)
	})
}

// forward selects the markers that move forward: clients repeat themselves, and that shall cost no commit.
func (s *routes) forward(ctx context.Context, user id.UserID, room id.RoomID, thread string, markers map[string]id.EventID, places map[id.EventID]place) (map[string]id.EventID, error) {
	var old []storage.Receipt
	err := s.Storage.Read(ctx, "receipts", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		old, err = s.Storage.ReceiptsOf(ctx, tx, room, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	forward := make(map[string]id.EventID, len(markers))
	for markerType, event := range markers {
		if markerType == fullyRead || !isBehind(old, markerType, thread, event, places[event]) {
			forward[markerType] = event
		}
	}
	return forward, nil
}

// markers makes the rows of those markers that move forward.
func (s *routes) markers(ctx context.Context, tx *sqlutil.Tx, pos int64, user id.UserID, room id.RoomID, thread string, markers map[string]id.EventID, places map[id.EventID]place) (*storage.Changes, error) {
	changes := new(storage.Changes)
	old, err := s.Storage.ReceiptsOf(ctx, tx, room, user)
	if err != nil {
		return nil, err
	}
	for markerType, event := range markers {
		p := places[event]
		if markerType == fullyRead {
			content, err := s.Storage.AccountDataOne(ctx, tx, user, room, fullyRead)
			if err != nil {
				return nil, err
			}
			if gjson.GetBytes(content, "event_id").Str == string(event) {
				continue
			}
			if content, err = httputil.Marshal(map[string]any{"event_id": event}); err != nil {
				return nil, err
			}
			changes.AccountData = append(changes.AccountData, storage.AccountData{UserID: user, RoomID: room, Type: fullyRead, Pos: pos, Content: content})
			continue
		}
		if !isBehind(old, markerType, thread, event, p) {
			for i := range old {
				if p.pos == 0 && old[i].Type == markerType && old[i].Thread == thread {
					p.pos = old[i].Place // nothing becomes unread again by a receipt for an event that is not known yet
				}
			}
			changes.Receipts = append(changes.Receipts, storage.Receipt{RoomID: room, UserID: user, Type: markerType, Thread: thread, Pos: pos,
				EventID: event, Order: p.order, Place: p.pos, TS: time.Now().UnixMilli()})
		}
	}
	return changes, nil
}
