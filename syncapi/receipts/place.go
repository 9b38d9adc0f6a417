package receipts

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// place is where an event stands that a user sees.
type place struct {
	order  roomserver.OrderKey // zero for an event that comes after all that is known here
	pos    int64               // of the newest row that a receipt for the event covers
	thread id.EventID          // in which it is, if it is in one
	isRoot bool                // a thread begins at it
}

// isBehind tells whether a receipt for the event would not move one that stands.
func (p place) isBehind(event id.EventID, old *storage.Receipt) bool {
	switch {
	case event == old.EventID:
		return true
	case p.order == roomserver.OrderKey{}:
		return false
	case isPending(old):
		return p.pos <= old.Place
	}
	return p.order.Compare(old.Order) <= 0
}

// search looks for the places of the events of a request.
type search struct {
	*Service
	*Request
	rows  map[id.EventID]storage.TimelineRow // of the room, whether the user sees them or not
	found map[id.EventID]place
}

// places finds those events of a request that its user sees: in the timeline here, or by the roomserver, which knows
// what users see of what came before they joined, and of what is not here.
func (s *Service) places(ctx context.Context, req *Request) (map[id.EventID]place, error) {
	f := &search{Service: s, Request: req, rows: make(map[id.EventID]storage.TimelineRow),
		found: make(map[id.EventID]place)}
	complete, err := f.here(ctx)
	if err == nil && !complete {
		s.Barrier(ctx) // what was acknowledged may be on its way here
		_, err = f.here(ctx)
	}
	if err != nil {
		return nil, err
	}
	return f.found, f.there(ctx)
}

// here finds the events in the timeline. It returns false where a row that would be needed is not there.
func (f *search) here(ctx context.Context) (complete bool, err error) {
	complete = true
	err = f.Storage.Read(ctx, "places of receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := f.Storage.Events(ctx, tx, slices.Collect(maps.Values(f.Events)))
		if err != nil {
			return err
		}
		latest, err := f.Storage.Latest(ctx, tx, f.RoomID, []id.UserID{f.UserID})
		if err != nil {
			return err
		}
		for _, event := range f.Events {
			row, has := rows[event]
			if !has || row.RoomID != f.RoomID || row.Has(storage.Hidden) {
				complete = false
				continue
			}
			f.rows[event] = row
			if !certainlySees(latest[f.UserID], &row) {
				continue
			}
			p, err := f.withRow(ctx, tx, &row)
			if err != nil {
				return err
			}
			f.found[event] = p
			complete = complete && (p.isRoot || string(event) != f.Thread)
		}
		return nil
	})
	return complete, err
}

// certainlySees tells whether a user who is in the room was in it when an event came: then they see it, whatever the
// room's history visibility is.
func certainlySees(now storage.Membership, row *storage.TimelineRow) bool {
	return now.Membership == "join" && row.Pos >= now.Pos && !row.Has(storage.Forked)
}

// withRow is the place of an event in the timeline here.
func (f *search) withRow(ctx context.Context, tx *sqlutil.Tx, row *storage.TimelineRow) (place, error) {
	p := place{order: row.Order, pos: row.Pos, thread: row.Thread}
	if string(row.EventID) != f.Thread {
		return p, nil
	}
	newest, err := f.Storage.ThreadNewest(ctx, tx, f.RoomID, row.EventID)
	p.isRoot = newest != nil
	return p, err
}

// there asks the roomserver for the other events, as far as the user sees them.
func (f *search) there(ctx context.Context) error {
	var missing []id.EventID
	for _, event := range f.Events {
		if _, has := f.found[event]; !has {
			missing = append(missing, event)
		}
	}
	if missing == nil {
		return nil
	}
	seen, err := f.Room.QueryEvents(ctx, roomserver.QueryEventsRequest{
		Viewer: roomserver.Viewer{UserID: f.UserID}, RoomID: f.RoomID, EventIDs: missing})
	if err != nil {
		return fmt.Errorf("events of receipts: %w", err)
	}
	if len(seen.Events) == 0 {
		return nil
	}
	return f.Storage.Read(ctx, "places of receipts", func(ctx context.Context, tx *sqlutil.Tx) error {
		for i := range seen.Events {
			e := &seen.Events[i]
			var p place
			if row, has := f.rows[e.PDU.ID()]; has {
				p, err = f.withRow(ctx, tx, &row)
			} else {
				p, err = f.withoutRow(ctx, tx, e)
			}
			if err != nil {
				return err
			}
			f.found[e.PDU.ID()] = p
		}
		return nil
	})
}

// withoutRow is the place of an event that is not in the timeline here: because it is older than that, or because it
// has not come yet.
func (f *search) withoutRow(ctx context.Context, tx *sqlutil.Tx, e *roomserver.Event) (place, error) {
	p := place{order: e.Order, pos: 1} // older than everything
	rooms, err := f.Storage.Rooms(ctx, tx, []id.RoomID{f.RoomID})
	if err != nil {
		return p, err
	}
	if room := rooms[f.RoomID]; room.Order.Compare(e.Order) < 0 {
		p.order, p.pos = roomserver.OrderKey{}, room.Pos
	} else {
		row, err := f.Storage.BeforeOrder(ctx, tx, f.RoomID, e.Order)
		if err != nil {
			return p, err
		}
		if row != nil {
			p.pos = row.Pos
		}
	}
	p.thread, err = f.threadOf(ctx, tx, e.PDU.Relation())
	return p, err
}

// threadOf finds the thread of an event by what it relates to.
func (f *search) threadOf(ctx context.Context, tx *sqlutil.Tx, r pdu.Relation) (id.EventID, error) {
	if r.Parent == "" || r.Type == pdu.RelThread {
		return r.Parent, nil
	}
	rows, err := f.Storage.Events(ctx, tx, []id.EventID{r.Parent})
	if row := rows[r.Parent]; row.RoomID == f.RoomID {
		return row.Thread, err
	}
	return "", err
}
