package query

import (
	"context"
	"math"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

const (
	defaultLimit = 10   // of /messages (Client-Server API)
	maxLimit     = 1000 // of any list of events
	// pagesAtMost is how many pages of the timeline one call reads while it looks for events that a filter selects and the
	// viewer may see. What it has by then is returned with a token to go on.
	pagesAtMost = 20
	// pageBytes bounds the events of an answer, what is aggregated with them included: who asks gets fewer than they
	// wanted, and a token that goes on there. It holds any 16 events, and so each page of the usual size.
	pageBytes = 1 << 20
	// furtherPage is how many events the second and every further page has at least: the first one held few that count.
	furtherPage = 100
)

// oldest and newest are the ends of every timeline.
func oldest() api.OrderKey { return api.OrderKey{Segment: math.MinInt64, Index: math.MinInt64} }
func newest() api.OrderKey { return api.OrderKey{Segment: math.MaxInt64, Index: math.MaxInt64} }

// gapBefore is the gap right before an event. Gaps are named by the key that they come after, whether there is an event with this
// key or not.
func gapBefore(o api.OrderKey) api.OrderKey {
	return api.OrderKey{Segment: o.Segment, Index: o.Index - 1}
}

// QueryMessages is of the contract.
func (q *Query) QueryMessages(ctx context.Context, req api.QueryMessagesRequest) (res api.QueryMessagesResponse, err error) {
	room, v, err := q.view(ctx, req.RoomID, req.Viewer)
	if err != nil {
		return res, err
	}
	limit := req.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	if req.Filter != nil && req.Filter.Limit > 0 {
		limit = min(limit, req.Filter.Limit)
	}
	w := walk{q: q, room: room, view: v, backward: req.Backward, limit: min(limit, maxLimit), bytes: pageBytes,
		filter: req.Filter}
	w.bound(req.From, req.To)
	found, err := w.run(ctx)
	if err != nil {
		return res, err
	}
	switch {
	case req.From != nil:
		res.Start = *req.From
	case found.any && req.Backward:
		res.Start = found.first
	case found.any:
		res.Start = gapBefore(found.first)
	default:
		res.Start = room.Last
	}
	if err := q.aggregateFound(ctx, &w, req.Viewer, &found); err != nil {
		return res, err
	}
	res.Chunk = found.events
	if found.more {
		res.End = &found.stop
	}
	if req.Filter != nil && req.Filter.LazyLoadMembers {
		res.State, err = q.senders(ctx, room, v, found.newest(req.Backward), found.events)
	}
	return res, err
}

// walk looks through a timeline for events that count.
type walk struct {
	q        *Query
	room     *storage.Room
	view     *visibility.View
	from, to api.OrderKey
	backward bool
	limit    int // events at most
	bytes    int // of events, but for the first; reading ends with them
	read     int // bytes, by childrenOf
	filter   *api.EventFilter
	// children has the walk look through events that relate to others, instead of through the whole timeline.
	children *storage.Children
}

// page reads events after the gap from. more says that there may be some behind them.
func (w *walk) page(ctx context.Context, from api.OrderKey, size, bytes int) (
	page []*storage.Event, more bool, err error) {
	if w.children != nil {
		size = min(size, furtherPage)
		page, err = w.q.rooms.Storage.Children(ctx, *w.children, from, w.to, w.backward, size)
		return page, len(page) == size, err
	}
	return w.q.rooms.Timeline(ctx, w.room.NID, from, w.to, w.backward, size, bytes)
}

// bound sets where the walk begins and ends: where it is told, or at the ends of what the viewer may see.
func (w *walk) bound(from, to *api.OrderKey) {
	w.from, w.to = newest(), oldest()
	if !w.backward {
		w.from, w.to = w.to, w.from
	}
	if from != nil {
		w.from = *from
	}
	if to != nil {
		w.to = *to
	}
	if until, bounded := w.view.Until(); bounded {
		if w.backward && w.from.Compare(until) > 0 {
			w.from = until
		} else if !w.backward && w.to.Compare(until) > 0 {
			w.to = until
		}
	}
}

// walked is what a walk found.
type walked struct {
	events []api.Event
	stored []*storage.Event // the same as they are stored
	bytes  int              // of events
	any    bool             // whether there was any event, visible or not
	first  api.OrderKey     // the place of the first one
	stop   api.OrderKey     // the gap where it stopped
	more   bool             // whether there may be more behind that
}

// newest is the newest one of the events that a walk found; nil if there are none.
func (f *walked) newest(backward bool) *storage.Event {
	switch {
	case len(f.stored) == 0:
		return nil
	case backward:
		return f.stored[0]
	}
	return f.stored[len(f.stored)-1]
}

// cut keeps the first n events, and has the walk stop behind them.
func (w *walk) cut(found *walked, n int) {
	if n == len(found.events) {
		return
	}
	found.events, found.stored = found.events[:n], found.stored[:n]
	found.stop, found.more = w.gapAfter(found.events[n-1].Order), true
}

func (w *walk) run(ctx context.Context) (found walked, err error) {
	found.stop = w.from
	size := w.limit + 1 // one more than wanted tells whether there is more
	for range pagesAtMost {
		page, more, err := w.page(ctx, found.stop, size, w.bytes-found.bytes)
		if err != nil || len(page) == 0 {
			return found, err
		}
		if !found.any {
			found.any, found.first = true, page[0].Order
		}
		full, err := w.take(ctx, page, more, &found)
		if err != nil || full {
			return found, err
		}
		found.stop = w.gapAfter(page[len(page)-1].Order)
		if !more {
			return found, nil
		}
		size = max(size, furtherPage)
	}
	found.more = true
	return found, nil
}

// take adds to what was found those events of a page that count, until there are as many as wanted, or as many bytes.
// more says that there may be events behind the page.
func (w *walk) take(ctx context.Context, page []*storage.Event, more bool, found *walked) (full bool, err error) {
	selected := make([]*storage.Event, 0, len(page))
	for _, e := range page {
		if w.filter.Matches(e.PDU) {
			selected = append(selected, e)
		}
	}
	seen, err := w.view.Filter(ctx, selected)
	if err != nil {
		return false, err
	}
	n := 0
	for ; n < len(seen) && len(found.events) < w.limit && found.bytes < w.bytes; n++ {
		e := seen[n]
		found.events, found.bytes = append(found.events, e), found.bytes+len(e.PDU.JSON())
		for selected[0].PDU.ID() != e.PDU.ID() {
			selected = selected[1:]
		}
		found.stored = append(found.stored, selected[0])
	}
	if len(found.events) < w.limit && found.bytes < w.bytes {
		return false, nil
	}
	if n > 0 {
		found.stop = w.gapAfter(seen[n-1].Order)
	}
	found.more = more || n < len(seen)
	return true, nil
}

// gapAfter is the gap behind an event in the direction of the walk.
func (w *walk) gapAfter(o api.OrderKey) api.OrderKey {
	if w.backward {
		return gapBefore(o)
	}
	return o
}

// senders are the member events of those who sent events, in the state at the newest one of these (Client-Server API,
// § Lazy-loading room members).
func (q *Query) senders(ctx context.Context, room *storage.Room, v *visibility.View, newest *storage.Event, events []api.Event) ([]api.Event, error) {
	if newest == nil {
		return nil, nil
	}
	members, err := q.state(ctx, room.NID, visibility.StateAfter(newest), part{
		keys: []api.StateKeyTuple{}, filter: &api.EventFilter{LazyLoadMembers: true}, members: sendersOf(events)})
	if err != nil {
		return nil, err
	}
	return v.Show(ctx, members)
}

func sendersOf(events []api.Event) []id.UserID {
	known := make(map[id.UserID]bool)
	var users []id.UserID
	for _, e := range events {
		if sender := e.PDU.Sender(); !known[sender] {
			known[sender] = true
			users = append(users, sender)
		}
	}
	return users
}
