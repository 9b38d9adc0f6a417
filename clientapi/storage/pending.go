package storage

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Pending is something that rooms must still hear of a user.
type Pending struct {
	UserID  id.UserID
	What    string
	Version int64 // differs each time that it is put anew
}

type pendingStatements struct {
	putPending, selectPending, selectOldPending, deletePending *sqlutil.Stmt
}

func preparePending(db *sqlutil.DB) pendingStatements {
	return pendingStatements{
		putPending: db.Stmt(`INSERT INTO clientapi_pending (user_id, what, version, since_ms) VALUES ($1, $2, $3, $4)
			ON CONFLICT (user_id, what) DO UPDATE SET version = excluded.version, since_ms = excluded.since_ms`),
		selectPending:    db.Stmt(`SELECT version FROM clientapi_pending WHERE user_id = $1 AND what = $2`),
		selectOldPending: db.Stmt(`SELECT user_id, what, version FROM clientapi_pending WHERE since_ms < $1 ORDER BY since_ms LIMIT $2`),
		deletePending:    db.Stmt(`DELETE FROM clientapi_pending WHERE user_id = $1 AND what = $2 AND version = $3`),
	}
}

// PutPending notes that something must be told.
func (s *Store) PutPending(ctx context.Context, tx *sqlutil.Tx, user id.UserID, what string, now time.Time) error {
	_, err := s.putPending.Exec(ctx, tx, user, what, now.UnixNano(), now.UnixMilli())
	return err
}

// Pending returns what must be told of a user; nil if it is done.
func (s *Store) Pending(ctx context.Context, tx *sqlutil.Tx, user id.UserID, what string) (*Pending, error) {
	p := &Pending{UserID: user, What: what}
	err := s.selectPending.QueryRow(ctx, tx, user, what).Scan(&p.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return p, err
}

// OldPending returns what has been waiting since before a time, oldest first.
func (s *Store) OldPending(ctx context.Context, tx *sqlutil.Tx, beforeMS int64, limit int) ([]Pending, error) {
	rows, err := s.selectOldPending.Query(ctx, tx, beforeMS, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (p Pending, err error) {
		err = rows.Scan(&p.UserID, &p.What, &p.Version)
		return p, err
	})
}

// DeletePending notes that what was pending is told, unless it has been put anew since.
func (s *Store) DeletePending(ctx context.Context, tx *sqlutil.Tx, p Pending) error {
	_, err := s.deletePending.Exec(ctx, tx, p.UserID, p.What, p.Version)
	return err
}
