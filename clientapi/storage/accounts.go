package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Account is a row of clientapi_accounts.
type Account struct {
	UserID       id.UserID
	PasswordHash string
	CreatedMS    int64
	Admin        bool
	Guest        bool
	Deactivated  bool
	Locked       bool
	Suspended    bool
}

type accountStatements struct {
	insertAccount, selectAccount, lockAccount, selectActive, selectExisting, updatePassword, renewHash, upgradeGuest, deactivate,
	moderate *sqlutil.Stmt
}

func prepareAccounts(db *sqlutil.DB) accountStatements {
	const account = `SELECT user_id, password_hash, created_ms, admin, guest, deactivated, locked, suspended
		FROM clientapi_accounts WHERE user_id = $1`
	return accountStatements{
		insertAccount: db.Stmt(`INSERT INTO clientapi_accounts (user_id, password_hash, created_ms, admin, guest)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id) DO NOTHING`),
		selectAccount:  db.Stmt(account),
		lockAccount:    db.Stmt(account + ` FOR UPDATE`),
		selectActive:   db.Stmt(`SELECT user_id, guest FROM clientapi_accounts WHERE user_id = ANY($1) AND deactivated = FALSE`),
		selectExisting: db.Stmt(`SELECT user_id FROM clientapi_accounts WHERE user_id = ANY($1)`),
		updatePassword: db.Stmt(`UPDATE clientapi_accounts SET password_hash = $2 WHERE user_id = $1 AND deactivated = FALSE`),
		renewHash: db.Stmt(`UPDATE clientapi_accounts SET password_hash = $3
			WHERE user_id = $1 AND password_hash = $2`),
		upgradeGuest: db.Stmt(`UPDATE clientapi_accounts SET password_hash = $2, guest = FALSE
			WHERE user_id = $1 AND guest = TRUE AND deactivated = FALSE`),
		deactivate: db.Stmt(`UPDATE clientapi_accounts SET password_hash = '', deactivated = TRUE
			WHERE user_id = $1 AND deactivated = FALSE`),
		moderate: db.Stmt(`UPDATE clientapi_accounts SET locked = CASE WHEN $2 = 'locked' THEN $3 ELSE locked END,
			suspended = CASE WHEN $2 = 'suspended' THEN $3 ELSE suspended END WHERE user_id = $1`),
	}
}

// InsertAccount adds an account. It returns false if there is one of this user.
func (s *Store) InsertAccount(ctx context.Context, tx *sqlutil.Tx, a Account) (bool, error) {
	n, err := s.insertAccount.Exec(ctx, tx, a.UserID, a.PasswordHash, a.CreatedMS, a.Admin, a.Guest)
	return n == 1, err
}

// Account returns the account of a user; nil if there is none.
func (s *Store) Account(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*Account, error) {
	return scanAccount(s.selectAccount.QueryRow(ctx, tx, user))
}

// LockAccount is Account, and until the transaction ends the account does not end. It comes before all other rows of
// the user, as it does where an account is ended.
func (s *Store) LockAccount(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*Account, error) {
	return scanAccount(s.lockAccount.QueryRow(ctx, tx, user))
}

func scanAccount(row *sqlutil.Row) (*Account, error) {
	a := new(Account)
	err := row.Scan(&a.UserID, &a.PasswordHash, &a.CreatedMS, &a.Admin, &a.Guest, &a.Deactivated, &a.Locked,
		&a.Suspended)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return a, err
}

// ExistingUsers returns those of the users that have an account, if only one that was deactivated.
func (s *Store) ExistingUsers(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]id.UserID, error) {
	rows, err := s.selectExisting.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, scanOne[id.UserID])
}

// ActiveUsers returns accounts of those of the users that have one and are not deactivated: UserID and Guest.
func (s *Store) ActiveUsers(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]Account, error) {
	rows, err := s.selectActive.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (a Account, err error) { return a, rows.Scan(&a.UserID, &a.Guest) })
}

// UpdatePassword changes the password of an active account. It returns false if there is none.
func (s *Store) UpdatePassword(ctx context.Context, tx *sqlutil.Tx, user id.UserID, hash string) (bool, error) {
	n, err := s.updatePassword.Exec(ctx, tx, user, hash)
	return n == 1, err
}

// RenewHash replaces a hash of a password by another of the same, unless the password was changed.
func (s *Store) RenewHash(ctx context.Context, tx *sqlutil.Tx, user id.UserID, old, hash string) error {
	_, err := s.renewHash.Exec(ctx, tx, user, old, hash)
	return err
}

// UpgradeGuest makes an active guest a user with a password. It returns false if there is no such guest.
func (s *Store) UpgradeGuest(ctx context.Context, tx *sqlutil.Tx, user id.UserID, hash string) (bool, error) {
	n, err := s.upgradeGuest.Exec(ctx, tx, user, hash)
	return n == 1, err
}

// Deactivate ends an account for good. It returns false if there is no active one.
func (s *Store) Deactivate(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (bool, error) {
	n, err := s.deactivate.Exec(ctx, tx, user)
	return n == 1, err
}

// Moderate sets the column locked or suspended of an account.
func (s *Store) Moderate(ctx context.Context, tx *sqlutil.Tx, user id.UserID, column string, is bool) error {
	_, err := s.moderate.Exec(ctx, tx, user, column, is)
	return err
}

func scanOne[T any](rows *sql.Rows) (v T, err error) {
	err = rows.Scan(&v)
	return v, err
}
