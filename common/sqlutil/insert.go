package sqlutil

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Insert is an INSERT of any number of rows in one statement.
type Insert struct {
	db      *DB
	head    string
	suffix  string
	columns int

	mu    sync.Mutex
	sizes map[int]*Stmt // by the number of rows
}

const (
	preparedRows = 16    // statements for at most so many rows stay prepared
	maxParams    = 32000 // of one statement, in both databases
)

// Insert makes a multi-row insert. suffix may be an ON CONFLICT clause.
func (db *DB) Insert(table string, columns []string, suffix string) *Insert {
	return &Insert{db: db, head: "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES ", suffix: " " + suffix,
		columns: len(columns), sizes: make(map[int]*Stmt)}
}

// Exec inserts rows and tells how many it did insert. More rows than one statement can carry take several.
func (i *Insert) Exec(ctx context.Context, tx *Tx, rows [][]any) (inserted int64, err error) {
	err = i.parts(rows, func(n int, args []any) error {
		var affected int64
		var err error
		if n <= preparedRows {
			affected, err = i.sized(n).Exec(ctx, tx, args...)
		} else if ctx, err = i.bare(ctx, tx); err == nil {
			affected, err = i.db.counted(tx.unprepared.ExecContext(ctx, Rewrite(i.db.dialect, i.text(n)), i.db.bind(args)...))
		}
		inserted += affected
		return err
	})
	return inserted, err
}

// Query is Exec where the suffix ends with RETURNING: scan is called for each row that is returned.
func (i *Insert) Query(ctx context.Context, tx *Tx, rows [][]any, scan func(*sql.Rows) error) error {
	return i.parts(rows, func(n int, args []any) error {
		var returned *sql.Rows
		var err error
		if n <= preparedRows {
			returned, err = i.sized(n).Query(ctx, tx, args...)
		} else if ctx, err = i.bare(ctx, tx); err == nil {
			returned, err = tx.unprepared.QueryContext(ctx, Rewrite(i.db.dialect, i.text(n)), i.db.bind(args)...)
		}
		_, err = Collect(returned, err, func(rows *sql.Rows) (struct{}, error) { return struct{}{}, scan(rows) })
		return err
	})
}

// parts runs rows as statements of no more parameters than a database takes.
func (i *Insert) parts(rows [][]any, run func(n int, args []any) error) error {
	for len(rows) > 0 {
		n := min(len(rows), maxParams/i.columns)
		if i.db.dialect == SQLite { // which is in this process: another statement costs less than one that is not prepared
			n = min(n, preparedRows)
		}
		args := make([]any, 0, n*i.columns)
		for _, row := range rows[:n] {
			if len(row) != i.columns {
				return fmt.Errorf("%s: a row has %d values instead of %d", i.head, len(row), i.columns)
			}
			args = append(args, row...)
		}
		rows = rows[n:]
		if err := run(n, args); err != nil {
			return err
		}
	}
	return nil
}

func (i *Insert) sized(n int) *Stmt {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, has := i.sizes[n]
	if !has {
		s = i.db.Stmt(i.text(n))
		i.sizes[n] = s
	}
	return s
}

func (i *Insert) text(rows int) string {
	var b strings.Builder
	b.WriteString(i.head)
	for r, p := 0, 1; r < rows; r++ {
		if r > 0 {
			b.WriteByte(',')
		}
		for c := range i.columns {
			b.WriteByte("(,"[min(c, 1)])
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(p))
			p++
		}
		b.WriteByte(')')
	}
	b.WriteString(i.suffix)
	return b.String()
}

// bare readies a transaction for a statement that is not prepared, and counts it.
func (i *Insert) bare(ctx context.Context, tx *Tx) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return ctx, err
	}
	if tx.unprepared == nil {
		return ctx, fmt.Errorf("%s: a reading transaction cannot insert", tx.name)
	}
	if tx.uninterrupted {
		ctx = context.WithoutCancel(ctx)
	}
	i.db.counter.Statements.Add(1)
	return ctx, nil
}
