// Package query answers what other components ask of rooms: events, state, members, history, memberships and summaries. Its
// methods are the Query calls of the contract (roomserver/api), whose documentation says what they promise.
//
// What a viewer may see is not decided here but in roomserver/visibility, through which every event goes that is returned.
package query

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// Query answers. It is safe for concurrent use.
type Query struct {
	rooms   *state.Reader
	checker *visibility.Checker
	index   Index
}

// Index is brought up to date before it is searched.
type Index interface {
	CatchUp(ctx context.Context) error
}

// New makes a Query.
func New(r *state.Reader, c *visibility.Checker, x Index) *Query {
	return &Query{rooms: r, checker: c, index: x}
}

// room is a room that must exist. M_NOT_FOUND if it does not: for questions that no client asks directly.
func (q *Query) room(ctx context.Context, roomID id.RoomID) (*storage.Room, error) {
	room, err := q.rooms.Room(ctx, roomID)
	if err == nil && room == nil {
		err = mxerr.NotFound("there is no room %s here", roomID)
	}
	return room, err
}

// view is a room and what the viewer may see of it. M_FORBIDDEN if that is nothing, or if there is no such room.
func (q *Query) view(ctx context.Context, roomID id.RoomID, viewer api.Viewer) (*storage.Room, *visibility.View, error) {
	room, err := q.rooms.Room(ctx, roomID)
	if err != nil {
		return nil, nil, err
	}
	if room == nil {
		return nil, nil, visibility.NotMember(roomID)
	}
	v, err := q.checker.View(ctx, room, viewer)
	if err != nil {
		return nil, nil, err
	}
	return room, v, v.Check()
}

// eventsAtOnce is how many events one statement aggregates.
const eventsAtOnce = 1000

// load reads those of many events that a filter selects, as clients are to see them.
func (q *Query) load(ctx context.Context, nids []stateres.EventNID, selects func(*storage.Event) bool) ([]*storage.Event, error) {
	var all []*storage.Event
	err := q.rooms.Scan(ctx, nids, func(e *storage.Event) {
		if selects(e) {
			all = append(all, e)
		}
	})
	return all, err
}

// QueryEvents is of the contract.
func (q *Query) QueryEvents(ctx context.Context, req api.QueryEventsRequest) (res api.QueryEventsResponse, err error) {
	found, err := q.rooms.EventsByID(ctx, req.EventIDs, true)
	if err != nil {
		return res, err
	}
	var roomIDs []id.RoomID
	inRoom := make(map[id.RoomID][]*storage.Event)
	for _, eventID := range req.EventIDs {
		e := found[eventID]
		if e == nil || req.RoomID != "" && e.PDU.RoomID() != req.RoomID {
			continue
		}
		delete(found, eventID) // an id that was given twice is answered once
		roomID := e.PDU.RoomID()
		if inRoom[roomID] == nil {
			roomIDs = append(roomIDs, roomID)
		}
		inRoom[roomID] = append(inRoom[roomID], e)
	}
	if len(roomIDs) == 0 {
		return res, nil
	}
	rooms, err := q.rooms.Rooms(ctx, roomIDs)
	if err != nil {
		return res, err
	}
	for _, roomID := range roomIDs {
		room := rooms[roomID]
		if room == nil {
			continue
		}
		seen, err := q.checker.Filter(ctx, room, req.Viewer, inRoom[roomID])
		if err != nil {
			return res, err
		}
		if req.Aggregate {
			v, err := q.checker.View(ctx, room, req.Viewer)
			if err != nil {
				return res, err
			}
			if err := q.aggregate(ctx, room, v, req.Viewer, seen); err != nil {
				return res, err
			}
		}
		res.Events = append(res.Events, seen...)
	}
	if len(roomIDs) > 1 {
		place := make(map[id.EventID]int, len(req.EventIDs))
		for i, eventID := range slices.Backward(req.EventIDs) {
			place[eventID] = i
		}
		slices.SortFunc(res.Events, func(a, b api.Event) int { return place[a.PDU.ID()] - place[b.PDU.ID()] })
	}
	return res, nil
}
