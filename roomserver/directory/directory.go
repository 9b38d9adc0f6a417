// Package directory is the names of rooms on this server: their aliases, and the published room directory (Client-Server API,
// § Room aliases, § Published room directory). Its methods are calls of the contract (roomserver/api).
//
// Names are no part of a room: they are not events, and each server has its own. Who may change them follows from the room all
// the same: those who may set its m.room.canonical_alias.
package directory

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const typeCanonicalAlias = "m.room.canonical_alias"

// Directory names rooms. It is safe for concurrent use.
type Directory struct {
	rooms  *state.Reader
	rules  config.RoomDirectory
	server id.ServerName
}

// New makes a Directory of the server with this name. The rules say who may use it.
func New(r *state.Reader, rules config.RoomDirectory, server id.ServerName) *Directory {
	return &Directory{rooms: r, rules: rules, server: server}
}

func (d *Directory) isJoined(ctx context.Context, room *storage.Room, user id.UserID) (bool, error) {
	m, err := d.rooms.Storage.Membership(ctx, room.NID, user)
	if err != nil {
		return false, fmt.Errorf("membership of %s: %w", user, err)
	}
	return m.Membership == "join", nil
}

// mayName tells whether a user may set the m.room.canonical_alias of a room. Nobody may if there is no such room.
func (d *Directory) mayName(ctx context.Context, room *storage.Room, user id.UserID) (bool, error) {
	if room == nil {
		return false, nil
	}
	if joined, err := d.isJoined(ctx, room, user); err != nil || !joined {
		return false, err
	}
	create, powerLevels := auth.Key{Type: pdu.TypeCreate}, auth.Key{Type: pdu.TypePowerLevels}
	entries, err := d.rooms.Get(ctx, room.NID, room.Root, []auth.Key{create, powerLevels})
	if err != nil {
		return false, err
	}
	event := func(k auth.Key) *pdu.Event {
		if e := entries[k]; e != nil {
			return e.PDU
		}
		return nil
	}
	levels := auth.LevelsFrom(event(create), event(powerLevels))
	return levels.User(user) >= levels.Event(typeCanonicalAlias, true), nil
}

// mayRead tells whether a viewer is in the room, or may read it without that.
func (d *Directory) mayRead(ctx context.Context, room *storage.Room, viewer api.Viewer) (bool, error) {
	if viewer.UserID == "" || room.Visibility == storage.WorldReadable {
		return true, nil
	}
	return d.isJoined(ctx, room, viewer.UserID)
}
