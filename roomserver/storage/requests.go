package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type requests struct {
	insertRequest *sqlutil.Insert
	request       *sqlutil.Stmt
}

func newRequests(db *sqlutil.DB) requests {
	return requests{
		insertRequest: db.Insert("roomserver_requests", []string{"request_key", "room_id", "done"}, ""),
		request:       db.Stmt(`SELECT room_id FROM roomserver_requests WHERE request_key = $1`),
	}
}

// InsertRequest stores the result of a call, a room. It fails if the call was carried out already (sqlutil.IsUniqueViolation).
func (s *Storage) InsertRequest(ctx context.Context, tx *sqlutil.Tx, key []byte, room id.RoomID, now int64) error {
	_, err := s.insertRequest.Exec(ctx, tx, [][]any{{key, room, now}})
	return err
}

// RoomOfRequest is the room that an earlier call with this request key made; empty if there was none.
func (s *Storage) RoomOfRequest(ctx context.Context, key []byte) (room id.RoomID, err error) {
	err = s.DB.ReadOne(ctx, "room of request", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.request.QueryRow(ctx, tx, key).Scan(&room)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return room, err
}
