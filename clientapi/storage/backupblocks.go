package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// BackupBlock is some sessions of a room in a backup.
type BackupBlock struct {
	RoomID   id.RoomID
	Number   int64  // counts up within the room
	Ranks    []byte // which sessions these are, and how good their keys are
	Sessions []byte // the sessions with their keys, as they are answered
}

type backupBlockStatements struct {
	putBlocks                                                      *sqlutil.Insert
	blockRanks, roomRanks, ranksOf, oneBlock, pageBlocks, pageRoom *sqlutil.Stmt
	appendBlock, replaceBlock, dropBlock, dropBlocks               *sqlutil.Stmt
	endSweep, sweepBlocks, sweepRest                               *sqlutil.Stmt
}

func prepareBackupBlocks(db *sqlutil.DB) backupBlockStatements {
	const one = `WHERE nid = $1 AND room_id = $2 AND block = $3`
	return backupBlockStatements{
		putBlocks: db.Insert("clientapi_backup_blocks", []string{"nid", "room_id", "block", "ranks", "sessions"},
			`ON CONFLICT (nid, room_id, block) DO NOTHING`),
		blockRanks: db.Stmt(`SELECT room_id, block, ranks FROM clientapi_backup_blocks
			WHERE nid = $1 AND room_id = ANY($2) ORDER BY room_id, block`),
		roomRanks: db.Stmt(`SELECT room_id, block, ranks FROM clientapi_backup_blocks
			WHERE nid = $1 AND room_id = $2 ORDER BY block LIMIT $3`),
		ranksOf: db.Stmt(`SELECT b.nid, COALESCE(k.block, 0), k.ranks
			FROM clientapi_backups b LEFT JOIN clientapi_backup_blocks k ON k.nid = b.nid AND k.room_id = $3
			WHERE b.user_id = $1 AND b.version = $2 ORDER BY k.block`),
		oneBlock: db.Stmt(`SELECT sessions FROM clientapi_backup_blocks ` + one),
		pageBlocks: db.Stmt(`SELECT room_id, block, sessions FROM clientapi_backup_blocks
			WHERE nid = $1 AND (room_id, block) > ($2, $3) ORDER BY room_id, block LIMIT $4`),
		pageRoom: db.Stmt(`SELECT room_id, block, sessions FROM clientapi_backup_blocks
			WHERE nid = $1 AND room_id = $2 AND block > $3 ORDER BY block LIMIT $4`),
		appendBlock: db.Stmt(`UPDATE clientapi_backup_blocks SET ranks = $4, sessions = CAST(sessions || $5 AS BYTEA) ` +
			one),
		replaceBlock: db.Stmt(`UPDATE clientapi_backup_blocks SET ranks = $4, sessions = $5 ` + one),
		dropBlock:    db.Stmt(`DELETE FROM clientapi_backup_blocks ` + one),
		dropBlocks:   db.Stmt(`DELETE FROM clientapi_backup_blocks WHERE nid = $1 AND room_id = $2 AND block <= $3`),
		endSweep: db.Stmt(`SELECT room_id, block FROM clientapi_backup_blocks WHERE nid = $1
			ORDER BY room_id, block LIMIT 1 OFFSET $2`),
		sweepBlocks: db.Stmt(`DELETE FROM clientapi_backup_blocks WHERE nid = $1 AND (room_id, block) < ($2, $3)`),
		sweepRest:   db.Stmt(`DELETE FROM clientapi_backup_blocks WHERE nid = $1`),
	}
}

// PutBackupBlocks adds blocks. It is false where one of them is there already.
func (s *Store) PutBackupBlocks(ctx context.Context, tx *sqlutil.Tx, nid int64, blocks []BackupBlock) (bool, error) {
	rows := make([][]any, len(blocks))
	for i := range blocks {
		b := &blocks[i]
		rows[i] = []any{nid, b.RoomID, b.Number, b.Ranks, b.Sessions}
	}
	n, err := s.putBlocks.Exec(ctx, tx, rows)
	return n == int64(len(blocks)), err
}

// BackupRanks returns the blocks of some rooms without their sessions, in the order of rooms and numbers.
func (s *Store) BackupRanks(ctx context.Context, tx *sqlutil.Tx, nid int64, rooms []id.RoomID) ([]BackupBlock, error) {
	rows, err := s.blockRanks.Query(ctx, tx, nid, sqlutil.Array(rooms))
	return sqlutil.Collect(rows, err, scanRanks)
}

