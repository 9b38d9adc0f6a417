package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Backup is a row of clientapi_backups.
type Backup struct {
	Version   int64
	NID       int64 // names its keys
	Algorithm string
	AuthData  json.RawMessage
	ETag      int64
	Sessions  int64 // how many keys it has
	Bytes     int64 // of their session data
	// OtherSessions and OtherBytes are those of the user's other backups. Only LockLatest knows them.
	OtherSessions, OtherBytes int64
}

type backupStatements struct {
	nextBackup, insertBackup, surplusBackup, oneBackup, latestBackup, lockBackup, lockLatest, updateBackup, moveBackup,
	emptyBackup, deleteBackup, deleteBackups, deleteVersions, lastVersion *sqlutil.Stmt
	insertSweep, selectSweep, deleteSweep *sqlutil.Stmt
}

func prepareBackups(db *sqlutil.DB) backupStatements {
	selected := `SELECT version, nid, algorithm, auth_data, etag, sessions, bytes FROM clientapi_backups
		WHERE user_id = $1 `
	return backupStatements{
		nextBackup: db.Stmt(`INSERT INTO clientapi_backup_versions (user_id, last) VALUES ($1, 1) ON CONFLICT (user_id)
			DO UPDATE SET last = clientapi_backup_versions.last + 1 RETURNING last`),
		insertBackup: db.Stmt(`INSERT INTO clientapi_backups (user_id, version, nid, algorithm, auth_data)
			VALUES ($1, $2, $3, $4, $5)`),
		surplusBackup: db.Stmt(`SELECT version FROM clientapi_backups WHERE user_id = $1
			ORDER BY version DESC LIMIT 1 OFFSET $2`),
		oneBackup:    db.Stmt(selected + `AND version = $2`),
		latestBackup: db.Stmt(selected + `ORDER BY version DESC LIMIT 1`),
		lockBackup:   db.Stmt(selected + `AND version = $2 FOR UPDATE`),
		lockLatest: db.Stmt(`SELECT version, nid, algorithm, auth_data, etag, sessions, bytes,
				(SELECT COALESCE(SUM(sessions), 0)::bigint FROM clientapi_backups other
					WHERE other.user_id = $1 AND other.version < $2),
				(SELECT COALESCE(SUM(bytes), 0)::bigint FROM clientapi_backups other
					WHERE other.user_id = $1 AND other.version < $2)
			FROM clientapi_backups WHERE user_id = $1 AND version = $2 AND NOT EXISTS (
				SELECT 1 FROM clientapi_backups newer WHERE newer.user_id = $1 AND newer.version > $2) FOR UPDATE`),
		updateBackup: db.Stmt(`UPDATE clientapi_backups SET auth_data = $4
			WHERE user_id = $1 AND version = $2 AND algorithm = $3`),
		moveBackup: db.Stmt(`UPDATE clientapi_backups SET etag = etag + 1, sessions = sessions + $5, bytes = bytes + $6
			WHERE user_id = $1 AND version = $2 AND nid = $3 AND etag = $4 RETURNING etag, sessions`),
		emptyBackup: db.Stmt(`UPDATE clientapi_backups SET nid = $4, etag = etag + 1, sessions = 0, bytes = 0
			WHERE user_id = $1 AND version = $2 AND nid = $3 RETURNING etag, sessions`),
		deleteBackup:   db.Stmt(`DELETE FROM clientapi_backups WHERE user_id = $1 AND version = $2 RETURNING nid`),
		deleteBackups:  db.Stmt(`DELETE FROM clientapi_backups WHERE user_id = $1 RETURNING nid`),
		deleteVersions: db.Stmt(`DELETE FROM clientapi_backup_versions WHERE user_id = $1`),
		lastVersion:    db.Stmt(`SELECT last FROM clientapi_backup_versions WHERE user_id = $1`),
		insertSweep:    db.Stmt(`INSERT INTO clientapi_backup_sweeps (nid) VALUES ($1)`),
		selectSweep:    db.Stmt(`SELECT nid FROM clientapi_backup_sweeps ORDER BY nid LIMIT 1`),
		deleteSweep:    db.Stmt(`DELETE FROM clientapi_backup_sweeps WHERE nid = $1`),
	}
}

func scanBackup(row *sqlutil.Row) (*Backup, error) { return scanInto(new(Backup), row) }

