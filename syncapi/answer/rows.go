package answer

import (
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const member = "m.room.member"

// settle keeps of a room's rows those that its timeline may have: those that the filter selects, as many as the limit
// allows.
func (a *answering) settle(r *room) {
	if r.kind == invited || r.kind == knocked {
		return
	}
	read, keep := a.limits()
	complete := r.rowsFrom != stored || len(r.rows) < read
	r.bound(complete)
	if r.kind.anew() && r.rootSince == nil && a.knew(r) && !a.joinedAt(r.id, a.since.Pos) {
		r.rootSince = a.leftWith(r)
		r.unsure = r.rootSince == nil
	}
	// What comes anew does not follow on what the client may have of the room, unless that is nothing, and it begins
	// with the room.
	follows := !r.kind.anew() || len(r.rows) == 0 || r.rows[0].Type == "m.room.create" && !a.saw(r)
	r.limited = r.kind != outside && (!complete || !follows)
	r.rows = a.selected(r)
	if row := a.rowOfOwn(r); row != nil && a.selects(row) {
		r.rows = append(r.rows[:len(r.rows):len(r.rows)], *row)
	}
	if n := len(r.rows); n > keep {
		r.cut(n - keep)
	}
}

// bound finds between which states the rows lead. They are all that there are since the token, if they are complete.
func (r *room) bound(complete bool) {
	r.root = r.membership.Root
	n := len(r.rows)
	if n == 0 {
		if r.now != nil {
			r.root, r.lastOrder = r.now.Root, r.now.Order
		}
		return
	}
	if r.kind.section() == join {
		r.root = r.rows[n-1].RootAfter
	}
	r.lastOrder = r.rows[n-1].Order
	if r.rootSince == nil && complete && !r.kind.anew() {
		r.rootSince = &r.rows[0].RootBefore
	}
}

// selected are the rows that clients see and the filter selects.
func (a *answering) selected(r *room) []storage.TimelineRow {
	kept := r.rows[:0:0] // of the same array, which others may read, as long as none is left out
	for i := range r.rows {
		row := &r.rows[i]
		switch {
		case row.Has(storage.Hidden) || r.kind == outside && row.EventID != r.own.EventID || !a.selects(row):
		case len(kept) == i:
			kept = r.rows[: i+1 : i+1]
		default:
			kept = append(kept, *row)
		}
	}
	return kept
}

// rowOfOwn is that of the user's membership now, where it changed after they had left.
func (a *answering) rowOfOwn(r *room) *storage.TimelineRow {
	if r.own == r.membership || r.own.EventID == "" || !a.isNew(r) {
		return nil
	}
	order := r.lastOrder
	if order != (roomserver.OrderKey{}) {
		order.Index++ // what is before it begins where the rest ends
	}
	return &storage.TimelineRow{RoomID: r.id, Pos: r.own.Pos, EventID: r.own.EventID, Order: order, Type: member,
		Sender: r.own.Sender, Flags: storage.State, RootBefore: r.root, RootAfter: r.root}
}

// cut leaves out the first n events of the timeline, which the client gets by paging back from there.
func (r *room) cut(n int) {
	r.rows = r.rows[n:]
	if len(r.timeline) > 0 {
		r.timeline = r.timeline[n:]
	}
	r.limited = r.kind != outside
}

// selects applies the filter of the timeline, and leaves out messages of those whom the user ignores.
func (a *answering) selects(row *storage.TimelineRow) bool {
	if _, ignored := a.window.View.Ignored[row.Sender]; ignored && !row.Has(storage.State) {
		return false
	}
	f := a.Filter.Room.Timeline
	return f.MatchesType(row.Type) && f.MatchesSender(row.Sender) && f.MatchesRoom(row.RoomID) &&
		(f == nil || f.ContainsURL == nil || *f.ContainsURL == row.Has(storage.HasURL))
}
