package query

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

const (
	// maxRelated bounds how many events are followed to those that relate to them.
	maxRelated = 1000
	// threadsAtOnce is how many threads are read before it is looked whether that is enough, threadsAtMost how many one
	// call looks at.
	threadsAtOnce = 50
	threadsAtMost = 2000
	// aggregatedAtOnce is how many events are aggregated before it is looked whether that is enough.
	aggregatedAtOnce = 50
)

// QueryRelations is of the contract.
func (q *Query) QueryRelations(ctx context.Context, req api.QueryRelationsRequest) (res api.QueryPageResponse, err error) {
	room, v, _, parent, err := q.seen(ctx, req.RoomID, req.Viewer, req.EventID)
	if mxerr.Is(err, "M_FORBIDDEN") {
		err = unseen(req.EventID) // who may not read the room learns no more than who may not read the event
	}
	if err != nil {
		return res, err
	}
	children := storage.Children{RoomNID: room.NID, Parents: []id.EventID{parent.PDU.ID()}, RelType: req.RelType, EventType: req.EventType}
	if req.Recurse {
		if children.Parents, err = q.related(ctx, children); err != nil {
			return res, err
		}
	}
	w := walk{q: q, room: room, view: v, backward: req.Backward, limit: min(req.Limit, maxLimit), bytes: pageBytes,
		children: &children}
	w.bound(req.From, req.To)
	found, err := w.run(ctx)
	if err != nil {
		return res, err
	}
	err = q.aggregateFound(ctx, &w, req.Viewer, &found)
	if found.more {
		res.End = &found.stop
	}
	res.Chunk = found.events
	return res, err
}

// related adds to the parents those events that relate to them, so that their children are RelationsDepth levels deep. Only what is
// selected is followed.
func (q *Query) related(ctx context.Context, c storage.Children) ([]id.EventID, error) {
	all := slices.Clone(c.Parents)
	known := map[id.EventID]bool{c.Parents[0]: true}
	for depth := 1; depth < api.RelationsDepth && len(c.Parents) > 0 && len(all) < maxRelated; depth++ {
		next, err := q.rooms.Storage.ChildIDs(ctx, c, maxRelated)
		if err != nil {
			return nil, err
		}
		c.Parents = nil
		for _, child := range next {
			if !known[child] {
				known[child] = true
				c.Parents = append(c.Parents, child)
			}
		}
		all = append(all, c.Parents...)
	}
	return all, nil
}

// seen is an event that the viewer may see, in a room that they may read, as it is stored and as they see it. M_NOT_FOUND if they may not
// see it.
func (q *Query) seen(ctx context.Context, roomID id.RoomID, viewer api.Viewer, eventID id.EventID) (*storage.Room, *visibility.View, *storage.Event, *api.Event, error) {
	room, v, err := q.view(ctx, roomID, viewer)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	found, err := q.rooms.EventsByID(ctx, []id.EventID{eventID}, true)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if e := found[eventID]; e != nil && e.RoomNID == room.NID && e.InTimeline {
		seen, err := v.Filter(ctx, []*storage.Event{e})
		if err != nil {
			return nil, nil, nil, nil, err
		}
		if len(seen) == 1 {
			return room, v, e, &seen[0], nil
		}
	}
	return nil, nil, nil, nil, unseen(eventID)
}

func unseen(eventID id.EventID) error {
	return mxerr.NotFound("there is no event %s in this room that you may see", eventID)
}

// QueryThreads is of the contract. The root of a thread that an ignored user began is shown redacted.
func (q *Query) QueryThreads(ctx context.Context, req api.QueryThreadsRequest) (res api.QueryPageResponse, err error) {
	room, v, err := q.view(ctx, req.RoomID, req.Viewer)
	if err != nil {
		return res, err
	}
	until, bounded := v.Until()
	if !bounded {
		until = newest()
	}
	stop, limit := until, min(req.Limit, maxLimit)
	if req.From != nil && req.From.Compare(until) < 0 {
		stop = *req.From
	}
	for bytes, looked := 0, 0; ; {
		size := min(limit+1, threadsAtOnce)
		threads, err := q.rooms.Storage.Threads(ctx, room.NID, req.Viewer.Ignored, stop, until, size)
		if err != nil {
			return res, err
		}
		roots, err := q.roots(ctx, room, v, req.Viewer, threads)
		if err != nil {
			return res, err
		}
		for i, t := range threads {
			if len(res.Chunk) == limit || bytes >= pageBytes {
				res.End = &stop
				return res, nil
			}
			stop = gapBefore(threads[i].Newest)
			if root := roots[t.Root]; root != nil && (!req.Participated || root.Relations.Thread.Participated) {
				res.Chunk = append(res.Chunk, *root)
				bytes += sizeOf(root)
			}
		}
		if len(threads) < size {
			return res, nil
		}
		if looked += len(threads); looked >= threadsAtMost {
			res.End = &stop
			return res, nil
		}
	}
}

// roots reads those roots of threads that the viewer may see, with what they may see of the threads.
func (q *Query) roots(ctx context.Context, room *storage.Room, v *visibility.View, viewer api.Viewer, threads []storage.Thread) (map[id.EventID]*api.Event, error) {
	ids := make([]id.EventID, len(threads))
	for i, t := range threads {
		ids[i] = t.Root
	}
	read, err := q.rooms.EventsByID(ctx, ids, true)
	if err != nil {
		return nil, err
	}
	var here []*storage.Event
	for _, root := range ids {
		if e := read[root]; e != nil && e.RoomNID == room.NID {
			here = append(here, e)
		}
	}
	seen, err := v.Filter(ctx, here)
	if err == nil {
		err = q.aggregate(ctx, room, v, viewer, seen)
	}
	if err != nil {
		return nil, err
	}
	roots := make(map[id.EventID]*api.Event, len(seen))
	for i := range seen {
		root := &seen[i]
		if root.Relations == nil || root.Relations.Thread == nil {
			continue
		}
		if slices.Contains(viewer.Ignored, root.PDU.Sender()) {
			root.PDU = root.PDU.Redact()
		}
		roots[root.PDU.ID()] = root
	}
	return roots, nil
}

// QueryAggregations is of the contract.
func (q *Query) QueryAggregations(ctx context.Context, req api.QueryAggregationsRequest) (res api.QueryAggregationsResponse, err error) {
	res.Relations = make(map[id.EventID]*api.Relations)
	bytes := 0
	for batch := range slices.Chunk(req.EventIDs, eventsAtOnce) {
		// Most events have none: one look at all of them, then at those that do.
		counts, err := q.rooms.Storage.CountRelations(ctx, batch, req.Viewer.UserID, req.Viewer.Ignored, newest())
		if err != nil {
			return res, err
		}
		has := make(map[id.EventID]bool, len(counts))
		for _, c := range counts {
			has[c.Parent] = true
		}
		parents := slices.DeleteFunc(slices.Clone(batch), func(e id.EventID) bool { return !has[e] })
		for some := range slices.Chunk(parents, aggregatedAtOnce) {
			if req.Bytes > 0 && bytes >= req.Bytes {
				res.Left = len(req.EventIDs) - slices.Index(req.EventIDs, some[0])
				return res, nil
			}
			ask := api.QueryEventsRequest{Viewer: req.Viewer, EventIDs: some, Aggregate: true}
			found, err := q.QueryEvents(ctx, ask)
			if err != nil {
				return res, err
			}
			bytes += sizeOfAll(found.Events)
			for i := range found.Events {
				if e := &found.Events[i]; e.Relations != nil {
					res.Relations[e.PDU.ID()] = e.Relations
				}
			}
		}
	}
	return res, nil
}
