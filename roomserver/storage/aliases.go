package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Alias is a local alias.
type Alias struct {
	Alias   id.RoomAlias
	RoomID  id.RoomID
	Creator id.UserID
}

type aliases struct {
	insertAlias *sqlutil.Insert
	alias       *sqlutil.Stmt
	ofRoom      *sqlutil.Stmt
	deleteAlias *sqlutil.Stmt
	moveAliases *sqlutil.Stmt
}

func newAliases(db *sqlutil.DB) aliases {
	return aliases{
		insertAlias: db.Insert("roomserver_aliases", []string{"alias", "room_id", "creator"}, ""),
		alias:       db.Stmt(`SELECT room_id, creator FROM roomserver_aliases WHERE alias = $1`),
		ofRoom:      db.Stmt(`SELECT alias FROM roomserver_aliases WHERE room_id = $1 ORDER BY alias`),
		deleteAlias: db.Stmt(`DELETE FROM roomserver_aliases WHERE alias = $1`),
		moveAliases: db.Stmt(`UPDATE roomserver_aliases SET room_id = $2 WHERE room_id = $1`),
	}
}

// InsertAlias adds an alias. It fails if there is one (sqlutil.IsUniqueViolation).
func (s *Storage) InsertAlias(ctx context.Context, tx *sqlutil.Tx, a Alias) error {
	_, err := s.insertAlias.Exec(ctx, tx, [][]any{{a.Alias, a.RoomID, a.Creator}})
	return err
}

// Alias reads an alias; nil if there is none.
func (s *Storage) Alias(ctx context.Context, alias id.RoomAlias) (*Alias, error) {
	a := &Alias{Alias: alias}
	err := s.DB.ReadOne(ctx, "alias", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.alias.QueryRow(ctx, tx, alias).Scan(&a.RoomID, &a.Creator)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return a, err
}

// RoomAliases lists the aliases of a room.
func (s *Storage) RoomAliases(ctx context.Context, roomID id.RoomID) (all []id.RoomAlias, err error) {
	err = s.DB.ReadOne(ctx, "aliases of room", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.ofRoom.Query(ctx, tx, roomID)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (a id.RoomAlias, err error) { return a, rows.Scan(&a) })
		return err
	})
	return all, err
}

// MoveAliases has all aliases of a room lead to another one.
func (s *Storage) MoveAliases(ctx context.Context, tx *sqlutil.Tx, from, to id.RoomID) error {
	_, err := s.moveAliases.Exec(ctx, tx, from, to)
	return err
}

// DeleteAlias removes an alias.
func (s *Storage) DeleteAlias(ctx context.Context, alias id.RoomAlias) error {
	return s.DB.Write(ctx, "delete alias", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := s.deleteAlias.Exec(ctx, tx, alias)
		return err
	})
}
