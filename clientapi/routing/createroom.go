package routing

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

type createRoomRequest struct {
	Visibility      string            `json:"visibility"`
	RoomAliasName   string            `json:"room_alias_name"`
	Name            string            `json:"name"`
	Topic           string            `json:"topic"`
	Invite          []string          `json:"invite"`
	Invite3PID      []json.RawMessage `json:"invite_3pid"`
	RoomVersion     id.RoomVersion    `json:"room_version"`
	CreationContent json.RawMessage   `json:"creation_content"`
	InitialState    []struct {
		Type     string          `json:"type"`
		StateKey string          `json:"state_key"`
		Content  json.RawMessage `json:"content"`
	} `json:"initial_state"`
	Preset      string          `json:"preset"`
	IsDirect    bool            `json:"is_direct"`
	PowerLevels json.RawMessage `json:"power_level_content_override"`
}

// createRoom is POST /createRoom.
func (e *endpoints) createRoom(ctx context.Context, r *httputil.Request) (any, error) {
	var body createRoomRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	request, err := e.createRoomRequest(r, &body)
	if err != nil {
		return nil, err
	}
	if err := e.mayInvite(ctx, r, request.Invite...); err != nil {
		return nil, err
	}
	if request.Profiles, err = e.Profiles.Names(ctx, append(slices.Clone(request.Invite), request.Creator)...); err != nil {
		return nil, err
	}
	made, err := e.Room.CreateRoom(ctx, *request)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"room_id": made.RoomID}, nil
}

// createRoomRequest checks the form of the body.
func (e *endpoints) createRoomRequest(r *httputil.Request, body *createRoomRequest) (*roomserver.CreateRoomRequest, error) {
	request := &roomserver.CreateRoomRequest{RequestKey: newKey(), Creator: r.Caller.UserID, DeviceID: r.Caller.DeviceID, RoomVersion: body.RoomVersion,
		Visibility: body.Visibility, Preset: body.Preset, AliasLocalpart: body.RoomAliasName, Name: body.Name, Topic: body.Topic, IsDirect: body.IsDirect}
	if err := oneOf("visibility", body.Visibility, "public", "private"); err != nil {
		return nil, err
	}
	if err := oneOf("preset", body.Preset, "private_chat", "public_chat", "trusted_private_chat"); err != nil {
		return nil, err
	}
	if body.RoomVersion != "" && !roomversion.Supported(body.RoomVersion) {
		return nil, unsupportedVersion(body.RoomVersion)
	}
	if len(body.Invite3PID) > 0 {
		return nil, noThirdParty()
	}
	for _, name := range body.Invite {
		user, err := userIDOf("invite", name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(request.Invite, user) {
			request.Invite = append(request.Invite, user)
		}
		if len(request.Invite) > roomserver.MaxInvites {
			break // it will be refused, whoever the others are
		}
	}
	var err error
	if request.CreationContent, err = object("creation_content", body.CreationContent); err != nil {
		return nil, err
	}
	if request.PowerLevels, err = object("power_level_content_override", body.PowerLevels); err != nil {
		return nil, err
	}
	for _, state := range body.InitialState {
		content, err := object("the content of initial_state", state.Content)
		if err != nil {
			return nil, err
		}
		if state.Type == "" || content == nil {
			return nil, mxerr.BadJSON("each entry of initial_state needs a type and a content")
		}
		request.InitialState = append(request.InitialState, roomserver.InitialState{Type: state.Type, StateKey: state.StateKey, Content: content})
	}
	if request.AliasLocalpart != "" {
		alias, err := id.ParseRoomAlias("#" + request.AliasLocalpart + ":" + string(e.Config.ServerName))
		if err != nil || alias.Localpart() != request.AliasLocalpart {
			return nil, mxerr.InvalidParam("room_alias_name must be the part of an alias between # and :, not %q", request.AliasLocalpart)
		}
		if err := e.mayHaveAlias(r, alias); err != nil {
			return nil, err
		}
	}
	request.Timestamp, err = timestamp(r)
	return request, err
}

func noThirdParty() error {
	return mxerr.New(http.StatusBadRequest, "M_SERVER_NOT_TRUSTED", "this server trusts no identity server: invite by user id")
}
