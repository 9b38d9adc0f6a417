package storage

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Delayed is an event that is to be sent later.
type Delayed struct {
	ID       string
	UserID   id.UserID
	DeviceID id.DeviceID
	RoomID   id.RoomID
	Type     string
	StateKey *string
	Content  []byte
	Replaces id.EventID // the state event that it would have replaced when it was asked for
	DelayMS  int64
	SinceMS  int64 // when the delay began
	DueMS    int64
}

type delayedStatements struct {
	insertDelayed, countDelayed, listDelayed, oneDelayed, dueDelayed, nextDelayed, claimDelayed *sqlutil.Stmt
	restartDelayed, releaseDelayed, cancelDelayed, deleteDelayed                                *sqlutil.Stmt
}

const delayedColumns = `id, user_id, device_id, room_id, type, state_key, content, replaces, delay_ms, since_ms, due_ms`

func prepareDelayed(db *sqlutil.DB) delayedStatements {
	selected := `SELECT ` + delayedColumns + ` FROM clientapi_delayed `
	return delayedStatements{
		insertDelayed: db.Stmt(`INSERT INTO clientapi_delayed (` + delayedColumns + `, claimed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, FALSE)
			ON CONFLICT (id) DO NOTHING`),
		countDelayed:   db.Stmt(`SELECT COUNT(*) FROM clientapi_delayed WHERE user_id = $1 AND id <> $2`),
		listDelayed:    db.Stmt(selected + `WHERE user_id = $1 AND NOT claimed ORDER BY since_ms, id`),
		oneDelayed:     db.Stmt(selected + `WHERE id = $1 AND NOT claimed`),
		dueDelayed:     db.Stmt(selected + `WHERE due_ms <= $1 ORDER BY due_ms LIMIT $2`),
		nextDelayed:    db.Stmt(`SELECT COALESCE(MIN(due_ms), $1) FROM clientapi_delayed`),
		claimDelayed:   db.Stmt(`UPDATE clientapi_delayed SET claimed = TRUE WHERE id = $1 AND due_ms = $2`),
		restartDelayed: db.Stmt(`UPDATE clientapi_delayed SET since_ms = $2, due_ms = $2 + delay_ms WHERE id = $1 AND NOT claimed`),
		releaseDelayed: db.Stmt(`UPDATE clientapi_delayed SET claimed = FALSE WHERE id = $1`),
		cancelDelayed:  db.Stmt(`DELETE FROM clientapi_delayed WHERE id = $1 AND NOT claimed`),
		deleteDelayed:  db.Stmt(`DELETE FROM clientapi_delayed WHERE id = $1`),
	}
}

func scanDelayed(row interface{ Scan(...any) error }) (d Delayed, err error) {
	var content string
	if err = row.Scan(&d.ID, &d.UserID, &d.DeviceID, &d.RoomID, &d.Type, &d.StateKey, &content, &d.Replaces, &d.DelayMS, &d.SinceMS, &d.DueMS); err == nil {
		d.Content, err = base64.RawStdEncoding.DecodeString(content)
	}
	return d, err
}

// InsertDelayed adds an event, once: with the id of one that is there it does nothing.
func (s *Store) InsertDelayed(ctx context.Context, tx *sqlutil.Tx, d *Delayed) error {
	_, err := s.insertDelayed.Exec(ctx, tx, d.ID, d.UserID, d.DeviceID, d.RoomID, d.Type, d.StateKey, base64.RawStdEncoding.EncodeToString(d.Content), d.Replaces,
		d.DelayMS, d.SinceMS, d.DueMS)
	return err
}

// CountDelayed counts a user's events, but for the one with an id.
func (s *Store) CountDelayed(ctx context.Context, tx *sqlutil.Tx, user id.UserID, but string) (n int, err error) {
	return n, s.countDelayed.QueryRow(ctx, tx, user, but).Scan(&n)
}

// ListDelayed lists a user's events, oldest first.
func (s *Store) ListDelayed(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Delayed, error) {
	rows, err := s.listDelayed.Query(ctx, tx, user)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Delayed, error) { return scanDelayed(rows) })
}

// OneDelayed reads an event that is not being sent; nil if there is none.
func (s *Store) OneDelayed(ctx context.Context, tx *sqlutil.Tx, delayID string) (*Delayed, error) {
	d, err := scanDelayed(s.oneDelayed.QueryRow(ctx, tx, delayID))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &d, err
}

// DueDelayed lists events that are due, those that are being sent among them.
func (s *Store) DueDelayed(ctx context.Context, tx *sqlutil.Tx, nowMS int64, limit int) ([]Delayed, error) {
	rows, err := s.dueDelayed.Query(ctx, tx, nowMS, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Delayed, error) { return scanDelayed(rows) })
}

// NextDelayed is when the next event is due; otherwise if there is none.
func (s *Store) NextDelayed(ctx context.Context, tx *sqlutil.Tx, otherwise int64) (dueMS int64, err error) {
	return dueMS, s.nextDelayed.QueryRow(ctx, tx, otherwise).Scan(&dueMS)
}

// ClaimDelayed notes that an event is being sent. It is false if it was changed or removed since it was read.
func (s *Store) ClaimDelayed(ctx context.Context, tx *sqlutil.Tx, d *Delayed) (bool, error) {
	n, err := s.claimDelayed.Exec(ctx, tx, d.ID, d.DueMS)
	return n == 1, err
}

// ReleaseDelayed has an event wait again that was to be sent and was not.
func (s *Store) ReleaseDelayed(ctx context.Context, tx *sqlutil.Tx, delayID string) error {
	_, err := s.releaseDelayed.Exec(ctx, tx, delayID)
	return err
}

// RestartDelayed begins the delay of an event anew. It is false if there is none that waits.
func (s *Store) RestartDelayed(ctx context.Context, tx *sqlutil.Tx, delayID string, nowMS int64) (bool, error) {
	n, err := s.restartDelayed.Exec(ctx, tx, delayID, nowMS)
	return n == 1, err
}

// CancelDelayed removes an event. It is false if there is none that waits.
func (s *Store) CancelDelayed(ctx context.Context, tx *sqlutil.Tx, delayID string) (bool, error) {
	n, err := s.cancelDelayed.Exec(ctx, tx, delayID)
	return n == 1, err
}

// DeleteDelayed removes an event that is sent, or that never can be.
func (s *Store) DeleteDelayed(ctx context.Context, tx *sqlutil.Tx, delayID string) error {
	_, err := s.deleteDelayed.Exec(ctx, tx, delayID)
	return err
}
