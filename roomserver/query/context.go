package query

import (
	"context"

	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QueryContext is of the contract. The limit is shared by the events before, which get the smaller half, and those after.
func (q *Query) QueryContext(ctx context.Context, req api.QueryContextRequest) (res api.QueryContextResponse, err error) {
	room, v, middle, shownMiddle, err := q.seen(ctx, req.RoomID, req.Viewer, req.EventID)
	if err != nil {
		return res, err
	}
	res.Event, res.Start, res.End = *shownMiddle, gapBefore(middle.Order), middle.Order
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
	if res.State, err = v.Show(ctx, state); err != nil {
		return res, err
	}
	if err := q.aggregate(ctx, room, v, req.Viewer, shown); err != nil {
		return res, err
	}
	res.Event, res.Before, res.After = shown[0], shown[1:1+len(res.Before)], shown[1+len(res.Before):]
	return res, nil
}
