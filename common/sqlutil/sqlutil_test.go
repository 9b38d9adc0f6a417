package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/txguard"
)

// each runs a test on SQLite, and on Postgres where the environment names one.
func each(t *testing.T, body func(*testing.T, *DB)) {
	t.Run("sqlite", func(t *testing.T) { body(t, open(t, "file:"+filepath.Join(t.TempDir(), "test.db"))) })
	t.Run("postgres", func(t *testing.T) {
		admin := os.Getenv("DENDRITE_TEST_POSTGRES")
		if admin == "" {
			if os.Getenv("DENDRITE_TEST_REQUIRE") == "1" {
				t.Fatal("DENDRITE_TEST_POSTGRES is not set")
			}
			t.Skip("DENDRITE_TEST_POSTGRES is not set")
		}
		db := open(t, admin)
		if err := db.Script(t.Context(), `DROP TABLE IF EXISTS things`); err != nil {
			t.Fatal(err)
		}
		body(t, db)
	})
}

func open(t *testing.T, connection string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{ConnectionString: connection}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

const things = `CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY, n BIGINT NOT NULL, data BYTEA, flag BOOLEAN NOT NULL DEFAULT FALSE)`

func setup(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Script(t.Context(), things); err != nil {
		t.Fatal(err)
	}
}

func put(db *DB, name string, n int) func(context.Context, *Tx) error {
	insert := db.Stmt(`INSERT INTO things (name, n) VALUES ($1, $2)`)
	return func(ctx context.Context, tx *Tx) error {
		_, err := insert.Exec(ctx, tx, name, n)
		return err
	}
}

func names(t *testing.T, db *DB) []string {
	t.Helper()
	query := db.Stmt(`SELECT name FROM things ORDER BY name`)
	var all []string
	err := db.Read(t.Context(), "names", func(ctx context.Context, tx *Tx) error {
		rows, err := query.Query(ctx, tx)
		all, err = Collect(rows, err, func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNothingThatWaitsIsAllowedInATransaction(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		for name, forbidden := range map[string]func(context.Context) error{
			"write": func(ctx context.Context) error {
				return db.Write(ctx, "inner", func(context.Context, *Tx) error { return nil })
			},
			"read": func(ctx context.Context) error {
				return db.Read(ctx, "inner", func(context.Context, *Tx) error { return nil })
			},
			"query": func(ctx context.Context) error {
				return db.ReadOne(ctx, "inner", func(context.Context, *Tx) error { return nil })
			},
			"ids": func(ctx context.Context) error { _, err := db.IDs("x").Next(ctx, 1); return err },
		} {
			for _, outer := range []func(context.Context, string, func(context.Context, *Tx) error) error{db.Write, db.Read, db.ReadOne} {
				err := outer(t.Context(), "outer", func(ctx context.Context, _ *Tx) error { return forbidden(ctx) })
				var guard *txguard.Error
				if !errors.As(err, &guard) {
					t.Errorf("%s inside a transaction: %v, want a refusal", name, err)
				}
			}
		}
	})
}

func TestConcurrentWritesAreCommittedOrUndoneEachByItself(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		var wg sync.WaitGroup
		var mu sync.Mutex
		committed, undone := 0, 0
		for i := range 200 {
			wg.Go(func() {
				broken := errors.New("broken")
				err := db.Write(t.Context(), "one", func(ctx context.Context, tx *Tx) error {
					tx.AfterCommit(func() { mu.Lock(); committed++; mu.Unlock() })
					tx.OnRollback(func() { mu.Lock(); undone++; mu.Unlock() })
					if err := put(db, fmt.Sprintf("%03d", i), i)(ctx, tx); err != nil {
						return err
					}
					switch i % 4 {
					case 0:
						return broken
					case 1:
						_, err := db.Stmt(`INSERT INTO things (name, n) VALUES ('x', NULL)`).Exec(ctx, tx)
						return err
					}
					return nil
				})
				if (err == nil) != (i%4 > 1) {
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if got := names(t, db); len(got) != 100 || committed != 100 || undone != 100 {
			t.Errorf("%d rows, %d committed, %d undone: want 100 each", len(got), committed, undone)
		}
	})
}

func TestFailedCommitFailsAllAndRunsNoAfterCommit(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		broken := errors.New("no disk")
		db.SetFailpoints(func(name string) error {
			if name == "commit.before" {
				return broken
			}
			return nil
		})
		err := db.Write(t.Context(), "one", func(ctx context.Context, tx *Tx) error {
			tx.AfterCommit(func() { t.Error("AfterCommit of a transaction that was not committed") })
			return put(db, "a", 1)(ctx, tx)
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		db.SetFailpoints(nil)
		if got := names(t, db); len(got) != 0 {
			t.Errorf("rows of a failed commit: %v", got)
		}
		if err := db.Write(t.Context(), "one", put(db, "b", 1)); err != nil {
			t.Errorf("after a failed commit: %v", err)
		}
	})
}

func TestAFullDiskUndoesAllThatWaitedTogether(t *testing.T) {
	db := open(t, "file:"+filepath.Join(t.TempDir(), "test.db"))
	setup(t, db)
	pages := func(most int) {
		if _, err := db.writer.conn.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", most)); err != nil {
			t.Fatal(err)
		}
	}
	pages(20)
	big := db.Stmt(`INSERT INTO things (name, n, data) VALUES ($1, 0, $2)`)
	var group []*job
	var committed atomic.Int32
	for _, fn := range []func(context.Context, *Tx) error{
		put(db, "before", 1),
		func(ctx context.Context, tx *Tx) error {
			_, err := big.Exec(ctx, tx, "big", make([]byte, 1<<20))
			return err
		},
		put(db, "after", 1),
	} {
		j := &job{ctx: t.Context(), fn: fn, done: make(chan struct{})}
		j.tx = &Tx{db: db, write: true, prepare: db.writer.prepare, uninterrupted: true}
		j.tx.AfterCommit(func() { committed.Add(1) })
		group = append(group, j)
	}
	db.writer.commit(group)
	for i, j := range group {
		if err := unavailable(j.err); !errors.Is(err, mxerr.ErrUnavailable) {
			t.Errorf("closure %d: got %v", i, err)
		}
	}
	if got := names(t, db); len(got) != 0 || committed.Load() != 0 {
		t.Errorf("got %v, %d told that they were committed", got, committed.Load())
	}
	pages(1000)
	if err := db.Write(t.Context(), "with room", put(db, "a", 1)); err != nil {
		t.Error(err)
	}
}

func TestUniqueViolationIsTold(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		if err := db.Write(t.Context(), "one", put(db, "a", 1)); err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), "two", put(db, "a", 2)); !IsUniqueViolation(err) {
			t.Errorf("got %v", err)
		}
		if err := db.Write(t.Context(), "three", put(db, "b", 2)); err != nil || IsUniqueViolation(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestReadsSeeOneSnapshot(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		count := db.Stmt(`SELECT count(*) FROM things`)
		err := db.Read(t.Context(), "snapshot", func(ctx context.Context, tx *Tx) error {
			var before, after int
			if err := count.QueryRow(ctx, tx).Scan(&before); err != nil {
				return err
			}
			if err := db.Write(t.Context(), "beside", put(db, "a", 1)); err != nil {
				return err
			}
			if err := count.QueryRow(ctx, tx).Scan(&after); err != nil {
				return err
			}
			if before != after {
				t.Errorf("%d rows, then %d", before, after)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestArraysAndInserts(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		insert := db.Insert("things", []string{"name", "n", "data", "flag"}, "ON CONFLICT (name) DO NOTHING")
		rows := make([][]any, 100)
		for i := range rows {
			rows[i] = []any{id.UserID(fmt.Sprintf("@%03d:x", i)), i, []byte{byte(i), 0, 255}, i%2 == 0}
		}
		for _, part := range [][][]any{rows[:3], rows, rows[:3]} {
			if err := db.Write(t.Context(), "insert", func(ctx context.Context, tx *Tx) error {
				_, err := insert.Exec(ctx, tx, part)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		for name, c := range map[string]struct {
			sql string
			arg any
		}{
			"strings":  {`SELECT name FROM things WHERE name = ANY($1) ORDER BY name`, Array([]id.UserID{"@001:x", "@007:x", "@x:y"})},
			"integers": {`SELECT name FROM things WHERE n = ANY($1) ORDER BY name`, Array([]int64{1, 7, 1000})},
			"bytes":    {`SELECT name FROM things WHERE data = ANY($1::bytea[]) ORDER BY name`, Array([][]byte{{1, 0, 255}, {7, 0, 255}, {}})},
		} {
			query := db.Stmt(c.sql)
			err := db.ReadOne(t.Context(), "query", func(ctx context.Context, tx *Tx) error {
				rows, err := query.Query(ctx, tx, c.arg)
				got, err := Collect(rows, err, func(r *sql.Rows) (s id.UserID, err error) { return s, r.Scan(&s) })
				if !slices.Equal(got, []id.UserID{"@001:x", "@007:x"}) {
					t.Errorf("%s: got %v", name, got)
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		flag := db.Stmt(`SELECT flag, data FROM things WHERE name = $1`)
		if err := db.ReadOne(t.Context(), "flag", func(ctx context.Context, tx *Tx) error {
			var on bool
			var data []byte
			err := flag.QueryRow(ctx, tx, "@002:x").Scan(&on, &data)
			if !on || !slices.Equal(data, []byte{2, 0, 255}) {
				t.Errorf("got %v %v", on, data)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestIDsAreNeverHandedOutTwice(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		other := &DB{}
		if db.dialect == Postgres {
			other = open(t, os.Getenv("DENDRITE_TEST_POSTGRES"))
		}
		seen := make(map[int64]bool)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 20 {
			from := db
			if i%2 == 0 && other.pool != nil {
				from = other
			}
			wg.Go(func() {
				for n := int64(1); n < 200; n += 3 {
					first, err := from.IDs("things").Next(t.Context(), n)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for k := first; k < first+n; k++ {
						if seen[k] || k < 1 {
							t.Errorf("%d a second time", k)
						}
						seen[k] = true
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	})
}

func TestMigrationsRunOnceAndInOrder(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		component := "test_" + t.Name()
		if err := db.Write(t.Context(), "clean", func(ctx context.Context, tx *Tx) error {
			_, err := db.Stmt(`DELETE FROM sqlutil_migrations WHERE component = $1`).Exec(ctx, tx, component)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		files := fstest.MapFS{"001_things.sql": {Data: []byte(things + " -- a comment; with a semicolon\n;\nINSERT INTO things (name, n) VALUES ('p', 1); -- only: postgres\nINSERT INTO things (name, n) VALUES ('s', 1); -- only: sqlite\n")}}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := db.Migrate(t.Context(), component, files); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		files["002_more.sql"] = &fstest.MapFile{Data: []byte("INSERT INTO things (name, n) VALUES ('z', 2);")}
		if err := db.Migrate(t.Context(), component, files); err != nil {
			t.Fatal(err)
		}
		want := []string{"s", "z"}
		if db.Dialect() == Postgres {
			want[0] = "p"
		}
		if got := names(t, db); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		delete(files, "002_more.sql")
		if err := db.Migrate(t.Context(), component, files); err == nil {
			t.Error("an older program took the tables of a newer one")
		}
	})
}

func BenchmarkWriteSQLite(b *testing.B) {
	db, err := Open(b.Context(), Options{ConnectionString: "file:" + filepath.Join(b.TempDir(), "bench.db")}, Deps{})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a benchmark
	if err := db.Script(b.Context(), things); err != nil {
		b.Fatal(err)
	}
	insert := db.Stmt(`INSERT INTO things (name, n) VALUES ($1, $2)`)
	n := 0
	for b.Loop() {
		n++
		if err := db.Write(b.Context(), "bench", func(ctx context.Context, tx *Tx) error {
			_, err := insert.Exec(ctx, tx, fmt.Sprint(n), n)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// A transaction that panics is an error of its own: it is undone, keeps no connection, and nobody else's is harmed.
func TestAPanicUndoesItsTransactionAlone(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		setup(t, db)
		for range 50 { // more than there are connections
			err := db.Write(t.Context(), "broken", func(ctx context.Context, tx *Tx) error {
				tx.BeforeCommit(func(context.Context, *Tx) error { panic("a defect") })
				return put(db, "broken", 1)(ctx, tx)
			})
			if err == nil || !strings.Contains(err.Error(), "panic in transaction broken: a defect") {
				t.Fatalf("a transaction that panics: %v", err)
			}
		}
		if err := db.Write(t.Context(), "sound", put(db, "sound", 1)); err != nil {
			t.Fatal(err)
		}
		if got := names(t, db); !slices.Equal(got, []string{"sound"}) {
			t.Errorf("there is %q", got)
		}
	})
}
