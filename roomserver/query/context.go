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
	limit := min(max(req.Limit, 0), maxLimit)
	around, err := q.surround(ctx, room, v, middle, limit/2, limit-limit/2, req.Filter)
	if err != nil {
		return res, err
	}
	if err := q.aggregateAround(ctx, req.Viewer, shownMiddle, around); err != nil {
		return res, err
	}
	res.Event = *shownMiddle
	last := around.fill(&res)
	shown := append(append([]api.Event{res.Event}, res.Before...), res.After...)
	state, err := q.state(ctx, room.NID, visibility.StateAfter(last), part{filter: req.Filter, members: sendersOf(shown)})
	if err != nil {
		return res, err
	}
	res.State, err = v.Show(ctx, state)
	return res, err
}

// surroundings are the events before and after one, nearest first.
type surroundings struct {
	middle        *storage.Event
	walk          [2]walk // before and after
	before, after walked
}

// surround finds the events before and after one. Each side has half of the bytes of an answer.
func (q *Query) surround(ctx context.Context, room *storage.Room, v *visibility.View, middle *storage.Event,
	before, after int, filter *api.EventFilter) (s *surroundings, err error) {
	w := walk{q: q, room: room, view: v, filter: filter, bytes: pageBytes / 2}
	s = &surroundings{middle: middle, walk: [2]walk{w, w}, before: walked{stop: gapBefore(middle.Order)},
		after: walked{stop: middle.Order}}
	back, on := &s.walk[0], &s.walk[1]
	back.backward, back.from, back.to, back.limit = true, gapBefore(middle.Order), oldest(), min(before, maxLimit)
	on.from, on.to, on.limit = middle.Order, newest(), min(after, maxLimit)
	if until, bounded := v.Until(); bounded {
		on.to = until
	}
	if back.limit > 0 {
		if s.before, err = back.run(ctx); err != nil {
			return nil, err
		}
	}
	if on.limit > 0 {
		s.after, err = on.run(ctx)
	}
	return s, err
}

// fill puts the events into an answer, with the places where they begin and end. It returns the newest of all.
func (s *surroundings) fill(res *api.QueryContextResponse) *storage.Event {
	res.Before, res.Start = s.before.events, s.before.stop
	res.After, res.End = s.after.events, s.after.stop
	if last := s.after.newest(false); last != nil {
		return last
	}
	return s.middle
}

// around finds the events before and after one, and the places where they begin and end. It returns the newest of all.
func (q *Query) around(ctx context.Context, room *storage.Room, v *visibility.View, middle *storage.Event, before, after int, filter *api.EventFilter,
	res *api.QueryContextResponse) (last *storage.Event, err error) {
	s, err := q.surround(ctx, room, v, middle, before, after, filter)
	if err != nil {
		return nil, err
	}
	return s.fill(res), nil
}

// aggregateAround fills in what relates to an event and to those around it. Where that is too much, those that are
// farthest are left out.
func (q *Query) aggregateAround(ctx context.Context, viewer api.Viewer, middle *api.Event, s *surroundings) error {
	sides := [2]*walked{&s.before, &s.after}
	all, of := []api.Event{*middle}, []*walked{nil}
	for i := range max(len(s.before.events), len(s.after.events)) {
		for _, side := range sides {
			if i < len(side.events) {
				all, of = append(all, side.events[i]), append(of, side)
			}
		}
	}
	n, err := q.aggregateUpTo(ctx, s.walk[0].room, s.walk[0].view, viewer, all, pageBytes)
	if err != nil {
		return err
	}
	*middle = all[0]
	kept := make(map[*walked]int)
	for i := 1; i < n; i++ {
		side := of[i]
		side.events[kept[side]] = all[i]
		kept[side]++
	}
	for i, side := range sides {
		if kept[side] > 0 {
			s.walk[i].cut(side, kept[side])
		} else if len(side.events) > 0 {
			*side = walked{stop: s.walk[i].from, more: true}
		}
	}
	return nil
}
