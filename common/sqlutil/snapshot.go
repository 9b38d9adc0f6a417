package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Snapshot is a moment of a Postgres database that other programs can read too, as long as it is open.
type Snapshot struct {
	// ID is what pg_dump knows it by.
	ID string
	// Sizes are the bytes of each table, by its name.
	Sizes map[string]int64

	db *DB
	tx *sql.Tx
}

// TakeSnapshot opens one.
func (db *DB) TakeSnapshot(ctx context.Context) (*Snapshot, error) {
	if db.dialect != Postgres {
		return nil, errors.New("only Postgres has snapshots")
	}
	tx, err := db.pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("taking a snapshot: %w", err)
	}
	s := &Snapshot{db: db, tx: tx, Sizes: make(map[string]int64)}
	err = tx.QueryRowContext(ctx, `SELECT pg_export_snapshot()`).Scan(&s.ID)
	if err == nil {
		err = s.Read(ctx, func(ctx context.Context, tx *Tx) error {
			rows, err := db.Stmt(`SELECT c.relname, pg_table_size(c.oid) FROM pg_class c
				WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`).Query(ctx, tx)
			_, err = Collect(rows, err, func(rows *sql.Rows) (size int64, err error) {
				var name string
				err = rows.Scan(&name, &size)
				s.Sizes[name] = size
				return size, err
			})
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("taking a snapshot: %w", err), s.Close())
	}
	return s, nil
}

// Read runs statements that see the snapshot.
func (s *Snapshot) Read(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	tx := &Tx{db: s.db, name: "snapshot"}
	tx.prepare = func(ctx context.Context, stmt *Stmt) (*sql.Stmt, error) { return s.tx.PrepareContext(ctx, stmt.text) }
	return fn(ctx, tx)
}

// Close lets go of the snapshot.
func (s *Snapshot) Close() error {
	if err := s.tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("ending a snapshot: %w", err)
	}
	return nil
}

// Tables counts the tables of a database.
func (db *DB) Tables(ctx context.Context) (n int, err error) {
	count := `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'`
	if db.dialect == Postgres {
		count = `SELECT COUNT(*) FROM pg_class c
			WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace`
	}
	err = db.ReadOne(ctx, "tables", func(ctx context.Context, tx *Tx) error {
		return db.Stmt(count).QueryRow(ctx, tx).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("counting the tables: %w", err)
	}
	return n, nil
}
