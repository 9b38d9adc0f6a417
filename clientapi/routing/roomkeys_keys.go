package routing

import (
	"context"
	"net/http"
	"strconv"

	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
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
	k, err := e.Backups.Key(ctx, r.Caller.UserID, version, room, r.Var("sessionID"))
	if err != nil {
		return nil, err
	}
	return httputil.Raw{Body: appendSession(nil, k)}, nil
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
	keys, err := pages.Next(ctx)
	if err != nil {
		return nil, err
	}
	return httputil.Stream(func(w http.ResponseWriter) error {
		w.Header().Set("Content-Type", "application/json")
		l := &keyList{inRoom: inRoom}
		l.begin()
		for len(keys) > 0 {
			for i := range keys {
				l.add(&keys[i])
			}
			if _, err := w.Write(l.text); err != nil {
				return err
			}
			l.text = l.text[:0]
			if keys, err = pages.Next(ctx); err != nil {
				return err
			}
		}
		l.end()
		_, err := w.Write(l.text)
		return err
	}), nil
}

// keyList writes keys as JSON, those of one room or of rooms.
type keyList struct {
	text   []byte
	inRoom bool
	rooms  int
	room   id.RoomID // the last
}

func (l *keyList) begin() {
	if l.inRoom {
		l.text = append(l.text, `{"sessions":{`...)
	} else {
		l.text = append(l.text, `{"rooms":{`...)
	}
}

func (l *keyList) add(k *storage.BackupKey) {
	switch {
	case l.rooms > 0 && l.room == k.RoomID:
		l.text = append(l.text, ',')
	case l.inRoom:
		l.room, l.rooms = k.RoomID, 1
	default:
		if l.rooms > 0 {
			l.text = append(l.text, "}},"...)
		}
		l.room, l.rooms = k.RoomID, l.rooms+1
		l.text = append(pdu.AppendString(l.text, k.RoomID), `:{"sessions":{`...)
	}
	l.text = appendSession(append(pdu.AppendString(l.text, k.SessionID), ':'), k)
}

func (l *keyList) end() {
	if !l.inRoom && l.rooms > 0 {
		l.text = append(l.text, "}}"...)
	}
	l.text = append(l.text, "}}"...)
}

func appendSession(to []byte, k *storage.BackupKey) []byte {
	to = strconv.AppendInt(append(to, `{"first_message_index":`...), k.FirstMessageIndex, 10)
	to = strconv.AppendInt(append(to, `,"forwarded_count":`...), k.ForwardedCount, 10)
	to = strconv.AppendBool(append(to, `,"is_verified":`...), k.IsVerified)
	return append(append(append(to, `,"session_data":`...), k.SessionData...), '}')
}

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
