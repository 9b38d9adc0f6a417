package routing

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rawjson"
)

// maxInteger is the largest integer of canonical JSON.
const maxInteger = 1<<53 - 1

// readSession reads a key as clients send it. All of it is required. Its data is a part of the body.
func readSession(room id.RoomID, session string, r *rawjson.Reader) (k backups.Session, err error) {
	k = backups.Session{RoomID: room, SessionID: session, FirstMessageIndex: -1, ForwardedCount: -1}
	said := false // whether it is verified
	isObject, _ := r.Object(func(name []byte) error {
		switch string(name) {
		case "first_message_index":
			k.FirstMessageIndex = count(r.Value())
		case "forwarded_count":
			k.ForwardedCount = count(r.Value())
		case "is_verified":
			value := r.Value()
			k.IsVerified = string(value) == "true"
			said = k.IsVerified || string(value) == "false"
		case "session_data":
			k.SessionData = r.Value()
		}
		return nil
	})
	switch {
	case !isObject:
		return k, mxerr.BadJSON("the session %q must be an object", session)
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

// readSessions reads an object with the keys of a room, and adds them to others. Of two for one session, and of two
// lists of sessions, the last counts. has tells whether there is one.
func readSessions(what string, room id.RoomID, r *rawjson.Reader, keys []backups.Session) (all []backups.Session,
	has bool, err error) {
	others := len(keys)
	isObject, err := r.Object(func(name []byte) error {
		if string(name) != "sessions" {
			return nil
		}
		has, keys = true, keys[:others]
		places := make(map[string]int)
		isObject, err := r.Object(func(name []byte) error {
			k, err := readSession(room, string(name), r)
			if at, twice := places[k.SessionID]; twice {
				keys[at] = k
				return err
			}
			places[k.SessionID] = len(keys)
			keys = append(keys, k)
			return err
		})
		if err == nil && !isObject {
			err = mxerr.BadJSON("sessions must be an object")
		}
		return err
	})
	if err == nil && !isObject {
		err = mxerr.BadJSON("%s must be an object", what)
	}
	return keys, has, err
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
	k, err := readSession(room, r.Var("sessionID"), rawjson.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, []backups.Session{k})
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
	keys, has, err := readSessions("the body", room, rawjson.NewReader(raw), nil)
	if err == nil && !has {
		err = lacks(raw, "sessions", "an object")
	}
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
	keys, has, err := readRooms(rawjson.NewReader(raw))
	if err == nil && !has {
		err = lacks(raw, "rooms", "an object")
	}
	if err != nil {
		return nil, err
	}
	return e.backUp(ctx, r, keys)
}

// readRooms reads the keys of rooms. Of two for one room, and of two lists of rooms, the last counts. has tells
// whether there is one.
func readRooms(r *rawjson.Reader) (keys []backups.Session, has bool, err error) {
	_, err = r.Object(func(name []byte) error {
		if string(name) != "rooms" {
			return nil
		}
		has, keys = true, keys[:0]
		seen := make(map[id.RoomID]bool)
		isObject, err := r.Object(func(name []byte) error {
			room, err := id.ParseRoomID(string(name))
			if err != nil {
				return mxerr.BadJSON("%v", err)
			}
			if seen[room] {
				keys = slices.DeleteFunc(keys, func(k backups.Session) bool { return k.RoomID == room })
			}
			seen[room] = true
			all, has, err := readSessions("a room", room, r, keys)
			if keys = all; err == nil && !has {
				err = mxerr.BadJSON("a room must have sessions")
			}
			return err
		})
		if err == nil && !isObject {
			err = mxerr.BadJSON("rooms must be an object")
		}
		return err
	})
	return keys, has, err
}

func (e *endpoints) backUp(ctx context.Context, r *httputil.Request, keys []backups.Session) (any, error) {
	version, err := backupVersion(r)
	if err != nil {
		return nil, err
	}
	state, err := e.Backups.Put(ctx, r.Caller.UserID, version, keys)
	return backupState(state, err)
}
