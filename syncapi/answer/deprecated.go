package answer

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// peekedRows is how many events of a room one answer to somebody who peeks has.
const peekedRows = 100

// withRoomID is the form of events outside of /sync.
var withRoomID = pdu.ClientOptions{WithRoomID: true}

// InitialSync is GET /initialSync: an initial sync in another form.
func (e *Engine) InitialSync(ctx context.Context, req *Request) (httputil.Raw, error) {
	req.OnlyRooms = true
	return e.answer(ctx, req, func(a *answering) ([]byte, error) {
		a.addPushRules()
		published, err := a.published(ctx)
		if err != nil {
			return nil, err
		}
		invites, err := a.inviteEvents(ctx)
		if err != nil {
			return nil, err
		}
		o := &out{b: []byte(`{"end":`)}
		o.text(a.next.String())
		o.list("presence", len(a.presence), func(i int) { o.presence(&a.presence[i]) })
		o.list("account_data", len(a.accountData), func(i int) { o.accountData(&a.accountData[i]) })
		rooms := slices.DeleteFunc(a.listRooms(), func(r *room) bool { return r.kind == knocked })
		o.list("rooms", len(rooms), func(i int) {
			r := rooms[i]
			a.beginInitialRoom(o, r)
			switch event := invites[r.membership.EventID]; {
			case r.kind != invited:
				a.writeInitialRoom(o, r, published[r.id])
			case event != nil:
				o.key("invite")
				o.b = event.AppendClient(o.b, a.viewer(), withRoomID)
			}
			o.raw(`}`)
		})
		o.raw(`}`)
		return o.b, nil
	})
}

// RoomInitialSync is GET /rooms/{roomId}/initialSync. The filter selects the room. M_FORBIDDEN for those who are not and never were in it.
func (e *Engine) RoomInitialSync(ctx context.Context, req *Request, room id.RoomID) (httputil.Raw, error) {
	req.OnlyRooms = true
	return e.answer(ctx, req, func(a *answering) ([]byte, error) {
		r := a.rooms[room]
		if r == nil || r.kind == invited || r.kind == knocked || r.kind == outside {
			return nil, mxerr.Forbidden("you are not a member of %s and never were: join it to read it", room)
		}
		published, err := a.published(ctx)
		if err != nil {
			return nil, err
		}
		o := new(out)
		a.beginInitialRoom(o, r)
		a.writeInitialRoom(o, r, published[room])
		o.raw(`}`)
		return o.b, nil
	})
}

func (a *answering) beginInitialRoom(o *out, r *room) {
	o.raw(`{"room_id":`)
	o.text(string(r.id))
	o.key("membership")
	o.text(r.own.Membership)
}

func (a *answering) writeInitialRoom(o *out, r *room, published bool) {
	visibility := "private"
	if published {
		visibility = "public"
	}
	o.key("visibility")
	o.text(visibility)
	o.key("messages")
	o.raw(`{"start":`)
	o.text(r.prevBatch(a))
	o.key("end")
	o.text(a.next.String())
	o.list("chunk", len(r.timeline), func(i int) { o.b = r.timeline[i].AppendClient(o.b, a.viewer(), withRoomID) })
	o.raw(`}`)
	o.list("state", len(r.state), func(i int) { o.b = r.state[i].AppendClient(o.b, a.viewer(), withRoomID) })
	o.list("account_data", len(r.accountData), func(i int) { o.accountData(&r.accountData[i]) })
}

func (a *answering) listRooms() []*room {
	rooms := make([]*room, 0, len(a.rooms))
	for _, r := range a.rooms {
		rooms = append(rooms, r)
	}
	return rooms
}

// published tells which rooms are in the directory.
func (a *answering) published(ctx context.Context) (map[id.RoomID]bool, error) {
	var mu sync.Mutex
	published := make(map[id.RoomID]bool)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelStates)
	for name := range a.rooms {
		group.Go(func() error {
			answer, err := a.Room.QueryPublished(ctx, roomserver.QueryPublishedRequest{RoomID: name})
			mu.Lock()
			defer mu.Unlock()
			published[name] = answer.Published
			return err
		})
	}
	return published, group.Wait()
}

// inviteEvents gets the events of the user's invites, as far as this server has them.
func (a *answering) inviteEvents(ctx context.Context) (map[id.EventID]*roomserver.Event, error) {
	var ids []id.EventID
	for _, r := range a.rooms {
		if r.kind == invited && r.membership.EventID != "" {
			ids = append(ids, r.membership.EventID)
		}
	}
	return a.Engine.Events.Visible(ctx, a.viewer(), ids)
}

