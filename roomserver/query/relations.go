package query

import (
	"context"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

const (
	// maxRelated bounds how many events are followed to those that relate to them.
	maxRelated = 1000
	// maxReferences bounds the events that an aggregation lists.
	maxReferences = 100
	// maxEdits is how many of the newest edits are looked at: the most recent one is not always that which came last.
	maxEdits = 20
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
	w := walk{q: q, room: room, view: v, backward: req.Backward, limit: min(req.Limit, maxLimit), children: &children}
	w.bound(req.From, req.To)
	found, err := w.run(ctx)
	if err != nil {
		return res, err
	}
	if found.more {
		res.End = &found.stop
	}
	res.Chunk = found.events
	return res, q.aggregate(ctx, room, v, req.Viewer, res.Chunk)
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
	for range pagesAtMost {
		threads, err := q.rooms.Storage.Threads(ctx, room.NID, req.Viewer.Ignored, stop, until, limit+1)
		if err != nil {
			return res, err
		}
		roots, err := q.roots(ctx, room, v, req.Viewer, threads)
		if err != nil {
			return res, err
		}
		for i, t := range threads {
			if len(res.Chunk) == limit {
				res.End = &stop
				return res, nil
			}
			stop = gapBefore(threads[i].Newest)
			if root := roots[t.Root]; root != nil && (!req.Participated || root.Relations.Thread.Participated) {
				res.Chunk = append(res.Chunk, *root)
			}
		}
		if len(threads) <= limit {
			return res, nil
		}
	}
	res.End = &stop
	return res, nil
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
	for batch := range slices.Chunk(req.EventIDs, eventsAtOnce) {
		// Most events have none: one look at all of them, then at those that do.
		counts, err := q.rooms.Storage.CountRelations(ctx, batch, req.Viewer.UserID, req.Viewer.Ignored, newest())
		if err != nil {
			return res, err
		}
		parents := make([]id.EventID, 0, len(counts))
		for _, c := range counts {
			parents = append(parents, c.Parent)
		}
		if len(parents) == 0 {
			continue
		}
		found, err := q.QueryEvents(ctx, api.QueryEventsRequest{Viewer: req.Viewer, EventIDs: parents, Aggregate: true})
		if err != nil {
			return res, err
		}
		for i := range found.Events {
			if e := &found.Events[i]; e.Relations != nil {
				res.Relations[e.PDU.ID()] = e.Relations
			}
		}
	}
	return res, nil
}

// aggregate fills in the Relations of events of a room (Client-Server API, § Aggregations of child events). State events have none.
func (q *Query) aggregate(ctx context.Context, room *storage.Room, v *visibility.View, viewer api.Viewer, events []api.Event) error {
	parents := make(map[id.EventID]*api.Event, len(events))
	ids := make([]id.EventID, 0, len(events))
	for i := range events {
		if e := &events[i]; !e.PDU.IsState() {
			parents[e.PDU.ID()] = e
			ids = append(ids, e.PDU.ID())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	until, bounded := v.Until()
	if !bounded {
		until = newest()
	}
	counts, err := q.rooms.Storage.CountRelations(ctx, ids, viewer.UserID, viewer.Ignored, until)
	if err != nil {
		return err
	}
	var threads []*api.Thread
	for _, c := range counts {
		if c.RoomNID != room.NID {
			continue
		}
		parent := parents[c.Parent]
		if parent.Relations == nil {
			parent.Relations = new(api.Relations)
		}
		w := walk{q: q, room: room, view: v, backward: true, children: &storage.Children{RoomNID: room.NID, Parents: []id.EventID{c.Parent},
			RelType: c.Type, Ignored: viewer.Ignored}}
		switch c.Type {
		case pdu.RelReference:
			err = w.references(ctx, parent)
		case pdu.RelReplace:
			err = w.edit(ctx, parent)
		case pdu.RelThread:
			err = w.thread(ctx, parent, c, viewer)
		}
		if err != nil {
			return err
		}
		if t := parent.Relations.Thread; c.Type == pdu.RelThread && t != nil {
			threads = append(threads, t)
		}
		if r := parent.Relations; r.Reference == nil && r.Replace == nil && r.Thread == nil {
			parent.Relations = nil
		}
	}
	if len(threads) == 0 {
		return nil
	}
	// What relates to the latest event of a thread is shown too. No thread begins there, so this goes one level deep.
	latest := make([]api.Event, len(threads))
	for i, t := range threads {
		latest[i] = t.Latest
	}
	err = q.aggregate(ctx, room, v, viewer, latest)
	for i, t := range threads {
		t.Latest = latest[i]
	}
	return err
}

// childrenOf runs a walk from the viewer's end of the room.
func (w *walk) childrenOf(ctx context.Context, limit int) ([]api.Event, error) {
	w.limit = limit
	w.bound(nil, nil)
	found, err := w.run(ctx)
	return found.events, err
}

// references lists what refers to an event (§ Server-side aggregation of m.reference).
func (w *walk) references(ctx context.Context, parent *api.Event) error {
	w.backward = false
	children, err := w.childrenOf(ctx, maxReferences)
	for i := range children {
		parent.Relations.Reference = append(parent.Relations.Reference, children[i].PDU.ID())
	}
	return err
}

// edit finds the most recent valid replacement (§ Validity of replacement events, § Server-side aggregation of m.replace relationships).
func (w *walk) edit(ctx context.Context, parent *api.Event) error {
	if parent.RedactedBecause != nil || parent.PDU.Relation().Type == pdu.RelReplace {
		return nil
	}
	w.children.Sender, w.children.EventType = parent.PDU.Sender(), parent.PDU.Type()
	children, err := w.childrenOf(ctx, maxEdits)
	for i := range children {
		e := children[i].PDU
		if e.IsState() || e.Type() != "m.room.encrypted" && pdu.Member(e.Content(), "m.new_content") == nil {
			continue
		}
		if last := parent.Relations.Replace; last == nil || last.PDU.OriginServerTS() < e.OriginServerTS() ||
			last.PDU.OriginServerTS() == e.OriginServerTS() && strings.Compare(string(last.PDU.ID()), string(e.ID())) < 0 {
			parent.Relations.Replace = &children[i]
		}
	}
	return err
}

// thread sums up the thread that an event is the root of (§ Server-side aggregation of m.thread relationships).
func (w *walk) thread(ctx context.Context, root *api.Event, c storage.RelationCount, viewer api.Viewer) error {
	if root.PDU.Relation().Type != "" {
		return nil // it cannot be a root
	}
	children, err := w.childrenOf(ctx, 1)
	if err != nil || len(children) == 0 {
		return err
	}
	root.Relations.Thread = &api.Thread{Latest: children[0], Count: c.Count, Participated: c.Own || root.PDU.Sender() == viewer.UserID}
	return nil
}
