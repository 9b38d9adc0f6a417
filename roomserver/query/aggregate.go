package query

import (
	"context"
	"math"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

const (
	// maxReferences bounds the events that an aggregation lists.
	maxReferences = 100
	// maxEdits is how many of the newest edits are looked at: the most recent one is not always that which came last.
	maxEdits = 20
	// readBytes bounds what is read to aggregate for one page: of much that is read, little may be shown.
	readBytes = 8 * pageBytes
)

// sizeOf is about how many bytes an event has in an answer.
func sizeOf(e *api.Event) int {
	size := len(e.PDU.JSON())
	if r := e.Relations; r != nil {
		for _, reference := range r.Reference {
			size += len(reference)
		}
		if r.Replace != nil {
			size += sizeOf(r.Replace)
		}
		if r.Thread != nil {
			size += sizeOf(&r.Thread.Latest)
		}
	}
	return size
}

func sizeOfAll(events []api.Event) (size int) {
	for i := range events {
		size += sizeOf(&events[i])
	}
	return size
}

// aggregate fills in the Relations of events of a room (Client-Server API, § Aggregations of child events). State
// events have none.
func (q *Query) aggregate(
	ctx context.Context, room *storage.Room, v *visibility.View, viewer api.Viewer, events []api.Event,
) error {
	_, err := q.aggregateUpTo(ctx, room, v, viewer, events, math.MaxInt)
	return err
}

// aggregateFound is aggregate for what a walk found, which it cuts where that becomes too much.
func (q *Query) aggregateFound(ctx context.Context, w *walk, viewer api.Viewer, found *walked) error {
	n, err := q.aggregateUpTo(ctx, w.room, w.view, viewer, found.events, w.bytes)
	if err == nil && len(found.events) > 0 {
		w.cut(found, n)
	}
	return err
}

// aggregation is what aggregateUpTo reads with.
type aggregation struct {
	*Query
	room    *storage.Room
	view    *visibility.View
	viewer  api.Viewer
	counts  map[id.EventID][]storage.RelationCount
	threads []*api.Thread
	roots   []int // of the threads, in the list of events
	read    int   // bytes
}

// aggregateUpTo is aggregate for the first events, until they have so many bytes. It returns how many these are: at
// least one, if there are any.
func (q *Query) aggregateUpTo(ctx context.Context, room *storage.Room, v *visibility.View, viewer api.Viewer,
	events []api.Event, bytes int) (int, error) {
	ids := make([]id.EventID, 0, len(events))
	for i := range events {
		if e := &events[i]; !e.PDU.IsState() {
			ids = append(ids, e.PDU.ID())
		}
	}
	if len(ids) == 0 {
		return len(events), nil
	}
	until, bounded := v.Until()
	if !bounded {
		until = newest()
	}
	counts, err := q.rooms.Storage.CountRelations(ctx, ids, viewer.UserID, viewer.Ignored, until)
	if err != nil || len(counts) == 0 {
		return len(events), err
	}
	a := &aggregation{Query: q, room: room, view: v, viewer: viewer,
		counts: make(map[id.EventID][]storage.RelationCount)}
	for _, c := range counts {
		if c.RoomNID == room.NID {
			a.counts[c.Parent] = append(a.counts[c.Parent], c)
		}
	}
	left, n := bytes, 0
	for ; n < len(events) && (n == 0 || left > 0 && (a.read < readBytes || bytes == math.MaxInt)); n++ {
		e := &events[n]
		if err := a.one(ctx, e); err != nil {
			return 0, err
		}
		left -= sizeOf(e)
		if e.Relations != nil && e.Relations.Thread != nil {
			a.threads, a.roots = append(a.threads, e.Relations.Thread), append(a.roots, n)
		}
	}
	return a.latest(ctx, n, left)
}

// one aggregates what relates to one event.
func (a *aggregation) one(ctx context.Context, parent *api.Event) (err error) {
	if parent.PDU.IsState() {
		return nil
	}
	for _, c := range a.counts[parent.PDU.ID()] {
		if parent.Relations == nil {
			parent.Relations = new(api.Relations)
		}
		w := walk{q: a.Query, room: a.room, view: a.view, backward: true, bytes: math.MaxInt,
			children: &storage.Children{RoomNID: a.room.NID, Parents: []id.EventID{c.Parent}, RelType: c.Type,
				Ignored: a.viewer.Ignored}}
		switch c.Type {
		case pdu.RelReference:
			err = w.references(ctx, parent)
		case pdu.RelReplace:
			err = w.edit(ctx, parent)
		case pdu.RelThread:
			err = w.thread(ctx, parent, c, a.viewer)
		}
		if err != nil {
			return err
		}
		a.read += w.read
	}
	if r := parent.Relations; r != nil && r.Reference == nil && r.Replace == nil && r.Thread == nil {
		parent.Relations = nil
	}
	return nil
}

// latest aggregates what relates to the latest events of threads, which is shown too. No thread begins there, so this
// goes one level deep. It returns how many of n events are left, for so many bytes.
func (a *aggregation) latest(ctx context.Context, n, bytes int) (int, error) {
	if len(a.threads) == 0 {
		return n, nil
	}
	latest := make([]api.Event, len(a.threads))
	for i, t := range a.threads {
		latest[i] = t.Latest
		bytes += len(t.Latest.PDU.JSON()) // it is counted with its root, and will be again
	}
	done, err := a.aggregateUpTo(ctx, a.room, a.view, a.viewer, latest, bytes)
	for i, t := range a.threads[:done] {
		t.Latest = latest[i]
	}
	if done < len(a.threads) {
		n = a.roots[done]
	}
	return n, err
}

// childrenOf runs a walk from the viewer's end of the room.
func (w *walk) childrenOf(ctx context.Context, limit int) ([]api.Event, error) {
	w.limit = limit
	w.bound(nil, nil)
	found, err := w.run(ctx)
	w.read += found.bytes
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

// edit finds the most recent valid replacement (§ Validity of replacement events, § Server-side aggregation of
// m.replace relationships).
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
			last.PDU.OriginServerTS() == e.OriginServerTS() &&
				strings.Compare(string(last.PDU.ID()), string(e.ID())) < 0 {
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
	root.Relations.Thread = &api.Thread{Latest: children[0], Count: c.Count,
		Participated: c.Own || root.PDU.Sender() == viewer.UserID}
	return nil
}
