package storage

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Staged is a PDU that waits for events that it refers to.
type Staged struct {
	EventID  id.EventID
	RoomID   id.RoomID
	Version  id.RoomVersion
	Origin   id.ServerName
	Received int64 // ms
	Missing  []id.EventID
	JSON     []byte
}

type staged struct {
	stage   *sqlutil.Insert
	waiting *sqlutil.Stmt
	unstage *sqlutil.Stmt
}

func newStaged(db *sqlutil.DB) staged {
	return staged{
		stage: db.Insert("roomserver_staged", []string{"event_id", "room_id", "version", "origin", "received", "missing", "json"},
			"ON CONFLICT (event_id) DO UPDATE SET missing = excluded.missing"),
		waiting: db.Stmt(`SELECT event_id, room_id, version, origin, received, missing, json FROM roomserver_staged WHERE room_id = $1 ORDER BY received`),
		unstage: db.Stmt(`DELETE FROM roomserver_staged WHERE event_id = ANY($1)`),
	}
}

// Stage stores PDUs that cannot be checked yet.
func (s *Storage) Stage(ctx context.Context, tx *sqlutil.Tx, all []Staged) error {
	rows := make([][]any, len(all))
	for i, p := range all {
		missing, err := json.Marshal(p.Missing)
		if err != nil {
			return err
		}
		rows[i] = []any{p.EventID, p.RoomID, p.Version, p.Origin, p.Received, string(missing), p.JSON}
	}
	_, err := s.stage.Exec(ctx, tx, rows)
	return err
}

// Unstage removes PDUs that have been taken in.
func (s *Storage) Unstage(ctx context.Context, tx *sqlutil.Tx, ids []id.EventID) error {
	_, err := s.unstage.Exec(ctx, tx, sqlutil.Array(ids))
	return err
}

// StagedPDUs lists what waits in a room, in the order in which it came.
func (s *Storage) StagedPDUs(ctx context.Context, roomID id.RoomID) (all []Staged, err error) {
	err = s.DB.ReadOne(ctx, "staged", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.waiting.Query(ctx, tx, roomID)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (p Staged, err error) {
			var missing []byte
			if err = rows.Scan(&p.EventID, &p.RoomID, &p.Version, &p.Origin, &p.Received, &missing, &p.JSON); err == nil {
				err = json.Unmarshal(missing, &p.Missing)
			}
			return p, err
		})
		return err
	})
	return all, err
}
