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

// Waiting is a staged PDU without its body.
type Waiting struct {
	EventID id.EventID
	Missing []id.EventID
}

type staged struct {
	stage     *sqlutil.Insert
	trim      *sqlutil.Stmt
	waiting   *sqlutil.Stmt
	stagedPDU *sqlutil.Stmt
	unstage   *sqlutil.Stmt
}

func newStaged(db *sqlutil.DB) staged {
	return staged{
		stage: db.Insert("roomserver_staged", []string{"event_id", "room_id", "version", "origin", "received", "missing", "json"},
			"ON CONFLICT (event_id) DO UPDATE SET missing = excluded.missing"),
		// Both databases want a LIMIT of their own kind before an OFFSET; a number means the same to both.
		trim: db.Stmt(`DELETE FROM roomserver_staged WHERE event_id IN (SELECT event_id FROM roomserver_staged WHERE room_id = $1 AND origin = $2
			ORDER BY received DESC LIMIT 1000000 OFFSET $3)`),
		waiting:   db.Stmt(`SELECT event_id, missing FROM roomserver_staged WHERE room_id = $1 ORDER BY received, event_id`),
		stagedPDU: db.Stmt(`SELECT event_id, room_id, version, origin, received, missing, json FROM roomserver_staged WHERE event_id = ANY($1) ORDER BY received, event_id`),
		unstage:   db.Stmt(`DELETE FROM roomserver_staged WHERE event_id = ANY($1)`),
	}
}

// Stage stores PDUs that cannot be checked yet, each at most once. Of one origin a room has at most keep of them: more push the oldest
// out.
func (s *Storage) Stage(ctx context.Context, tx *sqlutil.Tx, all []Staged, keep int) error {
	rows := make([][]any, len(all))
	type source struct {
		room   id.RoomID
		origin id.ServerName
	}
	sources := make(map[source]bool)
	for i, p := range all {
		missing, err := json.Marshal(p.Missing)
		if err != nil {
			return err
		}
		rows[i] = []any{p.EventID, p.RoomID, p.Version, p.Origin, p.Received, string(missing), p.JSON}
		sources[source{p.RoomID, p.Origin}] = true
	}
	if _, err := s.stage.Exec(ctx, tx, rows); err != nil {
		return err
	}
	for from := range sources {
		if _, err := s.trim.Exec(ctx, tx, from.room, from.origin, keep); err != nil {
			return err
		}
	}
	return nil
}

// Unstage removes PDUs that have been taken in.
func (s *Storage) Unstage(ctx context.Context, tx *sqlutil.Tx, ids []id.EventID) error {
	_, err := s.unstage.Exec(ctx, tx, sqlutil.Array(ids))
	return err
}

// WaitingPDUs lists what waits in a room, in the order in which it came.
func (s *Storage) WaitingPDUs(ctx context.Context, roomID id.RoomID) (all []Waiting, err error) {
	err = s.DB.ReadOne(ctx, "waiting", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.waiting.Query(ctx, tx, roomID)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (w Waiting, err error) {
			var missing []byte
			if err = rows.Scan(&w.EventID, &missing); err == nil {
				err = json.Unmarshal(missing, &w.Missing)
			}
			return w, err
		})
		return err
	})
	return all, err
}

// StagedPDUs reads those of the PDUs that are staged, in the order in which they came.
func (s *Storage) StagedPDUs(ctx context.Context, ids []id.EventID) (all []Staged, err error) {
	err = s.DB.ReadOne(ctx, "staged", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.stagedPDU.Query(ctx, tx, sqlutil.Array(ids))
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
