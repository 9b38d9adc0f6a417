package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Stmt is a statement, prepared on each connection when it is first used there.
type Stmt struct {
	db   *DB
	text string // in the database's own dialect

	mu   sync.Mutex // held while it is prepared
	pool atomic.Pointer[sql.Stmt]
}

// Stmt makes a statement of SQL in the dialect of Postgres. What of it is allowed, and how it is rewritten for SQLite, says
// Rewrite.
func (db *DB) Stmt(text string) *Stmt {
	return &Stmt{db: db, text: Rewrite(db.dialect, text)}
}

// String is the text that the database gets.
func (s *Stmt) String() string { return s.text }

// onPool prepares the statement for all connections. It may wait for one, so it must not be called by who holds one.
func (s *Stmt) onPool() (*sql.Stmt, error) {
	if p := s.pool.Load(); p != nil {
		return p, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pool.Load(); p != nil {
		return p, nil
	}
	p, err := s.db.pool.PrepareContext(context.Background(), s.text)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", s.text, err)
	}
	s.pool.Store(p)
	return p, nil
}

// inTx prepares the statement on the connection of a transaction. The first time, only for that: another connection might be one
// for which all transactions wait.
func (s *Stmt) inTx(ctx context.Context, tx *Tx, on *sql.Tx) (*sql.Stmt, error) {
	if p := s.pool.Load(); p != nil {
		return on.StmtContext(ctx, p), nil
	}
	p, err := on.PrepareContext(ctx, s.text)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", s.text, err)
	}
	tx.fresh = append(tx.fresh, s)
	return p, nil
}

// prepareFresh prepares for all connections what a transaction has used for the first time. It has ended.
func (tx *Tx) prepareFresh() {
	for _, s := range tx.fresh {
		if _, err := s.onPool(); err != nil {
			tx.db.deps.Log.WithError(err).Debug("a statement stays unprepared")
		}
	}
}

// Exec runs the statement and tells how many rows it changed.
func (s *Stmt) Exec(ctx context.Context, tx *Tx, args ...any) (int64, error) {
	p, ctx, err := s.ready(ctx, tx)
	if err != nil {
		return 0, err
	}
	return s.db.counted(p.ExecContext(ctx, s.db.bind(args)...))
}

// Query runs the statement for its rows. The caller closes them.
func (s *Stmt) Query(ctx context.Context, tx *Tx, args ...any) (*sql.Rows, error) {
	p, ctx, err := s.ready(ctx, tx)
	if err != nil {
		return nil, err
	}
	return p.QueryContext(ctx, s.db.bind(args)...)
}

// Row is the answer of QueryRow.
type Row struct {
	row *sql.Row
	err error
}

// Scan reads the row. It returns sql.ErrNoRows if there is none.
func (r *Row) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.row.Scan(into...)
}

// QueryRow runs the statement for the first of its rows.
func (s *Stmt) QueryRow(ctx context.Context, tx *Tx, args ...any) *Row {
	p, ctx, err := s.ready(ctx, tx)
	if err != nil {
		return &Row{err: err}
	}
	return &Row{row: p.QueryRowContext(ctx, s.db.bind(args)...)}
}

func (s *Stmt) ready(ctx context.Context, tx *Tx) (*sql.Stmt, context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, ctx, err
	}
	if tx.db != s.db {
		return nil, ctx, errors.New("a statement is used in a transaction of another database")
	}
	if tx.uninterrupted {
		ctx = context.WithoutCancel(ctx)
	}
	p, err := tx.prepare(ctx, s)
	s.db.counter.Statements.Add(1)
	return p, ctx, err
}

func (db *DB) counted(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	if err == nil {
		db.counter.Rows.Add(n)
	}
	return n, err
}

func (db *DB) bind(args []any) []any {
	for i, arg := range args {
		if a, is := arg.(arrayArg); is {
			args[i] = a.bind(db.dialect)
		}
	}
	return args
}

// Collect reads all rows with scan and closes them.
func Collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err below says what there is to say
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
