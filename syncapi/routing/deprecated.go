package routing

import (
	"context"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/filter"
)

// initialSync is GET /initialSync.
func (s *routes) initialSync(ctx context.Context, r *httputil.Request) (any, error) {
	limit, err := r.QueryInt("limit", filter.DefaultTimeline)
	if err != nil {
		return nil, err
	}
	archived, err := r.QueryBool("archived")
	if err != nil {
		return nil, err
	}
	f := filter.Default()
	f.Room.IncludeLeave = archived
	f.Room.Timeline = &roomserver.EventFilter{Limit: max(limit, 1)}
	return s.Engine.InitialSync(ctx, &answer.Request{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest, Filter: f,
		StateAfter: true, Presence: usualPresence(r)})
}

// roomInitialSync is GET /rooms/{roomId}/initialSync.
func (s *routes) roomInitialSync(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomId")
	if err != nil {
		return nil, err
	}
	limit, err := r.QueryInt("limit", filter.DefaultTimeline)
	if err != nil {
		return nil, err
	}
	f := filter.Default()
	f.Room.IncludeLeave, f.Room.Rooms = true, []id.RoomID{room}
	f.Room.Timeline = &roomserver.EventFilter{Limit: max(limit, 1)}
	return s.Engine.RoomInitialSync(ctx, &answer.Request{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest, Filter: f,
		StateAfter: true, Presence: usualPresence(r)}, room)
}

// events is GET /events, of all rooms or of one.
func (s *routes) events(ctx context.Context, r *httputil.Request) (any, error) {
	req := &answer.Request{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest, Presence: usualPresence(r)}
	var err error
	if req.Since, err = tokenOf(r, "from"); err != nil {
		return nil, err
	}
	if req.Timeout, err = r.QueryMillis("timeout", answer.MaxTimeout); err != nil {
		return nil, err
	}
	var room id.RoomID
	if given := r.Query("room_id"); given != "" {
		if room, err = id.ParseRoomID(given); err != nil {
			return nil, mxerr.InvalidParam("room_id: %v", err)
		}
	}
	return s.Engine.EventStream(ctx, req, room)
}

// event is GET /events/{eventId}.
func (s *routes) event(ctx context.Context, r *httputil.Request) (any, error) {
	event, err := r.EventID("eventId")
	if err != nil {
		return nil, err
	}
	return s.Engine.Event(ctx, roomserver.Viewer{UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, Guest: r.Caller.Guest}, event)
}

// tokenOf is a parameter that is a token of /sync, if it is given.
func tokenOf(r *httputil.Request, name string) (*answer.Token, error) {
	given := r.Query(name)
	if given == "" {
		return nil, nil
	}
	token, err := answer.ParseToken(given)
	return &token, err
}
