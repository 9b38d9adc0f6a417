package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// Migrate brings the tables of a component to the newest version. Its files are named NNN_what.sql and run in order, each in a
// transaction of its own that holds the component's row, so that two processes that start together do it once. A line that ends
// with "-- only: postgres" or "-- only: sqlite" is for that database alone. Each migration must leave what the previous
// release needs.
func (db *DB) Migrate(ctx context.Context, component string, files fs.FS) error {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return fmt.Errorf("migrations of %s: %w", component, err)
	}
	sort.Strings(names)
	newest := 0
	steps := make([]step, len(names))
	for i, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version <= newest {
			return fmt.Errorf("migration %s of %s: its name must begin with a number greater than %d", name, component, newest)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("migration %s of %s: %w", name, component, err)
		}
		steps[i], newest = step{version, name, string(text)}, version
	}
	current, err := db.migrated(ctx, component)
	if err != nil {
		return err
	}
	if current > newest {
		return fmt.Errorf("the tables of %s have version %d, this program knows %d: use the release that made them, or a newer one", component, current, newest)
	}
	for _, s := range steps {
		if s.version > current {
			if err := db.migrateStep(ctx, component, s); err != nil {
				return fmt.Errorf("migration %s of %s: %w", s.name, component, err)
			}
		}
	}
	return nil
}

type step struct {
	version    int
	name, text string
}

func (db *DB) migrated(ctx context.Context, component string) (version int, err error) {
	query := db.Stmt(`SELECT version FROM sqlutil_migrations WHERE component = $1`)
	err = db.ReadOne(ctx, "migrations", func(ctx context.Context, tx *Tx) error {
		return query.QueryRow(ctx, tx, component).Scan(&version)
	})
	if errors.Is(err, sql.ErrNoRows) {
		begin := db.Stmt(`INSERT INTO sqlutil_migrations (component, version) VALUES ($1, 0) ON CONFLICT (component) DO NOTHING`)
		return 0, db.Write(ctx, "migrations", func(ctx context.Context, tx *Tx) error {
			_, err := begin.Exec(ctx, tx, component)
			return err
		})
	}
	return version, err
}

func (db *DB) migrateStep(ctx context.Context, component string, s step) error {
	take := db.Stmt(`UPDATE sqlutil_migrations SET version = $2 WHERE component = $1 AND version < $2`)
	return db.Write(ctx, "migrate", func(ctx context.Context, tx *Tx) error {
		if n, err := take.Exec(ctx, tx, component, s.version); err != nil || n == 0 {
			return err // another process has done it
		}
		return db.execScript(ctx, tx, s.text)
	})
}

// Script runs statements that may run again, such as CREATE TABLE IF NOT EXISTS, in one transaction.
func (db *DB) Script(ctx context.Context, script string) error {
	return db.retryCreate(func() error {
		return db.Write(ctx, "create tables", func(ctx context.Context, tx *Tx) error { return db.execScript(ctx, tx, script) })
	})
}

// retryCreate runs CREATE … IF NOT EXISTS again: in Postgres, those of several processes at once can collide in its catalogue, each
// time at another table.
func (db *DB) retryCreate(run func() error) (err error) {
	for range 20 {
		if err = run(); !IsUniqueViolation(err) && !isThereAlready(err) {
			return err
		}
	}
	return err
}

// isThereAlready tells whether err says that a table, or a type of its name, was made meanwhile.
func isThereAlready(err error) bool {
	pgErr := new(pq.Error)
	return errors.As(err, &pgErr) && (pgErr.Code == "42P07" || pgErr.Code == "42710")
}

func (db *DB) execScript(ctx context.Context, tx *Tx, script string) error {
	for _, statement := range Statements(db.dialect, script) {
		if _, err := tx.unprepared.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// Statements splits a script at the semicolons that end lines, leaves out comments and the lines of the other database, and
// rewrites each statement.
func Statements(d Dialect, script string) []string {
	other := "-- only: sqlite"
	if d == SQLite {
		other = "-- only: postgres"
	}
	var all []string
	var b strings.Builder
	end := func() {
		if text := strings.TrimSpace(b.String()); text != "" {
			all = append(all, Rewrite(d, text))
		}
		b.Reset()
	}
	for line := range strings.Lines(script) {
		if strings.HasSuffix(strings.TrimSpace(line), other) {
			continue
		}
		if code, _, commented := strings.Cut(line, "--"); commented {
			line = code
		}
		line = strings.TrimSpace(line)
		body, ends := strings.CutSuffix(line, ";")
		if b.WriteString(body); ends {
			end()
		} else {
			b.WriteByte('\n')
		}
	}
	end()
	return all
}
