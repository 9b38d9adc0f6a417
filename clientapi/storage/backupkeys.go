package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// BackupKey is the key of a session in a backup.
type BackupKey struct {
	RoomID            id.RoomID
	SessionID         string
	IsVerified        bool
	FirstMessageIndex int64
	ForwardedCount    int64
	SessionData       json.RawMessage
}

// BackupChange is what a write has made of a backup's keys.
type BackupChange struct {
	Changed  bool
	Sessions int64 // how many keys there are more
	Bytes    int64 // by how many the session data grew
}

type backupKeyStatements struct {
	putBackupKeys                                            *sqlutil.Insert
	oneBackupKey, pageBackupKeys, pageRoomKeys, roomKeySizes *sqlutil.Stmt
	deleteKey, deleteRoom, endSweep, sweepKeys, sweepRest    *sqlutil.Stmt
}

func prepareBackupKeys(db *sqlutil.DB) backupKeyStatements {
	selected := `SELECT room_id, session_id, is_verified, first_message_index, forwarded_count, session_data
		FROM clientapi_backup_keys WHERE nid = $1 `
	return backupKeyStatements{
		// The better key stays (Client-Server API, § Backup algorithm): one that is verified, else one of the lower
		// first_message_index, else one of the lower forwarded_count. false is less than true.
		putBackupKeys: db.Insert("clientapi_backup_keys", []string{"nid", "room_id", "session_id", "is_verified",
			"first_message_index", "forwarded_count", "session_data", "replaced"},
			`ON CONFLICT (nid, room_id, session_id) DO UPDATE SET is_verified = excluded.is_verified,
				first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
				session_data = excluded.session_data, replaced = OCTET_LENGTH(clientapi_backup_keys.session_data)
			WHERE (NOT excluded.is_verified, excluded.first_message_index, excluded.forwarded_count)
				< (NOT clientapi_backup_keys.is_verified, clientapi_backup_keys.first_message_index,
					clientapi_backup_keys.forwarded_count)
			RETURNING replaced, OCTET_LENGTH(session_data)`),
		oneBackupKey: db.Stmt(selected + `AND room_id = $2 AND session_id = $3`),
		pageBackupKeys: db.Stmt(selected + `AND (room_id, session_id) > ($2, $3)
			ORDER BY room_id, session_id LIMIT $4`),
		pageRoomKeys: db.Stmt(selected + `AND room_id = $2 AND session_id > $3 ORDER BY session_id LIMIT $4`),
		roomKeySizes: db.Stmt(`SELECT session_id, OCTET_LENGTH(session_data) FROM clientapi_backup_keys
			WHERE nid = $1 AND room_id = $2 ORDER BY session_id LIMIT $3`),
		deleteKey: db.Stmt(`DELETE FROM clientapi_backup_keys WHERE nid = $1 AND room_id = $2 AND session_id = $3
			RETURNING OCTET_LENGTH(session_data)`),
		deleteRoom: db.Stmt(`DELETE FROM clientapi_backup_keys WHERE nid = $1 AND room_id = $2 AND session_id <= $3`),
		endSweep: db.Stmt(`SELECT room_id, session_id FROM clientapi_backup_keys WHERE nid = $1
			ORDER BY room_id, session_id LIMIT 1 OFFSET $2`),
		sweepKeys: db.Stmt(`DELETE FROM clientapi_backup_keys WHERE nid = $1 AND (room_id, session_id) < ($2, $3)`),
		sweepRest: db.Stmt(`DELETE FROM clientapi_backup_keys WHERE nid = $1`),
	}
}

// PutBackupKeys adds the keys, no two of one session, of which the backup has none that is as good.
func (s *Store) PutBackupKeys(ctx context.Context, tx *sqlutil.Tx, nid int64, keys []BackupKey) (BackupChange, error) {
	rows := make([][]any, len(keys))
	for i := range keys {
		k := &keys[i]
		rows[i] = []any{nid, k.RoomID, k.SessionID, k.IsVerified, k.FirstMessageIndex, k.ForwardedCount,
			string(k.SessionData), 0}
	}
	var c BackupChange
	err := s.putBackupKeys.Query(ctx, tx, rows, func(rows *sql.Rows) error {
		var before, after int64
		if err := rows.Scan(&before, &after); err != nil {
			return err
		}
		c.Changed = true
		c.Bytes += after - before
		if before == 0 {
			c.Sessions++
		}
		return nil
	})
	return c, err
}

func scanBackupKey(row interface{ Scan(...any) error }) (k BackupKey, err error) {
	var data string
	err = row.Scan(&k.RoomID, &k.SessionID, &k.IsVerified, &k.FirstMessageIndex, &k.ForwardedCount, &data)
	k.SessionData = json.RawMessage(data)
	return k, err
}

// BackupKey returns the key of a session; nil if there is none.
func (s *Store) BackupKey(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID,
	session string) (*BackupKey, error) {
	k, err := scanBackupKey(s.oneBackupKey.QueryRow(ctx, tx, nid, room, session))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &k, err
}

// BackupKeys returns the next keys after a session of a room, in the order of rooms and sessions.
func (s *Store) BackupKeys(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID, session string,
	limit int) ([]BackupKey, error) {
	rows, err := s.pageBackupKeys.Query(ctx, tx, nid, room, session, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (BackupKey, error) { return scanBackupKey(rows) })
}

// RoomBackupKeys is BackupKeys within one room.
func (s *Store) RoomBackupKeys(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID, session string,
	limit int) ([]BackupKey, error) {
	rows, err := s.pageRoomKeys.Query(ctx, tx, nid, room, session, limit)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (BackupKey, error) { return scanBackupKey(rows) })
}

// DeleteBackupKey removes the key of a session.
func (s *Store) DeleteBackupKey(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID,
	session string) (BackupChange, error) {
	rows, err := s.deleteKey.Query(ctx, tx, nid, room, session)
	sizes, err := sqlutil.Collect(rows, err, scanOne[int64])
	return removed(sizes), err
}

// DeleteRoomKeys removes some keys of a room.
func (s *Store) DeleteRoomKeys(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID,
	limit int) (BackupChange, error) {
	last := ""
	rows, err := s.roomKeySizes.Query(ctx, tx, nid, room, limit)
	sizes, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (size int64, err error) {
		return size, rows.Scan(&last, &size)
	})
	if err == nil && len(sizes) > 0 {
		_, err = s.deleteRoom.Exec(ctx, tx, nid, room, last)
	}
	return removed(sizes), err
}

func removed(sizes []int64) BackupChange {
	c := BackupChange{Changed: len(sizes) > 0, Sessions: -int64(len(sizes))}
	for _, size := range sizes {
		c.Bytes -= size
	}
	return c
}

// SweepBackupKeys removes about so many keys that no backup has, and tells whether none of them are left.
func (s *Store) SweepBackupKeys(ctx context.Context, tx *sqlutil.Tx, nid int64, most int) (over bool, err error) {
	var room, session string
	err = s.endSweep.QueryRow(ctx, tx, nid, most).Scan(&room, &session)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = s.sweepRest.Exec(ctx, tx, nid)
		return true, err
	}
	if err == nil {
		_, err = s.sweepKeys.Exec(ctx, tx, nid, room, session)
	}
	return false, err
}
