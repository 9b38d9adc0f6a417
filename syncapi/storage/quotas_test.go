package storage

import (
	"context"
	"database/sql"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

// A database of before there were quotas gets the right counts, and loses the receipts for events that do not exist,
// but for those by which something is read.
func TestQuotasOfADatabaseFromBefore(t *testing.T) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "sync.db") },
		"postgres": func(t *testing.T) string { return test.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url(t)}, sqlutil.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := db.Migrate(t.Context(), Component, before(t, "007")); err != nil {
				t.Fatal(err)
			}
			err = db.Script(t.Context(), `
				INSERT INTO syncapi_account_data (user_id, room_id, type, pos, content) VALUES
					('@a:x', '', 'x.one', 1, '{}'), ('@a:x', '!r:x', 'x.two', 2, '{"a":"ä"}'), ('@a:x', '!r:x',
						'm.fully_read', 3, '{}'),
					('@a:x', '', 'm.push_rules', 4, '{}'), ('@b:x', '', 'm.push_rules', 5, '{}');
				INSERT INTO syncapi_timeline (room_id, pos, event_id, seg, idx, type, sender, flags, thread,
					root_before, root_after,
					joined, invited, n, h, mn, mh, tn, th)
					VALUES ('!r:x', 1, '$known', 1, 1, 'm', '@a:x', 0, '', '', '', 1, 0, 0, 0, 0, 0, 0, 0);
				INSERT INTO syncapi_receipts (room_id, user_id, type, thread, pos, event_id, seg, idx, place, ts) VALUES
					('!r:x', '@a:x', 'm.read', '', 1, '$bogus', 0, 0, 7, 1), ('!r:x', '@b:x', 'm.read', '', 2, '$bogus',
						0, 0, 0, 1),
					('!r:x', '@a:x', 'm.read', '$t1', 3, '$bogus', 0, 0, 7, 1), ('!r:x', '@a:x', 'm.read', '$t2', 4,
						'$known', 0, 0, 0, 1),
					('!r:x', '@a:x', 'm.read', '$t3', 5, '$old', 1, 0, 1, 1), ('!other:x', '@a:x', 'm.read', 'main', 6,
						'$known', 0, 0, 0, 1)`)
			if err != nil {
				t.Fatal(err)
			}
			d, err := New(t.Context(), db, func(Changes) {})
			if err != nil {
				t.Fatal(err)
			}
			list := func(query string) (all []string) {
				t.Helper()
				err := d.Read(t.Context(), "list", func(ctx context.Context, tx *sqlutil.Tx) error {
					rows, err := db.Stmt(query).Query(ctx, tx)
					all, err = sqlutil.Collect(rows, err,
						func(rows *sql.Rows) (s string, err error) { return s, rows.Scan(&s) })
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				return all
			}
			// Two entries of 128 bytes each beside their names and contents.
			if got := strings.Join(list(`SELECT user_id || ' ' || bytes FROM syncapi_account_data_usage`),
				","); got != "@a:x 282" {
				t.Errorf("what is counted: %s", got)
			}
			if got := strings.Join(list(`SELECT pos FROM syncapi_receipts ORDER BY pos`), " "); got != "1 4 5" {
				t.Errorf("the receipts that are left: %s", got)
			}
		})
	}
}

// before are the migrations before one.
func before(t *testing.T, number string) fs.FS {
	t.Helper()
	all, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	names, err := fs.Glob(all, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	some := make(fstest.MapFS)
	for _, name := range names {
		text, err := fs.ReadFile(all, name)
		if err != nil {
			t.Fatal(err)
		}
		if name < number {
			some[name] = &fstest.MapFile{Data: text}
		}
	}
	return some
}

// A receipt finds those in its thread by their key, however many others the user has.
func TestReceiptsOfAThreadAreFoundByTheirKey(t *testing.T) {
	d := open(t, func(Changes) {})
	plan := d.db.Stmt("EXPLAIN QUERY PLAN " + d.threads.inThread.String())
	err := d.db.ReadOne(t.Context(), "plan", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := plan.Query(ctx, tx, "", "", "")
		steps, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (step string, err error) {
			var id, parent, unused int
			return step, rows.Scan(&id, &parent, &unused, &step)
		})
		if len(steps) != 1 || !strings.Contains(steps[0], "(room_id=? AND user_id=? AND type=? AND thread=?)") {
			t.Errorf("the plan: %q", steps)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
