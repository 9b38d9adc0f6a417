package routing

import (
	"context"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// backupVersion is the version that the query must name.
func backupVersion(r *httputil.Request) (string, error) {
	version := r.Query("version")
	if version == "" {
		return "", mxerr.MissingParam("version is missing: name the version of the backup")
	}
	return version, nil
}

func backupState(s backups.State, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return httputil.Object{"etag": s.ETag, "count": s.Sessions}, nil
}

// getKey is GET /room_keys/keys/{roomId}/{sessionId}.
func (e *endpoints) getKey(ctx context.Context, r *httputil.Request) (any, error) {
	version, room, err := keysOf(r, true)
	if err != nil {
		return nil, err
	}
	key, err := e.Backups.Key(ctx, r.Caller.UserID, version, room, r.Var("sessionID"))
	if err != nil {
		return nil, err
	}
	return key, nil
}

// getRoomKeys is GET /room_keys/keys/{roomId}.
func (e *endpoints) getRoomKeys(ctx context.Context, r *httputil.Request) (any, error) {
	return e.streamKeys(ctx, r, true)
}

// getAllKeys is GET /room_keys/keys.
func (e *endpoints) getAllKeys(ctx context.Context, r *httputil.Request) (any, error) {
	return e.streamKeys(ctx, r, false)
}

// keysOf are the version of a request for keys, and, where the path has one, the room.
func keysOf(r *httputil.Request, inRoom bool) (version string, room id.RoomID, err error) {
	if inRoom {
		if room, err = r.RoomID("roomID"); err != nil {
			return "", "", err
		}
	}
	version, err = backupVersion(r)
	return version, room, err
}

// streamKeys answers with all keys, of which it holds a page at a time. An answer that cannot be completed ends in the
// middle of its JSON: nobody takes it for all.
func (e *endpoints) streamKeys(ctx context.Context, r *httputil.Request, inRoom bool) (any, error) {
	version, room, err := keysOf(r, inRoom)
	if err != nil {
		return nil, err
	}
	pages, err := e.Backups.Keys(ctx, r.Caller.UserID, version, room)
	if err != nil {
		return nil, err
	}
	text, err := pages.Next(ctx, r.Lend(firstKeys))
	if err != nil {
		return nil, err
	}
	return httputil.Stream(func(w http.ResponseWriter) error {
		w.Header().Set("Content-Type", "application/json")
		for len(text) > 0 {
			if _, err := w.Write(text); err != nil {
				return err
			}
			if text, err = pages.Next(ctx, text[:0]); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// firstKeys is for how many bytes of a page of keys there is room at first.
const firstKeys = 2 << 20

// deleteAllKeys is DELETE /room_keys/keys.
func (e *endpoints) deleteAllKeys(ctx context.Context, r *httputil.Request) (any, error) {
	version, _, err := keysOf(r, false)
	if err != nil {
		return nil, err
	}
	return backupState(e.Backups.DeleteKeys(ctx, r.Caller.UserID, version))
}

// deleteRoomKeys is DELETE /room_keys/keys/{roomId}.
func (e *endpoints) deleteRoomKeys(ctx context.Context, r *httputil.Request) (any, error) {
	version, room, err := keysOf(r, true)
	if err != nil {
		return nil, err
	}
	return backupState(e.Backups.DeleteRoomKeys(ctx, r.Caller.UserID, version, room))
}

// deleteKey is DELETE /room_keys/keys/{roomId}/{sessionId}.
func (e *endpoints) deleteKey(ctx context.Context, r *httputil.Request) (any, error) {
	version, room, err := keysOf(r, true)
	if err != nil {
		return nil, err
	}
	return backupState(e.Backups.DeleteKey(ctx, r.Caller.UserID, version, room, r.Var("sessionID")))
}
