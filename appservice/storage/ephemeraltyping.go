package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// TypingRoom says that a service knows of somebody who types in a room.
type TypingRoom struct {
	RoomID  id.RoomID
	Service string
}

type typingStatements struct {
	putTyping                  *sqlutil.Insert
	selectTyping, deleteTyping *sqlutil.Stmt
	dropTyping                 *sqlutil.Stmt
}

func prepareTyping(db *sqlutil.DB) typingStatements {
	return typingStatements{
		putTyping: db.Insert("appservice_typing", []string{"room_id", "service"},
			`ON CONFLICT (room_id, service) DO NOTHING`),
		selectTyping: db.Stmt(`SELECT room_id, service FROM appservice_typing ORDER BY room_id, service`),
		dropTyping:   db.Stmt(`DELETE FROM appservice_typing WHERE service = $1`),
		deleteTyping: db.Stmt(`DELETE FROM appservice_typing WHERE room_id = $1 AND service = $2`),
	}
}

// TypingRooms lists what services know of.
func (s *Store) TypingRooms(ctx context.Context, tx *sqlutil.Tx) ([]TypingRoom, error) {
	rows, err := s.selectTyping.Query(ctx, tx)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (t TypingRoom, err error) {
		return t, rows.Scan(&t.RoomID, &t.Service)
	})
}

// NoteTyping notes rooms in which services know of somebody who types from now on, and those in which they do not any
// more.
func (s *Store) NoteTyping(ctx context.Context, tx *sqlutil.Tx, begun, ended []TypingRoom) error {
	if len(begun) > 0 {
		rows := make([][]any, len(begun))
		for i, t := range begun {
			rows[i] = []any{t.RoomID, t.Service}
		}
		if _, err := s.putTyping.Exec(ctx, tx, rows); err != nil {
			return fmt.Errorf("rooms with typing: %w", err)
		}
	}
	for _, t := range ended {
		if _, err := s.deleteTyping.Exec(ctx, tx, t.RoomID, t.Service); err != nil {
			return fmt.Errorf("rooms with typing: %w", err)
		}
	}
	return nil
}
