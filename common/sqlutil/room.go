package sqlutil

import (
	"bytes"
	"context"
	"errors"

	"github.com/lib/pq"
	sqlite3 "modernc.org/sqlite/lib"
)

// hasNoRoom tells whether err is of a database that has no room for more: on its disk, or, for connections, in a
// Postgres.
func hasNoRoom(err error) bool {
	pgErr := new(pq.Error)
	return isUnwritable(err) || errors.As(err, &pgErr) && pgErr.Code.Class() == "53"
}

// isUnwritable tells whether err says that the disk is full, or takes no writes.
func isUnwritable(err error) bool {
	if pgErr := new(pq.Error); errors.As(err, &pgErr) {
		return pgErr.Code == "53100" || pgErr.Code == "58030" || pgErr.Code == "25006"
	}
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY:
		return true
	}
	return false
}

// noteRoom remembers whether the last write had room.
func (db *DB) noteRoom(err error) {
	if none := isUnwritable(err); none != db.unwritable.Load() && (none || err == nil) {
		db.unwritable.Store(none)
	}
}

// probe writes as much as a large event, and takes it away again.
func (db *DB) probe(ctx context.Context) error {
	fill := db.Stmt(`INSERT INTO sqlutil_probe (id, filler) VALUES (1, $1)
		ON CONFLICT (id) DO UPDATE SET filler = excluded.filler`)
	for _, filler := range [][]byte{bytes.Repeat([]byte{'x'}, 64<<10), {}} {
		err := db.Write(ctx, "probe", func(ctx context.Context, tx *Tx) error {
			_, err := fill.Exec(ctx, tx, filler)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
