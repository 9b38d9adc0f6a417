package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type guests struct {
	noteGuestsOut, selectGuestsOut, deleteGuestsOut *sqlutil.Stmt
}

func newGuests(db *sqlutil.DB) guests {
	return guests{
		noteGuestsOut: db.Stmt(`INSERT INTO roomserver_guests_out (room_nid) SELECT room_nid FROM roomserver_summaries
			WHERE room_nid = $1 AND guest_access = 'can_join' ON CONFLICT (room_nid) DO NOTHING`),
		selectGuestsOut: db.Stmt(`SELECT g.room_nid, r.room_id FROM roomserver_guests_out g JOIN roomserver_rooms r ON r.nid = g.room_nid LIMIT $1`),
		deleteGuestsOut: db.Stmt(`DELETE FROM roomserver_guests_out WHERE room_nid = $1`),
	}
}

// GuestsOut is a room that guests must leave.
type GuestsOut struct {
	RoomNID int64
	RoomID  id.RoomID
}

// NoteGuestsOut notes that guests must leave a room, if it lets guests in by its summary as it is before this transaction's.
func (s *Storage) NoteGuestsOut(ctx context.Context, tx *sqlutil.Tx, roomNID int64) error {
	_, err := s.noteGuestsOut.Exec(ctx, tx, roomNID)
	return err
}

// RoomsGuestsMustLeave lists rooms that are noted, at most limit.
func (s *Storage) RoomsGuestsMustLeave(ctx context.Context, limit int) (all []GuestsOut, err error) {
	err = s.DB.ReadOne(ctx, "rooms that guests must leave", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectGuestsOut.Query(ctx, tx, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (g GuestsOut, err error) { return g, rows.Scan(&g.RoomNID, &g.RoomID) })
		return err
	})
	return all, err
}

// GuestsLeft notes that no guests are in a room.
func (s *Storage) GuestsLeft(ctx context.Context, roomNID int64) error {
	return s.DB.Write(ctx, "guests left", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := s.deleteGuestsOut.Exec(ctx, tx, roomNID)
		return err
	})
}
