package routing

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// sessionBody is a key as clients send it. All of it is required.
type sessionBody struct {
	FirstMessageIndex *int64          `json:"first_message_index"`
	ForwardedCount    *int64          `json:"forwarded_count"`
	IsVerified        *bool           `json:"is_verified"`
	SessionData       json.RawMessage `json:"session_data"`
}

type roomBody struct {
	Sessions map[string]*sessionBody `json:"sessions"`
}

// maxInteger is the largest integer of canonical JSON.
const maxInteger = 1<<53 - 1

func (s *sessionBody) key(room id.RoomID, session string) (k storage.BackupKey, err error) {
	switch {
	case s == nil:
		return k, mxerr.BadJSON("the session %q must be an object", session)
	case s.IsVerified == nil:
		return k, mxerr.BadJSON("is_verified of the session %q must be a boolean", session)
	case !isCount(s.FirstMessageIndex), !isCount(s.ForwardedCount):
		return k, mxerr.BadJSON("first_message_index and forwarded_count of the session %q must be integers from 0 to %d",
			session, int64(maxInteger))
	}
	data, err := object("session_data", s.SessionData)
	if err == nil && data == nil {
		err = mxerr.BadJSON("session_data of the session %q must be an object", session)
	}
	return storage.BackupKey{RoomID: room, SessionID: session, IsVerified: *s.IsVerified,
		FirstMessageIndex: *s.FirstMessageIndex, ForwardedCount: *s.ForwardedCount, SessionData: data}, err
}

func isCount(n *int64) bool { return n != nil && *n >= 0 && *n <= maxInteger }

func (b *roomBody) keys(room id.RoomID, keys []storage.BackupKey) ([]storage.BackupKey, error) {
	if b == nil || b.Sessions == nil {
		return nil, mxerr.BadJSON("sessions of the room %s must be an object", room)
	}
	for session, body := range b.Sessions {
		k, err := body.key(room, session)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// putKey is PUT /room_keys/keys/{roomId}/{sessionId}.
func (e *endpoints) putKey(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	body := new(sessionBody)
	if err := r.JSON(body); err != nil {
		return nil, err
	}
	k, err := body.key(room, r.Var("sessionID"))
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, []storage.BackupKey{k})
}

// putRoomKeys is PUT /room_keys/keys/{roomId}.
func (e *endpoints) putRoomKeys(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	body := new(roomBody)
	if err := httputil.Unmarshal(raw, body); err != nil {
		return nil, err
	}
	if body.Sessions == nil {
		return nil, lacks(raw, "sessions", "an object")
	}
	keys, err := body.keys(room, nil)
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, keys)
}

// putAllKeys is PUT /room_keys/keys.
func (e *endpoints) putAllKeys(ctx context.Context, r *httputil.Request) (any, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	var body struct {
		Rooms map[string]*roomBody `json:"rooms"`
	}
	if err := httputil.Unmarshal(raw, &body); err != nil {
		return nil, err
	}
	if body.Rooms == nil {
		return nil, lacks(raw, "rooms", "an object")
	}
	var keys []storage.BackupKey
	for name, inRoom := range body.Rooms {
		room, err := id.ParseRoomID(name)
		if err != nil {
			return nil, mxerr.BadJSON("%v", err)
		}
		if keys, err = inRoom.keys(room, keys); err != nil {
			return nil, err
		}
	}
	return e.backUp(ctx, r, keys)
}

func (e *endpoints) backUp(ctx context.Context, r *httputil.Request, keys []storage.BackupKey) (any, error) {
	version, err := backupVersion(r)
	if err != nil {
		return nil, err
	}
	state, err := e.Backups.Put(ctx, r.Caller.UserID, version, keys)
	return backupState(state, err)
}
