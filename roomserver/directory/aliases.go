package directory

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// membersForServers is how many members are looked at for the servers that are named with an alias: enough to join by.
const membersForServers = 200

// SetAlias is of the contract. The user must be in the room, and the configured rules must allow the alias, unless it is of an
// application service's namespaces.
func (d *Directory) SetAlias(ctx context.Context, req api.SetAliasRequest) (none api.Empty, err error) {
	if err := d.checkOurs(req.Alias); err != nil {
		return none, err
	}
	room, err := d.rooms.Room(ctx, req.RoomID)
	if err != nil {
		return none, err
	}
	joined := room != nil && req.Service
	if room != nil && !joined {
		if joined, err = d.isJoined(ctx, room, req.UserID); err != nil {
			return none, err
		}
	}
	if !joined {
		return none, visibility.NoRoom(req.RoomID)
	}
	if !req.Service && !d.rules.Allows(req.UserID, req.RoomID, req.Alias) {
		return none, mxerr.Forbidden("this server does not let you create the alias %s", req.Alias)
	}
	err = d.rooms.Storage.DB.Write(ctx, "set alias", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.rooms.Storage.InsertAlias(ctx, tx, storage.Alias{Alias: req.Alias, RoomID: req.RoomID, Creator: req.UserID})
	})
	if sqlutil.IsUniqueViolation(err) {
		return none, mxerr.New(http.StatusConflict, "M_UNKNOWN", "the room alias %s exists already: choose another one", req.Alias)
	}
	if err != nil {
		return none, fmt.Errorf("set alias %s: %w", req.Alias, err)
	}
	return none, nil
}

// checkOurs checks the form of an alias, and that it is one of this server.
func (d *Directory) checkOurs(alias id.RoomAlias) error {
	if _, err := id.ParseRoomAlias(string(alias)); err != nil {
		return mxerr.InvalidParam("%v", err)
	}
	if alias.Server() != d.server {
		return mxerr.InvalidParam("the alias %s is not one of this server: its part after the colon must be %s", alias, d.server)
	}
	return nil
}

// alias is an alias that must exist.
func (d *Directory) alias(ctx context.Context, alias id.RoomAlias) (*storage.Alias, error) {
	a, err := d.rooms.Storage.Alias(ctx, alias)
	if err != nil {
		return nil, fmt.Errorf("alias %s: %w", alias, err)
	}
	if a == nil {
		return nil, mxerr.NotFound("there is no room alias %s here", alias)
	}
	return a, nil
}

// RemoveAlias is of the contract. An alias may be removed by who created it, by those who may set the room's canonical alias, and
// by administrators. The room's m.room.canonical_alias stays as it is, as the specification permits.
func (d *Directory) RemoveAlias(ctx context.Context, req api.RemoveAliasRequest) (none api.Empty, err error) {
	a, err := d.alias(ctx, req.Alias)
	if err != nil {
		return none, err
	}
	if !req.Admin && a.Creator != req.UserID {
		room, err := d.rooms.Room(ctx, a.RoomID)
		if err != nil {
			return none, err
		}
		may, err := d.mayName(ctx, room, req.UserID)
		if err != nil {
			return none, err
		}
		if !may {
			return none, mxerr.Forbidden("the alias %s is not yours, and your power level in its room does not let you set m.room.canonical_alias", req.Alias)
		}
	}
	if err := d.rooms.Storage.DeleteAlias(ctx, req.Alias); err != nil {
		return none, fmt.Errorf("remove alias %s: %w", req.Alias, err)
	}
	return none, nil
}

// QueryAlias is of the contract. This server is the first of those that are named.
func (d *Directory) QueryAlias(ctx context.Context, req api.QueryAliasRequest) (res api.QueryAliasResponse, err error) {
	a, err := d.alias(ctx, req.Alias)
	if err != nil {
		return res, err
	}
	res.RoomID, res.Servers = a.RoomID, []id.ServerName{d.server}
	room, err := d.rooms.Room(ctx, a.RoomID)
	if err != nil || room == nil {
		return res, err
	}
	members, err := d.rooms.Storage.JoinedMembers(ctx, room.NID, membersForServers)
	if err != nil {
		return res, fmt.Errorf("servers of %s: %w", a.RoomID, err)
	}
	for _, user := range members {
		if server := user.Server(); !slices.Contains(res.Servers, server) {
			res.Servers = append(res.Servers, server)
		}
	}
	return res, nil
}

// QueryRoomAliases is of the contract: for members, and for everybody if the room is world readable.
func (d *Directory) QueryRoomAliases(ctx context.Context, req api.QueryRoomAliasesRequest) (res api.QueryRoomAliasesResponse, err error) {
	room, err := d.rooms.Room(ctx, req.RoomID)
	if err != nil {
		return res, err
	}
	may := false
	if room != nil {
		if may, err = d.mayRead(ctx, room, req.Viewer); err != nil {
			return res, err
		}
	}
	if !may {
		return res, mxerr.Forbidden("you are not a member of %s: join it to see its aliases", req.RoomID)
	}
	if res.Aliases, err = d.rooms.Storage.RoomAliases(ctx, req.RoomID); err != nil {
		return res, fmt.Errorf("aliases of %s: %w", req.RoomID, err)
	}
	return res, nil
}