// RoomRanks is BackupRanks for the first blocks of one room.
func (s *Store) RoomRanks(ctx context.Context, tx *sqlutil.Tx, nid int64, room id.RoomID,
	limit int) ([]BackupBlock, error) {
	rows, err := s.roomRanks.Query(ctx, tx, nid, room, limit)
	return sqlutil.Collect(rows, err, scanRanks)
}

// RanksOf returns the blocks of a room in a version of a user's backups, without their sessions, and the nid; 0 if
// there is no such version.
func (s *Store) RanksOf(ctx context.Context, tx *sqlutil.Tx, user id.UserID, version int64,
	room id.RoomID) (nid int64, blocks []BackupBlock, err error) {
	rows, err := s.ranksOf.Query(ctx, tx, user, version, room)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (is struct{}, err error) {
		b := BackupBlock{RoomID: room}
		if err = rows.Scan(&nid, &b.Number, &b.Ranks); b.Number > 0 {
			blocks = append(blocks, b)
		}
		return is, err
	})
	return nid, blocks, err
}

func scanRanks(rows *sql.Rows) (b BackupBlock, err error) {
	return b, rows.Scan(&b.RoomID, &b.Number, &b.Ranks)
}

// BackupSessions returns the sessions of a block that is there.
func (s *Store) BackupSessions(ctx context.Context, tx *sqlutil.Tx, nid int64,
	b *BackupBlock) (text []byte, err error) {
	return text, s.oneBlock.QueryRow(ctx, tx, nid, b.RoomID, b.Number).Scan(&text)
}

// BackupBlocks visits the next blocks after one, which need not be there, in the order of rooms and numbers: those of
// its room, or of all rooms. It returns how many there were. The sessions are gone when visit has returned.
func (s *Store) BackupBlocks(ctx context.Context, tx *sqlutil.Tx, nid int64, after BackupBlock, inRoom bool, limit int,
	visit func(b BackupBlock)) (n int, err error) {
	page := s.pageBlocks
	if inRoom {
		page = s.pageRoom
	}
	rows, err := page.Query(ctx, tx, nid, after.RoomID, after.Number, limit)
	all, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (is struct{}, err error) {
		var b BackupBlock
		if err = rows.Scan(&b.RoomID, &b.Number, (*sql.RawBytes)(&b.Sessions)); err == nil {
			visit(b)
		}
		return is, err
	})
	return len(all), err
}

// AppendToBlock adds sessions at the end of a block, and gives it other ranks.
func (s *Store) AppendToBlock(ctx context.Context, tx *sqlutil.Tx, nid int64, b *BackupBlock, sessions []byte) error {
	_, err := s.appendBlock.Exec(ctx, tx, nid, b.RoomID, b.Number, b.Ranks, sessions)
	return err
}

// ReplaceBlock gives a block other sessions.
func (s *Store) ReplaceBlock(ctx context.Context, tx *sqlutil.Tx, nid int64, b *BackupBlock) error {
	_, err := s.replaceBlock.Exec(ctx, tx, nid, b.RoomID, b.Number, b.Ranks, b.Sessions)
	return err
}

// DropBlock removes a block.
func (s *Store) DropBlock(ctx context.Context, tx *sqlutil.Tx, nid int64, b *BackupBlock) error {
	_, err := s.dropBlock.Exec(ctx, tx, nid, b.RoomID, b.Number)
	return err
}

// DropBlocks removes the blocks of a room up to one.
func (s *Store) DropBlocks(ctx context.Context, tx *sqlutil.Tx, nid int64, last *BackupBlock) error {
	_, err := s.dropBlocks.Exec(ctx, tx, nid, last.RoomID, last.Number)
	return err
}

// SweepBackupBlocks removes some blocks that no backup has, and tells whether none of them are left.
func (s *Store) SweepBackupBlocks(ctx context.Context, tx *sqlutil.Tx, nid int64, most int) (over bool, err error) {
	var end BackupBlock
	err = s.endSweep.QueryRow(ctx, tx, nid, most).Scan(&end.RoomID, &end.Number)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = s.sweepRest.Exec(ctx, tx, nid)
		return true, err
	}
	if err == nil {
		_, err = s.sweepBlocks.Exec(ctx, tx, nid, end.RoomID, end.Number)
	}
	return false, err
}
