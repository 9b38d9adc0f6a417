// Package notices sends what the operator of the server has to say to its users (Client-Server API, § Server Notices). The sender is a user
// without an account, whose name nobody can register. Each user has one room with it.
package notices

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// Tag is what marks the room for clients.
const Tag = "m.server_notice"

// Service sends notices.
type Service struct {
	Config   *config.Matrix
	Accounts *accounts.Service
	Profiles *profiles.Service
	Room     *roomserver.RoomserverAPI
	Sync     *syncapi.SyncAPI
}

// Notice is an event in the room of a user.
type Notice struct {
	UserID     id.UserID
	Type       string // empty: m.room.message
	StateKey   *string
	Content    json.RawMessage
	RequestKey roomserver.RequestKey
}

// Send sends a notice, and makes the user's room and invites them if need be. M_NOT_FOUND if there is no such user.
func (s *Service) Send(ctx context.Context, n Notice) (id.EventID, error) {
	sender := s.Config.NoticesUser()
	if sender == "" {
		return "", mxerr.Forbidden("server notices are off: set matrix.server_notices.localpart")
	}
	if _, err := s.Accounts.Local(ctx, n.UserID); err != nil {
		return "", err
	}
	if taken, _, err := s.Accounts.Active(ctx, []id.UserID{sender}); err != nil || len(taken) > 0 {
		if err == nil {
			err = mxerr.New(http.StatusBadRequest, "M_USER_IN_USE", "%s is the account of somebody: choose another name for matrix.server_notices.localpart", sender)
		}
		return "", err
	}
	room, err := s.room(ctx, sender, n.UserID)
	if err != nil {
		return "", err
	}
	if n.Type == "" {
		n.Type = "m.room.message"
	}
	sent, err := s.Room.SendEvent(ctx, roomserver.SendEventRequest{RequestKey: n.RequestKey, RoomID: room, Sender: sender, Type: n.Type, StateKey: n.StateKey,
		Content: n.Content})
	return sent.EventID, err
}

// room is the user's room, in which they are, or to which they are invited. Its request key makes it the same one each time.
func (s *Service) room(ctx context.Context, sender, user id.UserID) (id.RoomID, error) {
	own := s.Config.ServerNotices
	names, err := s.Profiles.Names(ctx, user)
	if err != nil {
		return "", err
	}
	made, err := s.Room.CreateRoom(ctx, roomserver.CreateRoomRequest{RequestKey: roomserver.RequestKey("server notices of " + string(user)), Creator: sender,
		Profiles: map[id.UserID]roomserver.Profile{sender: {DisplayName: own.DisplayName, AvatarURL: own.AvatarURL}}, Preset: "private_chat", Name: own.RoomName,
		CreationContent: json.RawMessage(`{"m.federate":false}`), PowerLevels: json.RawMessage(`{"users_default":-10}`)})
	if err != nil {
		return "", fmt.Errorf("the room of notices: %w", err)
	}
	now, err := s.Room.QueryMembership(ctx, roomserver.QueryMembershipRequest{RoomID: made.RoomID, UserID: user})
	if err != nil || now.Membership == "join" || now.Membership == "invite" {
		return made.RoomID, err
	}
	if _, err := s.Sync.TagRoom(ctx, syncapi.TagRoomRequest{UserID: user, RoomID: made.RoomID, Tag: Tag}); err != nil {
		return "", fmt.Errorf("tag the room of notices: %w", err)
	}
	_, err = s.Room.ChangeMembership(ctx, roomserver.ChangeMembershipRequest{Action: roomserver.ActionInvite, RoomID: made.RoomID, Sender: sender, Target: user,
		Profile: names[user]})
	if err != nil {
		return "", fmt.Errorf("invite to the room of notices: %w", err)
	}
	return made.RoomID, nil
}