func scanInto(b *Backup, row *sqlutil.Row, more ...any) (*Backup, error) {
	var authData string
	err := row.Scan(append([]any{&b.Version, &b.NID, &b.Algorithm, &authData, &b.ETag, &b.Sessions, &b.Bytes},
		more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	b.AuthData = json.RawMessage(authData)
	return b, err
}

// InsertBackup gives a backup the user's next version and adds it without keys.
func (s *Store) InsertBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *Backup) error {
	if err := s.nextBackup.QueryRow(ctx, tx, user).Scan(&b.Version); err != nil {
		return err
	}
	_, err := s.insertBackup.Exec(ctx, tx, user, b.Version, b.NID, b.Algorithm, string(b.AuthData))
	return err
}

// Backup returns one version of a user's backups; nil if it is not there.
func (s *Store) Backup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version int64) (*Backup, error) {
	return scanBackup(s.oneBackup.QueryRow(ctx, tx, user, version))
}

// LatestBackup returns the newest of a user's backups; nil if there is none.
func (s *Store) LatestBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*Backup, error) {
	return scanBackup(s.latestBackup.QueryRow(ctx, tx, user))
}

// LockBackup is Backup for who changes its keys: in Postgres one after the other.
func (s *Store) LockBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version int64) (*Backup, error) {
	return scanBackup(s.lockBackup.QueryRow(ctx, tx, user, version))
}

// LockLatest is LockBackup for a version that must be the newest; nil also if it is not.
func (s *Store) LockLatest(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version int64) (*Backup, error) {
	b := new(Backup)
	return scanInto(b, s.lockLatest.QueryRow(ctx, tx, user, version), &b.OtherSessions, &b.OtherBytes)
}

// SurplusBackup is the newest of a user's versions beyond so many; 0 if there is none.
func (s *Store) SurplusBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID,
	most int) (version int64, err error) {
	err = s.surplusBackup.QueryRow(ctx, tx, user, most).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, err
}

// UpdateBackup replaces a backup's auth_data. It is false if the backup is not there or has another algorithm.
func (s *Store) UpdateBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *Backup) (bool, error) {
	n, err := s.updateBackup.Exec(ctx, tx, user, b.Version, b.Algorithm, string(b.AuthData))
	return n == 1, err
}

// MoveBackup counts what has changed of a backup's keys, and gives it another ETag. It is false if the backup is gone,
// or its keys have changed since it was read.
func (s *Store) MoveBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *Backup,
	sessions, bytes int64) (bool, error) {
	return moved(s.moveBackup.QueryRow(ctx, tx, user, b.Version, b.NID, b.ETag, sessions, bytes), b)
}

// EmptyBackup has a backup begin anew with no keys, under another nid. It is false if the backup is gone.
func (s *Store) EmptyBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, b *Backup, nid int64) (bool, error) {
	is, err := moved(s.emptyBackup.QueryRow(ctx, tx, user, b.Version, b.NID, nid), b)
	if err != nil || !is {
		return is, err
	}
	_, err = s.insertSweep.Exec(ctx, tx, b.NID)
	return true, err
}

func moved(row *sqlutil.Row, b *Backup) (bool, error) {
	err := row.Scan(&b.ETag, &b.Sessions)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// DeleteBackup removes a backup and leaves its keys to be swept. It is false if the backup is not there.
func (s *Store) DeleteBackup(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version int64) (bool, error) {
	rows, err := s.deleteBackup.Query(ctx, tx, user, version)
	nids, err := sqlutil.Collect(rows, err, scanOne[int64])
	if err != nil {
		return false, err
	}
	return len(nids) > 0, s.sweepLater(ctx, tx, nids)
}

// DeleteBackups removes all that there is of a user's backups, but for the keys, which are swept.
func (s *Store) DeleteBackups(ctx context.Context, tx *sqlutil.Tx, user id.UserID) error {
	if _, err := s.deleteVersions.Exec(ctx, tx, user); err != nil { // it waits for who creates one
		return err
	}
	rows, err := s.deleteBackups.Query(ctx, tx, user)
	nids, err := sqlutil.Collect(rows, err, scanOne[int64])
	if err != nil {
		return err
	}
	return s.sweepLater(ctx, tx, nids)
}

func (s *Store) sweepLater(ctx context.Context, tx *sqlutil.Tx, nids []int64) error {
	for _, nid := range nids {
		if _, err := s.insertSweep.Exec(ctx, tx, nid); err != nil {
			return err
		}
	}
	return nil
}

// LastVersion is the highest version that a user's backups ever had; 0 if there was none.
func (s *Store) LastVersion(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (version int64, err error) {
	err = s.lastVersion.QueryRow(ctx, tx, user).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, err
}

// NextSweep names keys that are still to be deleted. It is false if there are none.
func (s *Store) NextSweep(ctx context.Context, tx *sqlutil.Tx) (nid int64, is bool, err error) {
	err = s.selectSweep.QueryRow(ctx, tx).Scan(&nid)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return nid, err == nil, err
}

// DeleteSweep notes that there are no keys of this name any more.
func (s *Store) DeleteSweep(ctx context.Context, tx *sqlutil.Tx, nid int64) error {
	_, err := s.deleteSweep.Exec(ctx, tx, nid)
	return err
}
