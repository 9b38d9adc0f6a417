package sqlutil

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"
)

// pragmas are those of every connection to an SQLite file.
const pragmas = "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)" +
	"&_pragma=foreign_keys(0)&_pragma=temp_store(MEMORY)"

// SQLiteSuffixes are what the names of the files that SQLite keeps beside a database have more.
func SQLiteSuffixes() []string { return []string{"-wal", "-shm"} }

// SQLitePath is the file that a connection string names; is tells whether it is one of SQLite.
func SQLitePath(connection string) (path string, is bool) {
	path, is = strings.CutPrefix(connection, "file:")
	path, _, _ = strings.Cut(path, "?")
	return path, is
}

func (db *DB) openSQLite(ctx context.Context, o Options) error {
	path, _ := SQLitePath(o.ConnectionString)
	if err := db.prepareFile(ctx, path); err != nil {
		return err
	}
	writers, err := sql.Open("sqlite", "file:"+path+pragmas+
		"&_pragma=cache_size(-8000)&_pragma=wal_autocheckpoint(1000)"+
		fmt.Sprintf("&_pragma=journal_size_limit(%d)", walKept))
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	writers.SetMaxOpenConns(1)
	conn, err := writers.Conn(ctx)
	if err == nil {
		err = conn.PingContext(ctx)
	}
	if err != nil {
		return errors.Join(openFailure(path, err), writers.Close())
	}
	if db.pool, err = sql.Open("sqlite",
		"file:"+path+pragmas+"&_pragma=query_only(1)&_pragma=cache_size(-2000)"); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", path, err), writers.Close())
	}
	readers := o.MaxOpenConns
	if readers == 0 {
		readers = 4
	}
	db.pool.SetMaxOpenConns(readers)
	db.pool.SetMaxIdleConns(readers)
	db.writer = newWriter(db, path, writers, conn)
	return nil
}

// openFailure says what can be done about a file that SQLite does not open.
func openFailure(path string, err error) error {
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("open %s: %w: it is damaged, or another kind of file: restore a backup of the database, "+
			"or name the right file", path, err)
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("open %s: %w: the database is damaged: restore a backup of it", path, err)
	}
	return fmt.Errorf("open %s: %w: is the directory there and writable?", path, err)
}

// prepareFile makes the file if there is none, and keeps those that are there from other users' eyes. A file of 0 bytes
// is none that SQLite has left, and whoever takes it for a new database has lost an old one.
func (db *DB) prepareFile(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() == 0:
		return fmt.Errorf("the database %s has 0 bytes, so what it held is lost: restore a backup of it; "+
			"for a new, empty server, remove the file", path)
	case errors.Is(err, fs.ErrNotExist):
		if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
			return fmt.Errorf("the database %s is gone, but its log %[1]s-wal is there: bring the file back, "+
				"or restore a backup of it", path)
		}
		return createSQLite(ctx, path)
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	for _, suffix := range append(SQLiteSuffixes(), "") {
		info, err := os.Stat(path + suffix)
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = os.Chmod(path+suffix, info.Mode().Perm()&0o700)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			db.deps.Log.WithError(err).WithField("file", path+suffix).
				Warn("other users of this machine can read the database")
		}
	}
	return nil
}

// createSQLite makes an empty database for its owner's eyes. It is made under another name, so that nobody sees it with
// 0 bytes. SQLite gives the files beside it the same mode.
func createSQLite(ctx context.Context, path string) error {
	temporary := path + ".new-" + rand.Text()[:8]
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making %s: %w: is the directory there and writable?", path, err)
	}
	err = f.Close()
	if err == nil {
		var db *sql.DB
		if db, err = sql.Open("sqlite", "file:"+temporary+pragmas); err == nil {
			err = errors.Join(db.PingContext(ctx), db.Close())
		}
	}
	if err == nil {
		// A rename would replace what another process has made meanwhile.
		if err = os.Link(temporary, path); err != nil && !errors.Is(err, fs.ErrExist) {
			// There are file systems without links.
			f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err == nil {
				err = f.Close()
			}
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err = errors.Join(err, os.Remove(temporary)); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return nil
}
