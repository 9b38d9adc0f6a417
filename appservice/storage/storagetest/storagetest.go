// Package storagetest opens the tables of appservice for tests.
package storagetest

import (
	"path/filepath"
	"testing"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// Each runs a body with the connection string of a new database, on SQLite and on Postgres.
func Each(t *testing.T, body func(t *testing.T, connection string)) {
	t.Run("sqlite", func(t *testing.T) { body(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { body(t, test.Postgres(t)) })
}

// SQLite is the connection string of a new file.
func SQLite(t testing.TB) string { return "file:" + filepath.Join(t.TempDir(), "as.db") }

// Open opens a database, until the test's end.
func Open(t testing.TB, connection string) *storage.Store {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := storage.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return store
}
