package query

import (
	"context"

	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QueryContext is of the contract. The limit is shared by the events before, which get the smaller half, and those after.
func (q *Query) QueryContext(ctx context.Context, req api.QueryContextRequest) (res api.QueryContextResponse, err error) {
	room, v, middle, shownMiddle, err := q.seen(ctx, req.RoomID, req.Viewer, req.EventID)
	if err != nil {
		return res, err
	}
	res.Event = *shownMiddle
	limit := min(max(req.Limit, 0), maxLimit)
	last, err := q.around(ctx, room, v, middle, limit/2, limit-limit/2, req.Filter, &res)
	if err != nil {
		return res, err
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

// around finds the events before and after one, and the places where they begin and end. It returns the newest of all.
func (q *Query) around(ctx context.Context, room *storage.Room, v *visibility.View, middle *storage.Event, before, after int, filter *api.EventFilter,
	res *api.QueryContextResponse) (last *storage.Event, err error) {
	res.Start, res.End = gapBefore(middle.Order), middle.Order
	w := walk{q: q, room: room, view: v, filter: filter}
	last = middle
	if w.limit = min(before, maxLimit); w.limit > 0 {
		w.backward, w.from, w.to = true, res.Start, oldest()
		found, err := w.run(ctx)
		if err != nil {
			return nil, err
		}
		res.Before, res.Start = found.events, found.stop
	}
	if w.limit = min(after, maxLimit); w.limit > 0 {
		w.backward, w.from, w.to = false, res.End, newest()
		if until, bounded := v.Until(); bounded {
			w.to = until
		}
		found, err := w.run(ctx)
		if err != nil {
			return nil, err
		}
		res.After, res.End = found.events, found.stop
		if found.newest != nil {
			last = found.newest
		}
	}
	return last, nil
}
