package visibility

import (
	"context"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// NoRoom is the error for those who want to change a room that does not exist, and for those who may not know that it
// does.
func NoRoom(room id.RoomID) error {
	return mxerr.Forbidden("you are not in the room %s, or there is no such room: ask its members to invite you", room)
}

// Hide is the error that a local user gets where a change of a room was refused: NoRoom, if there is no such room or
// if they may not know of it, so that refusals tell nobody which rooms exist. What failed, instead of being refused,
// stays as it is.
func Hide(ctx context.Context, r *state.Reader, roomID id.RoomID, user id.UserID, refused error) error {
	refusal, is := mxerr.As(refused)
	if !is || refusal.Status >= http.StatusInternalServerError || refusal.Status == http.StatusTooManyRequests {
		return refused
	}
	room, err := r.Room(ctx, roomID)
	if err != nil {
		return err
	}
	known := false
	if room != nil {
		if known, err = mayKnow(ctx, r, room, user); err != nil {
			return err
		}
	}
	if !known {
		return NoRoom(roomID)
	}
	return refused
}

// mayKnow tells whether a user may know that a room exists: they are or were something in it, it is there for
// everybody to read, or they may join it or knock.
func mayKnow(ctx context.Context, r *state.Reader, room *storage.Room, user id.UserID) (bool, error) {
	if room.Visibility == storage.WorldReadable {
		return true, nil
	}
	m, err := r.Storage.Membership(ctx, room.NID, user)
	if err != nil || m.EventID != "" {
		return m.EventID != "", err
	}
	rules, err := r.One(ctx, room.NID, room.Root, auth.Key{Type: pdu.TypeJoinRules})
	if err != nil || rules == nil {
		return false, err
	}
	switch state.ContentString(rules.PDU, "join_rule") {
	case "public", "knock", "knock_restricted":
		return true, nil
	case "restricted":
		return MayJoin(ctx, r, rules.PDU, user)
	}
	return false, nil
}

// MayJoin tells whether a user is in one of the rooms that restricted join rules name (Client-Server API, §
// Restricted rooms).
func MayJoin(ctx context.Context, r *state.Reader, joinRules *pdu.Event, user id.UserID) (bool, error) {
	allowed := state.AllowedRooms(joinRules)
	if len(allowed) == 0 {
		return false, nil
	}
	rooms, err := r.Storage.UserRooms(ctx, user)
	return slices.ContainsFunc(rooms, func(room api.UserRoom) bool {
		return room.Membership == "join" && slices.Contains(allowed, room.RoomID)
	}), err
}
