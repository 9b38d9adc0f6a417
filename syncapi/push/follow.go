package push

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

const (
	// rowsOfRoom is how many events of a room are looked at that came while nobody pushed.
	rowsOfRoom = 50
	// tooOld is when a notification is not worth sending any more.
	tooOld = 24 * time.Hour
)

// follow pushes what is new for the user, until ctx ends or the gateway does not want the pusher any more.
func (p *pusher) follow(ctx context.Context) error {
	sleeper, err := p.Hub.Sleep(p.UserID, "") // what is for one device is not pushed
	if err != nil {
		return err
	}
	defer p.Hub.Leave(p.UserID, sleeper)
	for {
		window, err := p.Hub.Look(ctx, p.UserID, p.Pos, math.MaxInt64)
		if err != nil {
			return err
		}
		if p.view != window.View {
			p.view, p.rules = window.View, notify.NewRules(p.UserID, window.View.Rules)
		}
		rejected, err := p.pushNew(ctx, window)
		if err != nil {
			return err
		}
		if rejected {
			return p.drop(ctx, p.PusherKey)
		}
		p.Pos = max(p.Pos, window.UpTo)
		select {
		case <-sleeper.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *pusher) pushNew(ctx context.Context, window *stream.Window) (rejected bool, err error) {
	rows, hasRead, err := p.rows(ctx, window)
	if err != nil {
		return false, err
	}
	candidates, err := p.Judge.Candidates(ctx, p.UserID, window.View, rows)
	if err != nil {
		return false, err
	}
	for i := range candidates {
		c := &candidates[i]
		result, err := p.Judge.Evaluate(ctx, p.rules, &c.Row, c.Event.PDU, &glob.Work{Left: notify.UserWork})
		if err != nil {
			return false, err
		}
		if !result.Notify || time.Since(time.UnixMicro(c.Row.Pos)) > tooOld {
			continue
		}
		if rejected, err := p.push(ctx, window.View, c, &result); rejected || err != nil {
			return rejected, err
		}
	}
	if !hasRead {
		return false, nil
	}
	return p.pushCounts(ctx, window.View)
}

// rows are the events of the user's rooms since the last look, oldest first, and whether the user has read something meanwhile.
func (p *pusher) rows(ctx context.Context, w *stream.Window) (rows []storage.TimelineRow, hasRead bool, err error) {
	unknown := w.View.Joined
	if w.Complete {
		unknown = nil
	}
	for name, room := range w.Rooms {
		switch {
		case room.TimelineChanged && !room.TimelineKnown:
			unknown = append(slices.Clip(unknown), name)
		case room.TimelineChanged:
			rows = append(rows, room.Timeline...)
		}
		hasRead = hasRead || room.ReceiptsChanged && !room.ReceiptsKnown || slices.ContainsFunc(room.Receipts, func(r storage.Receipt) bool { return r.UserID == p.UserID })
	}
	if len(unknown) > 0 {
		err = p.Storage.Read(ctx, "events to push", func(ctx context.Context, tx *sqlutil.Tx) error {
			found, err := p.Storage.Newest(ctx, tx, unknown, p.Pos, w.UpTo, rowsOfRoom)
			rows = append(rows, found...)
			return err
		})
	}
	if w.Changed(storage.KindMemberships, "") {
		rows = append(rows, notify.Invites(w.View, p.Pos)...)
	}
	slices.SortFunc(rows, func(a, b storage.TimelineRow) int { return int(a.Pos - b.Pos) })
	rows = slices.DeleteFunc(rows, func(row storage.TimelineRow) bool { return row.Pos <= p.Pos || row.Pos > w.UpTo })
	hasRead = hasRead || slices.ContainsFunc(rows, func(row storage.TimelineRow) bool { return row.Sender == p.UserID && row.Has(storage.Local) })
	return rows, hasRead, err
}

// counts are how many events the user has not read in all rooms, and up to where they have read one of these.
func (p *pusher) counts(ctx context.Context, view *stream.View, room id.RoomID) (unread, place int64, err error) {
	var all []storage.Unread
	err = p.Storage.Read(ctx, "unread of a pusher", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		all, err = p.Storage.Unread(ctx, tx, p.UserID, view.Joined)
		return err
	})
	for i := range all {
		unread += all[i].Of(view.Rules).Notify
		if all[i].RoomID == room {
			place = all[i].Place
		}
	}
	return unread, place, err
}

// push delivers a notification of an event, and notes it.
func (p *pusher) push(ctx context.Context, view *stream.View, c *notify.Candidate, result *pushrules.Result) (rejected bool, err error) {
	unread, place, err := p.counts(ctx, view, c.Row.RoomID)
	if err != nil || c.Row.Pos <= place {
		return false, err // it is read already
	}
	n := notification{EventID: c.Row.EventID, RoomID: c.Row.RoomID, Prio: "low", Counts: countsOf(unread)}
	tweaks := result.Tweaks()
	if result.Highlight || tweaks["sound"] != nil || c.Row.Type == "m.room.encrypted" {
		n.Prio = "high"
	}
	if !p.eventIDOnly() {
		if err := p.describe(ctx, &n, c); err != nil {
			return false, err
		}
	}
	n.Devices = []device{p.device(tweaks)}
	if rejected, err = p.deliver(ctx, &n, time.UnixMicro(c.Row.Pos).Add(tooOld)); rejected || err != nil {
		return rejected, err
	}
	p.unread, p.Pos = unread, c.Row.Pos
	return false, p.Storage.MovePusher(ctx, p.PusherKey, p.Pos)
}

// describe adds what an event is about.
func (p *pusher) describe(ctx context.Context, n *notification, c *notify.Candidate) error {
	e := c.Event.PDU
	n.Type, n.Sender, n.Content = e.Type(), e.Sender(), e.Content()
	if stateKey, is := e.StateKey(); is && e.Type() == "m.room.member" {
		n.UserIsTarget = stateKey == string(p.UserID)
	}
	var err error
	if n.SenderDisplayName, err = p.Judge.DisplayName(ctx, c.Row.RoomID, c.Row.RootAfter, e.Sender()); err != nil {
		return err
	}
	rooms, err := p.Room.QueryRooms(ctx, roomserver.QueryRoomsRequest{RoomIDs: []id.RoomID{c.Row.RoomID}})
	if err == nil && len(rooms.Rooms) == 1 {
		n.RoomName, n.RoomAlias = rooms.Rooms[0].Name, rooms.Rooms[0].CanonicalAlias
	}
	return err
}

// pushCounts tells the gateway how much is unread, where that is something else than it was told last.
func (p *pusher) pushCounts(ctx context.Context, view *stream.View) (rejected bool, err error) {
	unread, _, err := p.counts(ctx, view, "")
	if err != nil || unread == p.unread {
		return false, err
	}
	rejected, err = p.deliver(ctx, &notification{Prio: "low", Counts: countsOf(unread), Devices: []device{p.device(nil)}}, time.Now())
	p.unread = unread
	return rejected, err
}