// EventStream is GET /events: the new events of all of a user's rooms, or of one.
func (e *Engine) EventStream(ctx context.Context, req *Request, only id.RoomID) (httputil.Raw, error) {
	e.Barrier(ctx)
	window, err := e.Hub.Look(ctx, req.UserID, 0, math.MaxInt64)
	if err != nil {
		return httputil.Raw{}, err
	}
	if req.Since == nil {
		req.Since = &Token{Pos: window.UpTo, Ephemeral: window.Number}
	}
	nothing := &roomserver.EventFilter{Types: []string{}}
	req.Filter = &filter.Filter{Presence: nothing, AccountData: nothing, Room: filter.RoomFilter{Ephemeral: nothing, AccountData: nothing,
		State: nothing, Timeline: &roomserver.EventFilter{Limit: filter.MaxTimelineLimit}}}
	if only != "" {
		if m := window.View.MembershipAt(only, window.UpTo); m == nil || m.Membership != join {
			return e.peek(ctx, req, only)
		}
		req.Filter.Room.Rooms = []id.RoomID{only}
	}
	start := *req.Since
	req.OnlyRooms = true
	return e.answer(ctx, req, func(a *answering) ([]byte, error) {
		invites, err := a.inviteEvents(ctx)
		if err != nil {
			return nil, err
		}
		pos := make(map[id.EventID]int64)
		var chunk []*roomserver.Event
		for _, r := range a.rooms {
			for i := range r.rows {
				pos[r.rows[i].EventID] = r.rows[i].Pos
			}
			chunk = append(chunk, r.timeline...)
			if event := invites[r.membership.EventID]; event != nil {
				pos[r.membership.EventID] = r.membership.Pos
				chunk = append(chunk, event)
			}
		}
		slices.SortFunc(chunk, func(x, y *roomserver.Event) int { return int(pos[x.PDU.ID()] - pos[y.PDU.ID()]) })
		return writeChunk(start, a.next, chunk, a.viewer()), nil
	})
}

func writeChunk(start, end Token, chunk []*roomserver.Event, viewer roomserver.Viewer) []byte {
	o := &out{b: []byte(`{"start":`)}
	o.text(start.String())
	o.key("end")
	o.text(end.String())
	o.list("chunk", len(chunk), func(i int) { o.b = chunk[i].AppendClient(o.b, viewer, withRoomID) })
	o.raw(`}`)
	return o.b
}

// peek waits for events of a room that the user is not in. M_FORBIDDEN if they may not see it.
func (e *Engine) peek(ctx context.Context, req *Request, name id.RoomID) (httputil.Raw, error) {
	viewer := roomserver.Viewer{UserID: req.UserID, DeviceID: req.DeviceID, Guest: req.Guest}
	_, err := e.Room.QueryState(ctx, roomserver.QueryStateRequest{Viewer: viewer, RoomID: name, Keys: []roomserver.StateKeyTuple{{Type: "m.room.create"}}})
	if err != nil {
		return httputil.Raw{}, err
	}
	deadline := time.NewTimer(min(req.Timeout, MaxTimeout))
	defer deadline.Stop()
	sleeper, err := e.Hub.Sleep(req.UserID, req.DeviceID)
	if err != nil {
		return httputil.Raw{}, err
	}
	defer e.Hub.Leave(req.UserID, sleeper)
	defer e.Hub.Peek(req.UserID, name)()
	for waits := req.Timeout > 0; ; {
		window, err := e.Hub.Look(ctx, req.UserID, req.Since.Pos, math.MaxInt64)
		if err != nil {
			return httputil.Raw{}, err
		}
		next := Token{Pos: max(window.UpTo, req.Since.Pos), Ephemeral: window.Number}
		chunk, err := e.peeked(ctx, viewer, name, req.Since.Pos, next.Pos)
		if err != nil {
			return httputil.Raw{}, err
		}
		if len(chunk) > 0 || !waits {
			return httputil.Raw{Body: writeChunk(*req.Since, next, chunk, viewer)}, nil
		}
		if waits, err = e.woken(ctx, sleeper.C, deadline.C); err != nil {
			return httputil.Raw{}, err
		}
		e.Hub.Peek(req.UserID, name) // a reset of the Hub forgets it; it is left once, at the end
	}
}

func (e *Engine) peeked(ctx context.Context, viewer roomserver.Viewer, name id.RoomID, after, upTo int64) ([]*roomserver.Event, error) {
	var rows []storage.TimelineRow
	err := e.Storage.Read(ctx, "peek", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		rows, err = e.Storage.Newest(ctx, tx, []id.RoomID{name}, after, upTo, peekedRows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("events of %s: %w", name, err)
	}
	var ids []id.EventID
	for i := range rows {
		if !rows[i].Has(storage.Hidden) {
			ids = append(ids, rows[i].EventID)
		}
	}
	visible, err := e.Events.Visible(ctx, viewer, ids)
	var chunk []*roomserver.Event
	for _, eventID := range ids {
		if event := visible[eventID]; event != nil {
			chunk = append(chunk, event)
		}
	}
	return chunk, err
}

// Event is GET /events/{eventId}. M_NOT_FOUND if the user may not see it.
func (e *Engine) Event(ctx context.Context, viewer roomserver.Viewer, eventID id.EventID) (httputil.Raw, error) {
	found, err := e.Events.Visible(ctx, viewer, []id.EventID{eventID})
	if err != nil {
		return httputil.Raw{}, err
	}
	event := found[eventID]
	if event == nil {
		return httputil.Raw{}, mxerr.NotFound("there is no event %s that you may see", eventID)
	}
	return httputil.Raw{Body: event.AppendClient(nil, viewer, withRoomID)}, nil
}
