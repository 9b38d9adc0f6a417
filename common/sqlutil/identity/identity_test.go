package identity_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
	"github.com/matrix-org/dendrite/common/test"
)

func eachDatabase(t *testing.T, body func(t *testing.T, open func() *sqlutil.DB)) {
	for name, connection := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "a.db") },
		"postgres": func(t *testing.T) string { return test.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			url := connection(t)
			body(t, func() *sqlutil.DB {
				db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = db.Close() })
				return db
			})
		})
	}
}

func TestADatabaseKeepsItsServer(t *testing.T) {
	eachDatabase(t, func(t *testing.T, open func() *sqlutil.DB) {
		db := open()
		foreign := func(user string) identity.ForeignUser {
			return func(context.Context, *sqlutil.DB, id.ServerName) (string, error) { return user, nil }
		}
		if err := identity.Claim(t.Context(), db, "two.org", foreign(""),
			foreign("@al:one.org")); !errors.Is(err, identity.ErrAnotherServer) {
			t.Errorf("a database with another server's users: %v", err)
		}
		for range 2 {
			if err := identity.Claim(t.Context(), db, "one.org", foreign("")); err != nil {
				t.Fatal(err)
			}
		}
		if err := identity.Claim(t.Context(), open(), "two.org",
			foreign("")); !errors.Is(err, identity.ErrAnotherServer) {
			t.Errorf("another name: %v", err)
		}
	})
}

func TestKeysThatWereUsedAreKept(t *testing.T) {
	eachDatabase(t, func(t *testing.T, open func() *sqlutil.DB) {
		one, two := open(), open() // two replicas
		if err := identity.Claim(t.Context(), one, "one.org"); err != nil {
			t.Fatal(err)
		}
		public := func(n byte) ed25519.PublicKey {
			return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
		}
		use := func(db *sqlutil.DB, keyID string, n byte, current string, all int) {
			t.Helper()
			if err := identity.UseKey(t.Context(), db, keyID, public(n)); err != nil {
				t.Fatal(err)
			}
			// The database's clock has milliseconds: the next key comes in another one.
			for began, now := clock(t, db), int64(0); now <= began; now = clock(t, db) {
			}
			keys, err := identity.Keys(t.Context(), db)
			if err != nil || len(keys) != all || keys[0].ID != current ||
				!bytes.Equal(keys[0].Public, public(keys[0].ID[8]-'a')) {
				t.Fatalf("%v, %v: the current key is not %s of %d", keys, err, current, all)
			}
		}
		use(one, "ed25519:a", 0, "ed25519:a", 1)
		use(two, "ed25519:a", 0, "ed25519:a", 1)
		use(one, "ed25519:b", 1, "ed25519:b", 2)
		use(two, "ed25519:b", 1, "ed25519:b", 2)
		use(one, "ed25519:a", 0, "ed25519:a", 2) // it returns
		if err := identity.NoteKeyUse(t.Context(), two, "ed25519:b"); err != nil {
			t.Fatal(err)
		}
		keys, err := identity.Keys(t.Context(), one)
		if err != nil || keys[0].ID != "ed25519:a" || !keys[1].Used.After(keys[0].Since) {
			t.Errorf("%v, %v: the use of b was not noted, or made it the current one", keys, err)
		}
		if err := identity.UseKey(t.Context(), one, "ed25519:b", public(7)); err == nil {
			t.Error("another key of a known id was taken")
		}
	})
}

// clock is the database's.
func clock(t *testing.T, db *sqlutil.DB) (now int64) {
	t.Helper()
	q := db.Stmt(`SELECT NOW_MS()`)
	err := db.ReadOne(t.Context(), "clock", func(ctx context.Context, tx *sqlutil.Tx) error {
		return q.QueryRow(ctx, tx).Scan(&now)
	})
	if err != nil {
		t.Fatal(err)
	}
	return now
}
