package query

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QueryContext is of the contract. The limit is shared by the events before, which get the smaller half, and those after.
func (q *Query) QueryContext(ctx context.Context, req api.QueryContextRequest) (res api.QueryContextResponse, err error) {
	room, v, err := q.view(ctx, req.RoomID, req.Viewer)
	if err != nil {
		return res, err
	}
	found, err := q.rooms.EventsByID(ctx, []id.EventID{req.EventID}, true)
	if err != nil {
		return res, err
	}
	absent := mxerr.NotFound("there is no event %s in this room that you may see", req.EventID)
	middle := found[req.EventID]
	if middle == nil || middle.RoomNID != room.NID || !middle.InTimeline {
		return res, absent
	}
	seen, err := v.Filter(ctx, []*storage.Event{middle})
	if err != nil {
		return res, err
	}
	if len(seen) == 0 {
		return res, absent
	}
	res.Event, res.Start, res.End = seen[0], gapBefore(middle.Order), middle.Order
	limit := min(max(req.Limit, 0), maxLimit)
	around := walk{q: q, room: room, view: v, filter: req.Filter}
	last := middle
	if around.limit = limit / 2; around.limit > 0 {
		around.backward, around.from, around.to = true, res.Start, oldest()
		before, err := around.run(ctx)
		if err != nil {
			return res, err
		}
		res.Before, res.Start = before.events, before.stop
	}
	if around.limit = limit - limit/2; around.limit > 0 {
		around.backward, around.from, around.to = false, res.End, newest()
		if until, bounded := v.Until(); bounded {
			around.to = until
		}
		after, err := around.run(ctx)
		if err != nil {
			return res, err
		}
		res.After, res.End = after.events, after.stop
		if after.newest != nil {
			last = after.newest
		}
	}
	shown := append(append([]api.Event{res.Event}, res.Before...), res.After...)
	state, err := q.state(ctx, room.NID, visibility.StateAfter(last), part{filter: req.Filter, members: sendersOf(shown)})
	if err != nil {
		return res, err
	}
	res.State, err = v.Show(ctx, state)
	return res, err
}
