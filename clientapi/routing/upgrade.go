package routing

import (
	"context"
	"net/http"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// upgradeRoom is POST /rooms/{roomId}/upgrade.
func (e *endpoints) upgradeRoom(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	var body struct {
		NewVersion         id.RoomVersion `json:"new_version"`
		AdditionalCreators []string       `json:"additional_creators"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.NewVersion == "" {
		return nil, mxerr.MissingParam("new_version is missing")
	}
	if !roomversion.Supported(body.NewVersion) {
		return nil, unsupportedVersion(body.NewVersion)
	}
	request := roomserver.UpgradeRoomRequest{RoomID: room, UserID: r.Caller.UserID, DeviceID: r.Caller.DeviceID, NewVersion: body.NewVersion}
	for _, name := range body.AdditionalCreators {
		user, err := userIDOf("additional_creators", name)
		if err != nil {
			return nil, err
		}
		request.AdditionalCreators = append(request.AdditionalCreators, user)
	}
	names, err := e.Profiles.Names(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	request.Profile = names[r.Caller.UserID]
	upgraded, err := e.Room.UpgradeRoom(ctx, request)
	if err != nil {
		return nil, err
	}
	if err := e.inherit(ctx, r.Caller.UserID, room, upgraded.RoomID); err != nil {
		return nil, err
	}
	return httputil.Object{"replacement_room": upgraded.RoomID}, nil
}

func unsupportedVersion(version id.RoomVersion) error {
	return mxerr.New(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not one of %v", version, roomversion.All())
}

// inherit gives a user's settings for a room to the one that replaces it (Client-Server API, § Room Upgrades).
func (e *endpoints) inherit(ctx context.Context, user id.UserID, from, to id.RoomID) error {
	_, err := e.Sync.InheritRoom(ctx, syncapi.InheritRoomRequest{UserID: user, From: from, To: to})
	return err
}
