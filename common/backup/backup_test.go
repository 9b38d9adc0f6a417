package backup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// source is a server with a database, a key and a configuration.
func source(t *testing.T) Source {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	connection := "file:" + at("dendrite.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err == nil {
		err = errors.Join(db.Close(), os.WriteFile(at("key"), []byte("key"), 0o600),
			os.WriteFile(at("config"), []byte("config"), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return Source{ServerName: "test.example", Config: at("config"), Key: at("key"), Media: at("media"),
		Databases: []Database{{Connection: connection}}}
}

// A folder that is there may be the working one, a link, or another file system: none can be replaced by another
// folder.
func TestABackupIsMadeInAFolderThatIsThere(t *testing.T) {
	s := source(t)
	p := NewProgress(t.Context(), io.Discard)
	for _, name := range []string{".", "link", "folder", "new", "new/er/"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if name == "link" || name == "folder" {
				if err := errors.Join(os.Mkdir("folder", 0o700), os.Symlink("folder", "link")); err != nil {
					t.Fatal(err)
				}
			}
			if err := Write(t.Context(), name, s, p); err != nil {
				t.Fatal(err)
			}
			m, err := Read(name)
			if err != nil || len(m.Files) != 3 {
				t.Fatalf("%+v %v", m, err)
			}
			if err := m.Verify(name, p); err != nil {
				t.Error(err)
			}
			if left, err := filepath.Glob("*/*" + unfinished + "*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
			if left, err := filepath.Glob("*" + unfinished + "*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// A restore that has no room, or is broken off, has not touched the database that it was to replace: what is in its log
// stays.
func TestARestoreThatFailsLeavesTheOldDatabase(t *testing.T) {
	to := filepath.Join(t.TempDir(), "dendrite.db")
	all := []string{to, to + "-wal", to + "-shm"}
	for _, file := range all {
		if err := os.WriteFile(file, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := filepath.Join(t.TempDir(), "database-1.sqlite")
	if err := os.WriteFile(from, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := restoreSQLite(from, to, NewProgress(ended, io.Discard).Stage("", 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("a restore that is not wanted any more: %v", err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err != nil || string(text) != file {
			t.Errorf("%s: %q %v", file, text, err)
		}
	}
	if err := restoreSQLite(from, to, NewProgress(t.Context(), io.Discard).Stage("", 0)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(to))
	if text, read := os.ReadFile(to); err != nil || read != nil || len(entries) != 1 || string(text) != "new" {
		t.Errorf("after a restore: %q %v %v", text, entries, errors.Join(err, read))
	}
}
