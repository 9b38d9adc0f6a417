package answer

import (
	"context"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// maxTimelines is how many bytes of events all timelines of an answer have together, and how many what relates to
// these. They are cut to it, the oldest events first, and paging back leads to the rest. State cannot be cut: an answer
// is larger by that, and by account data and receipts.
const maxTimelines = 16 << 20

// rowsAtATime is how many events of timelines are got at a time: what is got in vain where they are too large.
const rowsAtATime = 1000

// place is a row of a room's timeline.
type place struct {
	room *room
	row  int
}

func (p place) get() *storage.TimelineRow { return &p.room.rows[p.row] }

// fetchTimelines gets the events of all rooms, the newest of each first, until there are as many as an answer may have.
func (a *answering) fetchTimelines(ctx context.Context) error {
	places := a.newestFirst()
	var found map[id.EventID]*roomserver.Event
	for size := 0; len(places) > 0 && size <= maxTimelines; {
		chunk := places[:min(len(places), rowsAtATime)]
		more, err := a.find(ctx, chunk)
		switch {
		case err != nil:
			return err
		case found == nil:
			found = more
		default:
			maps.Copy(found, more)
		}
		for _, p := range chunk {
			if e := found[p.get().EventID]; e != nil {
				size += len(e.PDU.JSON())
			}
			if size > maxTimelines {
				break
			}
			places = places[1:]
		}
	}
	cutBehind(places)
	for _, r := range a.rooms {
		a.show(r, found)
	}
	return nil
}

// cutBehind leaves out rows for which an answer has no room, and what is older in their timelines.
func cutBehind(places []place) {
	cut := make(map[*room]int)
	for _, p := range places {
		cut[p.room] = max(cut[p.room], p.row+1)
	}
	for r, n := range cut {
		r.cut(n)
	}
}

// newestFirst is all rows of the answer, in the order in which they are worth having: the last of each room, then the
// one before it of each, and so on.
func (a *answering) newestFirst() []place {
	n := 0
	rooms := make([]*room, 0, len(a.rooms))
	for _, r := range a.rooms {
		n += len(r.rows)
		rooms = append(rooms, r)
	}
	places := make([]place, 0, n)
	for back := 1; len(rooms) > 0; back++ {
		rooms = slices.DeleteFunc(rooms, func(r *room) bool { return len(r.rows) < back })
		for _, r := range rooms {
			places = append(places, place{r, len(r.rows) - back})
		}
	}
	return places
}

// find gets the events that the user may see. Who was joined when an event came sees it, whatever the room's history
// visibility is; for all other events the roomserver decides.
func (a *answering) find(ctx context.Context, places []place) (map[id.EventID]*roomserver.Event, error) {
	var shared, checked []id.EventID
	for _, p := range places {
		if row := p.get(); a.certainlySees(row) {
			shared = append(shared, row.EventID)
		} else {
			checked = append(checked, row.EventID)
		}
	}
	found, err := a.Events.Get(ctx, shared)
	if err != nil {
		return nil, err
	}
	visible, err := a.Events.Visible(ctx, a.viewer(), checked)
	maps.Copy(found, visible)
	return found, err
}

// show makes a room's timeline of those rows whose events were found, and leaves out the others.
func (a *answering) show(r *room, found map[id.EventID]*roomserver.Event) {
	kept := r.rows[:0:0] // as in selected, of the same array
	r.timeline = make([]*roomserver.Event, 0, len(r.rows))
	for i := range r.rows {
		row := &r.rows[i]
		event := found[row.EventID]
		switch {
		case event == nil:
			continue
		case len(kept) == i:
			kept = r.rows[: i+1 : i+1]
		default:
			kept = append(kept, *row)
		}
		one := *event
		one.Membership = leave
		if m := a.window.View.MembershipAt(row.RoomID, row.Pos); m != nil {
			one.Membership = m.Membership
		}
		r.timeline = append(r.timeline, &one)
	}
	r.rows = kept
}

// aggregate adds what relates to the events of those timelines that are limited (Client-Server API, § Aggregations of
// child events): in the others the client gets the related events themselves.
func (a *answering) aggregate(ctx context.Context) error {
	ask := roomserver.QueryAggregationsRequest{Viewer: a.viewer(), Bytes: maxTimelines}
	var asked []place
	for _, p := range a.newestFirst() {
		if e := p.room.timeline[p.row]; p.room.limited && !e.PDU.IsState() {
			ask.EventIDs, asked = append(ask.EventIDs, e.PDU.ID()), append(asked, p)
		}
	}
	if len(ask.EventIDs) == 0 {
		return nil
	}
	for user := range a.window.View.Ignored {
		ask.Viewer.Ignored = append(ask.Viewer.Ignored, user)
	}
	found, err := a.Room.QueryAggregations(ctx, ask)
	if err != nil || len(found.Relations) == 0 {
		return err
	}
	cutBehind(asked[len(asked)-found.Left:])
	for _, r := range a.rooms {
		if r.limited {
			for _, e := range r.timeline {
				e.Relations = found.Relations[e.PDU.ID()]
			}
		}
	}
	return nil
}

func (a *answering) certainlySees(row *storage.TimelineRow) bool {
	m := a.window.View.MembershipAt(row.RoomID, row.Pos)
	return m != nil && (m.EventID == row.EventID || m.Membership == join && !row.Has(storage.Forked))
}

// prevBatch is the place before a room's timeline; without a timeline that after what it would have. Where the room has
// no place that is known, it is that of the whole answer.
func (r *room) prevBatch(a *answering) string {
	place := r.lastOrder
	if len(r.rows) > 0 {
		place = r.rows[0].Order
	}
	if place == (roomserver.OrderKey{}) {
		return a.next.String()
	}
	if len(r.rows) > 0 {
		place.Index--
	}
	return place.Token()
}
