package routing

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// maxInteger is the largest integer of canonical JSON.
const maxInteger = 1<<53 - 1

// readSession reads a key as clients send it. All of it is required. Its data is a part of the body.
func readSession(room id.RoomID, session string, raw json.RawMessage) (k storage.BackupKey, err error) {
	k = storage.BackupKey{RoomID: room, SessionID: session, FirstMessageIndex: -1, ForwardedCount: -1}
	said := false // whether it is verified
	err = httputil.Members("a session", raw, func(name string, value json.RawMessage) error {
		switch name {
		case "first_message_index":
			k.FirstMessageIndex = count(value)
		case "forwarded_count":
			k.ForwardedCount = count(value)
		case "is_verified":
			k.IsVerified = string(value) == "true"
			said = k.IsVerified || string(value) == "false"
		case "session_data":
			k.SessionData = value
		}
		return nil
	})
	switch {
	case err != nil:
		return k, err
	case !said:
		return k, mxerr.BadJSON("is_verified of the session %q must be a boolean", session)
	case k.FirstMessageIndex < 0, k.ForwardedCount < 0:
		return k, mxerr.BadJSON("first_message_index and forwarded_count of the session %q must be integers from 0 to %d",
			session, int64(maxInteger))
	case isNull(k.SessionData), k.SessionData[0] != '{':
		return k, mxerr.BadJSON("session_data of the session %q must be an object", session)
	}
	return k, nil
}

// count reads an integer; -1 if it is none that a session can have.
func count(value json.RawMessage) int64 {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 || n > maxInteger {
		return -1
	}
	return n
}

// readSessions reads the keys of a room, and adds them to others. Of two for one session the last counts.
func readSessions(room id.RoomID, sessions json.RawMessage, keys []storage.BackupKey) ([]storage.BackupKey, error) {
	places := make(map[string]int)
	err := httputil.Members("sessions", sessions, func(session string, raw json.RawMessage) error {
		k, err := readSession(room, session, raw)
		at, has := places[session]
		switch {
		case err != nil:
			return err
		case has:
			keys[at] = k
		default:
			places[session] = len(keys)
			keys = append(keys, k)
		}
		return nil
	})
	return keys, err
}

// putKey is PUT /room_keys/keys/{roomId}/{sessionId}.
func (e *endpoints) putKey(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	k, err := readSession(room, r.Var("sessionID"), raw)
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, []storage.BackupKey{k})
}

// requiredObject reads the body, and returns a member that must be there.
func requiredObject(r *httputil.Request, name string) (json.RawMessage, error) {
	raw, err := r.Object()
	if err != nil {
		return nil, err
	}
	value, err := httputil.Member("the body", raw, name)
	if err == nil && isNull(value) {
		err = lacks(raw, name, "an object")
	}
	return value, err
}

// putRoomKeys is PUT /room_keys/keys/{roomId}.
func (e *endpoints) putRoomKeys(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	sessions, err := requiredObject(r, "sessions")
	if err != nil {
		return nil, err
	}
	keys, err := readSessions(room, sessions, nil)
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, keys)
}

// putAllKeys is PUT /room_keys/keys.
func (e *endpoints) putAllKeys(ctx context.Context, r *httputil.Request) (any, error) {
	rooms, err := requiredObject(r, "rooms")
	if err != nil {
		return nil, err
	}
	of := make(map[id.RoomID]json.RawMessage)
	err = httputil.Members("rooms", rooms, func(name string, value json.RawMessage) error {
		room, err := id.ParseRoomID(name)
		if err != nil {
			return mxerr.BadJSON("%v", err)
		}
		of[room], err = httputil.Member("a room", value, "sessions")
		return err
	})
	if err != nil {
		return nil, err
	}
	var keys []storage.BackupKey
	for room, sessions := range of {
		if keys, err = readSessions(room, sessions, keys); err != nil {
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
