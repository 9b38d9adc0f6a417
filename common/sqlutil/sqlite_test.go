package sqlutil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openFile(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{ConnectionString: "file:" + path}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// What was written is in the file when a process has closed it, and the file alone is a backup.
func TestAnSQLiteFileIsWholeWhenItIsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := openFile(t, path)
	if err := db.Script(t.Context(), `CREATE TABLE things (id BIGINT PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	insert, count := db.Stmt(`INSERT INTO things (id) VALUES ($1)`), db.Stmt(`SELECT COUNT(*) FROM things`)
	counted := func(db *DB, count *Stmt) (n int) {
		t.Helper()
		if err := db.Read(t.Context(), "count", func(ctx context.Context, tx *Tx) error {
			return count.QueryRow(ctx, tx).Scan(&n)
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 100 {
		err := db.Write(t.Context(), "insert", func(ctx context.Context, tx *Tx) error {
			_, err := insert.Exec(ctx, tx, i)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		counted(db, count)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		t.Errorf("%d bytes are still in the log beside the file", info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "b.db")
	if err := os.WriteFile(backup, data, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := openFile(t, backup)
	defer copied.Close()
	if n := counted(copied, copied.Stmt(`SELECT COUNT(*) FROM things`)); n != 100 {
		t.Errorf("the file alone has %d of 100 rows", n)
	}
}

// While somebody reads one snapshot, the log beside the file grows. It is short again when that has ended.
func TestTheLogBesideAnSQLiteFileIsCutAfterALongReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	db := openFile(t, path)
	defer db.Close()
	if err := db.Script(t.Context(), `CREATE TABLE things (id BIGINT PRIMARY KEY, filler BYTEA NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	insert, count := db.Stmt(`INSERT INTO things (id, filler) VALUES ($1, $2)`), db.Stmt(`SELECT COUNT(*) FROM things`)
	rows := 0
	write := func(groups int) (log int64) {
		t.Helper()
		filler := bytes.Repeat([]byte{1}, 1<<20)
		for range groups {
			rows++
			err := db.Write(t.Context(), "insert", func(ctx context.Context, tx *Tx) error {
				_, err := insert.Exec(ctx, tx, rows, filler)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	err := db.Read(t.Context(), "count", func(ctx context.Context, tx *Tx) error {
		var n int
		err := count.QueryRow(ctx, tx).Scan(&n)
		if log := write(80); log < walLimit {
			t.Errorf("with a reader the log has %d bytes: it proves nothing", log)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if log := write(40); log > walLimit {
		t.Errorf("without a reader the log has %d bytes", log)
	}
}

func TestAnSQLiteFileIsForItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	modes := func() string {
		t.Helper()
		var all []string
		for _, suffix := range []string{"", "-wal", "-shm"} {
			info, err := os.Stat(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%#o", info.Mode().Perm()))
		}
		return strings.Join(all, " ")
	}
	db := openFile(t, path)
	if got := modes(); got != "0600 0600 0600" {
		t.Errorf("a new database has the modes %s", got)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Chmod(path+suffix, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	again := openFile(t, path) // as another process would
	if got := modes(); got != "0600 0600 0600" {
		t.Errorf("an old database has the modes %s", got)
	}
	if err := errors.Join(again.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(path + ".new*"); err != nil || len(left) > 0 {
		t.Errorf("left beside it: %v %v", left, err)
	}
}

func TestAFileThatIsNoDatabaseIsNotTakenForANewOne(t *testing.T) {
	for name, c := range map[string]struct{ file, log, want string }{
		"empty":     {file: "", want: "has 0 bytes"},
		"other":     {file: strings.Repeat("no database ", 1000), want: "restore a backup"},
		"only logs": {log: "frames", want: "bring the file back"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			if c.log != "" {
				if err := os.WriteFile(path+"-wal", []byte(c.log), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			db, err := Open(t.Context(), Options{ConnectionString: "file:" + path}, Deps{})
			if err == nil {
				_ = db.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "writable") {
				t.Errorf("opened with %v", err)
			}
		})
	}
}
