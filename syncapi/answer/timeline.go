package answer

import (
	"context"
	"maps"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// fetchTimelines gets the events of all rooms at once. Who was joined when an event came sees it, whatever the room's history
// visibility is; for all other events the roomserver decides.
func (a *answering) fetchTimelines(ctx context.Context) error {
	var shared, checked []id.EventID
	for _, r := range a.rooms {
		for i := range r.rows {
			if row := &r.rows[i]; a.certainlySees(row) {
				shared = append(shared, row.EventID)
			} else {
				checked = append(checked, row.EventID)
			}
		}
	}
	if len(shared)+len(checked) == 0 {
		return nil
	}
	found, err := a.Events.Get(ctx, shared)
	if err != nil {
		return err
	}
	visible, err := a.Events.Visible(ctx, a.viewer(), checked)
	if err != nil {
		return err
	}
	maps.Copy(found, visible)
	for _, r := range a.rooms {
		a.show(r, found)
	}
	return nil
}

// show makes a room's timeline of those rows whose events were found, and leaves out the others.
func (a *answering) show(r *room, found map[id.EventID]*roomserver.Event) {
	shown := make([]storage.TimelineRow, 0, len(r.rows))
	for i := range r.rows {
		row := &r.rows[i]
		event := found[row.EventID]
		if event == nil {
			continue
		}
		one := *event
		one.Membership = leave
		if m := a.window.View.MembershipAt(row.RoomID, row.Pos); m != nil {
			one.Membership = m.Membership
		}
		r.timeline = append(r.timeline, &one)
		shown = append(shown, *row)
	}
	r.rows = shown
}

// aggregate adds what relates to the events of those timelines that are limited (Client-Server API, § Aggregations of child events):
// in the others the client gets the related events themselves.
func (a *answering) aggregate(ctx context.Context) error {
	ask := roomserver.QueryAggregationsRequest{Viewer: a.viewer()}
	for _, r := range a.rooms {
		if !r.limited {
			continue
		}
		for _, e := range r.timeline {
			if !e.PDU.IsState() {
				ask.EventIDs = append(ask.EventIDs, e.PDU.ID())
			}
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

// prevBatch is the place before a room's timeline; without a timeline that after what it would have. Where the room has no place that is
// known, it is that of the whole answer.
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
