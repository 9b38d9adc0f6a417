package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Session is a row of clientapi_sessions.
type Session struct {
	ID        string
	Operation string
	About     string    // what it is for, in words
	Caller    id.UserID // whose request it was begun by; empty: nobody's
	Origin    string    // who has so many sessions at most
	Flows     [][]string
	Completed []string
	UserID    id.UserID // who completed a stage that proves an identity
	CreatedMS int64
}

type sessionStatements struct {
	deleteSurplusSessions, insertSession, selectSession, updateSession, deleteSession, deleteOldSessions *sqlutil.Stmt
}

func prepareSessions(db *sqlutil.DB) sessionStatements {
	return sessionStatements{
		insertSession: db.Stmt(`INSERT INTO clientapi_sessions (session_id, operation, about, caller, origin, flows,
			completed, user_id, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`),
		deleteSurplusSessions: db.Stmt(`DELETE FROM clientapi_sessions WHERE session_id IN (
			SELECT session_id FROM clientapi_sessions
			WHERE origin = $1 AND session_id <> $2 ORDER BY created_ms DESC, session_id LIMIT 1000000 OFFSET $3)`),
		selectSession: db.Stmt(`SELECT session_id, operation, about, caller, flows, completed, user_id, created_ms FROM clientapi_sessions
			WHERE session_id = $1`),
		updateSession:     db.Stmt(`UPDATE clientapi_sessions SET completed = $2, user_id = $3 WHERE session_id = $1`),
		deleteSession:     db.Stmt(`DELETE FROM clientapi_sessions WHERE session_id = $1`),
		deleteOldSessions: db.Stmt(`DELETE FROM clientapi_sessions WHERE created_ms < $1`),
	}
}

// InsertSession adds a session.
func (s *Store) InsertSession(ctx context.Context, tx *sqlutil.Tx, u Session) error {
	flows, err := json.Marshal(u.Flows)
	if err != nil {
		return fmt.Errorf("encode flows: %w", err)
	}
	completed, err := json.Marshal(u.Completed)
	if err != nil {
		return fmt.Errorf("encode stages: %w", err)
	}
	_, err = s.insertSession.Exec(ctx, tx, u.ID, u.Operation, u.About, u.Caller, u.Origin, string(flows),
		string(completed), u.UserID, u.CreatedMS)
	return err
}

// DeleteSurplusSessions removes the oldest sessions of the origin of one, beyond so many; not that one.
func (s *Store) DeleteSurplusSessions(ctx context.Context, tx *sqlutil.Tx, u Session, most int) error {
	_, err := s.deleteSurplusSessions.Exec(ctx, tx, u.Origin, u.ID, most-1)
	return err
}

// Session reads a session; nil if there is none.
func (s *Store) Session(ctx context.Context, tx *sqlutil.Tx, sessionID string) (*Session, error) {
	u := new(Session)
	var flows, completed string
	err := s.selectSession.QueryRow(ctx, tx, sessionID).Scan(&u.ID, &u.Operation, &u.About, &u.Caller, &flows, &completed, &u.UserID, &u.CreatedMS)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(json.Unmarshal([]byte(flows), &u.Flows), json.Unmarshal([]byte(completed), &u.Completed)); err != nil {
		return nil, fmt.Errorf("stages of a session: %w", err)
	}
	return u, nil
}

// UpdateSession writes which stages are completed, and by whom.
func (s *Store) UpdateSession(ctx context.Context, tx *sqlutil.Tx, u Session) error {
	completed, err := json.Marshal(u.Completed)
	if err != nil {
		return fmt.Errorf("encode stages: %w", err)
	}
	_, err = s.updateSession.Exec(ctx, tx, u.ID, string(completed), u.UserID)
	return err
}

// DeleteSession returns false if the session is gone already.
func (s *Store) DeleteSession(ctx context.Context, tx *sqlutil.Tx, sessionID string) (bool, error) {
	n, err := s.deleteSession.Exec(ctx, tx, sessionID)
	return n == 1, err
}

// DeleteOldSessions removes those made before a time.
func (s *Store) DeleteOldSessions(ctx context.Context, tx *sqlutil.Tx, beforeMS int64) error {
	_, err := s.deleteOldSessions.Exec(ctx, tx, beforeMS)
	return err
}
