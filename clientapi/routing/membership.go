package routing

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// joinByIDOrAlias is POST /join/{roomIdOrAlias}.
func (e *endpoints) joinByIDOrAlias(ctx context.Context, r *httputil.Request) (any, error) {
	room := r.Var("roomIDOrAlias")
	if !strings.HasPrefix(room, "#") {
		if _, err := id.ParseRoomID(room); err != nil {
			return nil, mxerr.InvalidParam("%v", err)
		}
		return e.join(ctx, r, room)
	}
	alias, err := id.ParseRoomAlias(room)
	if err != nil {
		return nil, mxerr.InvalidParam("%v", err)
	}
	if e.Unknown.HasAlias(alias) {
		if _, err := e.Unknown.Alias(ctx, unknown.ByOf(r), alias); err != nil {
			return nil, err
		}
	}
	return e.join(ctx, r, room)
}

// joinByID is POST /rooms/{roomId}/join.
func (e *endpoints) joinByID(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	return e.join(ctx, r, string(room))
}

func (e *endpoints) join(ctx context.Context, r *httputil.Request, room string) (any, error) {
	var body struct {
		Reason           string          `json:"reason"`
		ThirdPartySigned json.RawMessage `json:"third_party_signed"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	signed, err := object("third_party_signed", body.ThirdPartySigned)
	if err != nil {
		return nil, err
	}
	servers, err := via(r.Values())
	if err != nil {
		return nil, err
	}
	ts, err := timestamp(r)
	if err != nil {
		return nil, err
	}
	names, err := e.Profiles.Names(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	joined, err := e.Room.JoinRoom(ctx, roomserver.JoinRoomRequest{RequestKey: newKey(), UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID,
		Guest: r.Caller.Guest, RoomIDOrAlias: room, Via: servers, Reason: body.Reason, Profile: names[r.Caller.UserID], ThirdPartySigned: signed, Timestamp: ts})
	if err != nil {
		return nil, err
	}
	if joined.Predecessor != "" {
		if err := e.inherit(ctx, r.Caller.UserID, joined.Predecessor, joined.RoomID); err != nil {
			return nil, err
		}
	}
	return httputil.Object{"room_id": joined.RoomID}, nil
}

// knock is POST /knock/{roomIdOrAlias}.
func (e *endpoints) knock(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	servers, err := via(r.Values())
	if err != nil {
		return nil, err
	}
	room, known, err := e.roomNamed(ctx, r)
	if err != nil {
		return nil, err
	}
	servers = append(servers, known...)
	err = e.changeMembership(ctx, r, roomserver.ChangeMembershipRequest{Action: roomserver.ActionKnock, RoomID: room, Target: r.Caller.UserID,
		Reason: body.Reason, Via: servers})
	if err != nil {
		return nil, err
	}
	return httputil.Object{"room_id": room}, nil
}

// membership is POST /rooms/{roomId}/ invite, leave, kick, ban and unban.
func (e *endpoints) membership(action string) httputil.Handler {
	return func(ctx context.Context, r *httputil.Request) (any, error) {
		room, err := r.RoomID("roomID")
		if err != nil {
			return nil, err
		}
		var body struct {
			UserID string `json:"user_id"`
			Reason string `json:"reason"`
			Medium string `json:"medium"`
		}
		if err := r.JSON(&body); err != nil {
			return nil, err
		}
		target := r.Caller.UserID
		if action != roomserver.ActionLeave {
			if body.UserID == "" && body.Medium != "" && action == roomserver.ActionInvite {
				return nil, noThirdParty()
			}
			if target, err = userIDOf("user_id", body.UserID); err != nil {
				return nil, err
			}
		}
		return nil, e.changeMembership(ctx, r, roomserver.ChangeMembershipRequest{Action: action, RoomID: room, Target: target, Reason: body.Reason})
	}
}

// changeMembership adds what every change needs.
func (e *endpoints) changeMembership(ctx context.Context, r *httputil.Request, q roomserver.ChangeMembershipRequest) error {
	var err error
	q.RequestKey, q.Sender, q.DeviceID = newKey(), r.Caller.UserID, r.Caller.DeviceID
	if q.Timestamp, err = timestamp(r); err != nil {
		return err
	}
	if q.Action == roomserver.ActionInvite {
		if err := e.mayInvite(ctx, r, q.Target); err != nil {
			return err
		}
	}
	if q.Action == roomserver.ActionInvite || q.Action == roomserver.ActionKnock {
		names, err := e.Profiles.Names(ctx, q.Target)
		if err != nil {
			return err
		}
		q.Profile = names[q.Target]
	}
	_, err = e.Room.ChangeMembership(ctx, q)
	return err
}

// makeWait is how long an invite waits for application services to make those who are invited.
const makeWait = 10 * time.Second

// mayInvite refuses to invite those who want no invites (Client-Server API, § Invite permission). Before, application services
// make those of them who are theirs and who are not known yet, so that they have a profile to be invited with.
func (e *endpoints) mayInvite(ctx context.Context, r *httputil.Request, users ...id.UserID) error {
	if len(users) == 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, makeWait)
	defer cancel()
	// Whoever is not made is invited all the same: the service hears of the invite. appservice logs what was not answered.
	_ = e.Unknown.Users(waiting, unknown.ByOf(r), users...)
	found, err := e.Sync.QueryBlockInvites(ctx, syncapi.QueryBlockInvitesRequest{UserIDs: users})
	if err == nil && len(found.Blocking) > 0 {
		err = mxerr.New(http.StatusForbidden, "M_INVITE_BLOCKED", "%s does not want to be invited", found.Blocking[0])
	}
	return err
}

// mutualRooms is GET /mutual_rooms. from and next are what its tokens are called, which differs where it is unstable.
func (e *endpoints) mutualRooms(from, next string) httputil.Handler {
	return func(ctx context.Context, r *httputil.Request) (any, error) {
		other, err := userIDOf("user_id", r.Query("user_id"))
		if err != nil {
			return nil, err
		}
		query := roomserver.QueryMutualRoomsRequest{UserID: r.Caller.UserID, Other: other}
		if token := r.Query(from); token != "" {
			if query.After, err = id.ParseRoomID(token); err != nil {
				return nil, mxerr.InvalidParam("%s is not a token of this endpoint", from)
			}
		}
		found, err := e.Room.QueryMutualRooms(ctx, query)
		if err != nil {
			return nil, err
		}
		answer := httputil.Object{"count": found.Count, "joined": append([]id.RoomID{}, found.Rooms...)}
		if found.Next != "" {
			answer[next] = found.Next
		}
		return answer, nil
	}
}

// forget is POST /rooms/{roomId}/forget.
func (e *endpoints) forget(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	_, err = e.Room.ForgetRoom(ctx, roomserver.ForgetRoomRequest{RoomID: room, UserID: r.Caller.UserID})
	return nil, err
}

// joinedRooms is GET /joined_rooms.
func (e *endpoints) joinedRooms(ctx context.Context, r *httputil.Request) (any, error) {
	found, err := e.Room.QueryMemberships(ctx, roomserver.QueryMembershipsRequest{UserID: r.Caller.UserID, Memberships: []string{"join"}})
	if err != nil {
		return nil, err
	}
	rooms := make([]id.RoomID, len(found.Rooms))
	for i, room := range found.Rooms {
		rooms[i] = room.RoomID
	}
	return httputil.Object{"joined_rooms": rooms}, nil
}
