package routing

import (
	"context"
	"fmt"
	"slices"
	"time"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// maxStatus is how long a status message may be, in bytes.
const maxStatus = 1024

// putPresence is PUT /presence/{userId}/status. Where presence is switched off, it does nothing.
func (s *routes) putPresence(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := self(r)
	if err != nil {
		return nil, err
	}
	var body struct {
		Presence  string `json:"presence"`
		StatusMsg string `json:"status_msg"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	switch {
	case body.Presence == "":
		return nil, mxerr.MissingParam("presence must be online, offline or unavailable")
	case !presence.IsState(body.Presence):
		return nil, mxerr.InvalidParam("presence must be online, offline or unavailable, not %q", body.Presence)
	case len(body.StatusMsg) > maxStatus:
		return nil, mxerr.InvalidParam("a status message may have %d bytes", maxStatus)
	case !s.Presence:
		return nil, nil
	}
	set := &storage.Presence{UserID: user, State: presence.State(body.Presence), StatusMsg: body.StatusMsg, TS: time.Now().UnixMilli()}
	if err := s.Storage.PutPresence(ctx, set); err != nil {
		return nil, err
	}
	s.Engine.Hub.SetPresence(ctx, r.Caller.DeviceID, set)
	return nil, nil
}

// getPresence is GET /presence/{userId}/status.
func (s *routes) getPresence(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userId")
	if err != nil {
		return nil, err
	}
	s.Engine.Barrier(ctx)
	var rooms map[id.UserID][]id.RoomID
	var stored map[id.UserID]storage.Presence
	err = s.Storage.Read(ctx, "presence", func(ctx context.Context, tx *sqlutil.Tx) error {
		if rooms, err = s.Storage.JoinedRooms(ctx, tx, []id.UserID{user, r.Caller.UserID}); err != nil {
			return err
		}
		stored, err = s.Storage.Presence(ctx, tx, []id.UserID{user})
		return err
	})
	if err != nil {
		return nil, err
	}
	mine := rooms[r.Caller.UserID]
	if user != r.Caller.UserID && !slices.ContainsFunc(rooms[user], func(room id.RoomID) bool { return slices.Contains(mine, room) }) {
		known, err := s.Client.QueryUsers(ctx, clientapi.QueryUsersRequest{UserIDs: []id.UserID{user}})
		if err != nil {
			return nil, fmt.Errorf("user of presence: %w", err)
		}
		if len(known.Active) == 0 {
			return nil, mxerr.NotFound("there is no user %s here", user)
		}
		return nil, mxerr.Forbidden("you share no room with %s", user)
	}
	set := stored[user]
	set.UserID = user
	return httputil.Raw{Body: answer.AppendPresence(nil, s.Engine.Hub.PresenceOf(&set))}, nil
}
