package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Token is an access token and the refresh token that came with it, both by their hashes.
type Token struct {
	AccessHash  []byte
	RefreshHash []byte // nil: none
	RefreshUsed bool
	UserID      id.UserID
	DeviceID    id.DeviceID
	CreatedMS   int64
	ExpiresMS   int64  // of the access token; 0: never
	Parent      []byte // the access hash of the row that was refreshed into this one, until this one is used
	Plain       bool   // the rights of an administrator do not come with it
}

// Expired tells whether the access token has ended.
func (t *Token) Expired(nowMS int64) bool { return t.ExpiresMS != 0 && t.ExpiresMS <= nowMS }

// TokenOwner is a token with what of its account decides about it.
type TokenOwner struct {
	Token
	Admin, Guest, Locked, Suspended bool
}

type tokenStatements struct {
	insertToken, selectToken, selectRefresh, useRefresh, confirmToken, deleteChildren, deleteTokens, deleteOtherTokens,
	deleteExpired, deleteSurplusTokens *sqlutil.Stmt
}

func prepareTokens(db *sqlutil.DB) tokenStatements {
	return tokenStatements{
		insertToken: db.Stmt(`INSERT INTO clientapi_tokens (access_hash, refresh_hash, user_id, device_id, created_ms, expires_ms, parent, plain)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`),
		selectToken: db.Stmt(`SELECT t.access_hash, t.refresh_hash, t.refresh_used, t.user_id, t.device_id, t.created_ms, t.expires_ms,
			t.parent, t.plain, a.admin, a.guest, a.locked, a.suspended FROM clientapi_tokens t JOIN clientapi_accounts a ON a.user_id = t.user_id
			WHERE t.access_hash = $1 AND a.deactivated = FALSE`),
		selectRefresh: db.Stmt(`SELECT t.access_hash, t.refresh_hash, t.refresh_used, t.user_id, t.device_id, t.created_ms, t.expires_ms,
			t.parent, t.plain, a.admin, a.guest, a.locked, a.suspended FROM clientapi_tokens t JOIN clientapi_accounts a ON a.user_id = t.user_id
			WHERE t.refresh_hash = $1 AND a.deactivated = FALSE FOR UPDATE`),
		useRefresh:        db.Stmt(`UPDATE clientapi_tokens SET refresh_used = TRUE WHERE access_hash = $1`),
		confirmToken:      db.Stmt(`UPDATE clientapi_tokens SET parent = NULL WHERE access_hash = $1`),
		deleteChildren:    db.Stmt(`DELETE FROM clientapi_tokens WHERE parent = $1`),
		deleteTokens:      db.Stmt(`DELETE FROM clientapi_tokens WHERE user_id = $1 AND device_id = ANY($2)`),
		deleteOtherTokens: db.Stmt(`DELETE FROM clientapi_tokens WHERE user_id = $1 AND device_id <> $2`),
		deleteExpired: db.Stmt(`DELETE FROM clientapi_tokens WHERE user_id = $1 AND device_id = $2 AND refresh_used = TRUE
			AND expires_ms <> 0 AND expires_ms < $3`),
		deleteSurplusTokens: db.Stmt(`DELETE FROM clientapi_tokens WHERE access_hash IN (
			SELECT access_hash FROM clientapi_tokens
			WHERE user_id = $1 AND device_id = $2 AND refresh_used = TRUE
			ORDER BY created_ms DESC, access_hash LIMIT 1000000 OFFSET $3)`),
	}
}

// InsertToken adds a pair of tokens.
func (s *Store) InsertToken(ctx context.Context, tx *sqlutil.Tx, t Token) error {
	_, err := s.insertToken.Exec(ctx, tx, t.AccessHash, nullable(t.RefreshHash), t.UserID, t.DeviceID, t.CreatedMS, t.ExpiresMS,
		nullable(t.Parent), t.Plain)
	return err
}

// nullable keeps a driver from taking nil for an empty value.
func nullable(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// TokenByAccess finds an access token of an active account; nil if there is none.
func (s *Store) TokenByAccess(ctx context.Context, tx *sqlutil.Tx, hash []byte) (*TokenOwner, error) {
	return scanToken(s.selectToken.QueryRow(ctx, tx, hash))
}

// TokenByRefresh finds a refresh token of an active account, for a transaction that uses it; nil if there is none.
func (s *Store) TokenByRefresh(ctx context.Context, tx *sqlutil.Tx, hash []byte) (*TokenOwner, error) {
	return scanToken(s.selectRefresh.QueryRow(ctx, tx, hash))
}

func scanToken(row *sqlutil.Row) (*TokenOwner, error) {
	t := new(TokenOwner)
	err := row.Scan(&t.AccessHash, &t.RefreshHash, &t.RefreshUsed, &t.UserID, &t.DeviceID, &t.CreatedMS, &t.ExpiresMS, &t.Parent, &t.Plain,
		&t.Admin, &t.Guest, &t.Locked, &t.Suspended)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return t, err
}

// ConfirmToken notes that a pair which a refresh made is in use: the refresh token of its parent ends with this.
func (s *Store) ConfirmToken(ctx context.Context, tx *sqlutil.Tx, t Token) error {
	if _, err := s.useRefresh.Exec(ctx, tx, t.Parent); err != nil {
		return err
	}
	_, err := s.confirmToken.Exec(ctx, tx, t.AccessHash)
	return err
}

// DeleteChildren removes pairs that a refresh made and that were never used.
func (s *Store) DeleteChildren(ctx context.Context, tx *sqlutil.Tx, parent []byte) error {
	_, err := s.deleteChildren.Exec(ctx, tx, parent)
	return err
}

// DeleteTokens removes all tokens of devices. It returns how many there were.
func (s *Store) DeleteTokens(ctx context.Context, tx *sqlutil.Tx, user id.UserID, devices ...id.DeviceID) (int64, error) {
	return s.deleteTokens.Exec(ctx, tx, user, sqlutil.Array(devices))
}

// DeleteOtherTokens removes all tokens of a user but those of one device. An empty keep keeps none.
func (s *Store) DeleteOtherTokens(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keep id.DeviceID) error {
	_, err := s.deleteOtherTokens.Exec(ctx, tx, user, keep)
	return err
}

// DeleteExpired removes pairs of a device that were refreshed and whose access token ended before a time.
func (s *Store) DeleteExpired(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID, beforeMS int64) error {
	_, err := s.deleteExpired.Exec(ctx, tx, user, device, beforeMS)
	return err
}

// DeleteSurplusTokens removes pairs of a device that were refreshed, but for so many of the newest.
func (s *Store) DeleteSurplusTokens(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID,
	most int) error {
	_, err := s.deleteSurplusTokens.Exec(ctx, tx, user, device, most)
	return err
}
