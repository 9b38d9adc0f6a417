package sqlutil

import (
	"context"
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
func (i *Insert) Exec(ctx context.Context, tx *Tx, rows [][]any) (int64, error) {
	var inserted int64
	for len(rows) > 0 {
		n := min(len(rows), maxParams/i.columns)
		if i.db.dialect == SQLite { // which is in this process: another statement costs less than one that is not prepared
			n = min(n, preparedRows)
		}
		args := make([]any, 0, n*i.columns)
		for _, row := range rows[:n] {
			if len(row) != i.columns {
				return inserted, fmt.Errorf("%s: a row has %d values instead of %d", i.head, len(row), i.columns)
			}
			args = append(args, row...)
		}
		rows = rows[n:]
		var affected int64
		var err error
		if n <= preparedRows {
			affected, err = i.sized(n).Exec(ctx, tx, args...)
		} else {
			affected, err = i.db.execUnprepared(ctx, tx, i.text(n), args)
		}
		inserted += affected
		if err != nil {
			return inserted, err
		}
	}
	return inserted, nil
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

func (db *DB) execUnprepared(ctx context.Context, tx *Tx, text string, args []any) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if tx.unprepared == nil {
		return 0, fmt.Errorf("%s: a reading transaction cannot insert", tx.name)
	}
	if tx.uninterrupted {
		ctx = context.WithoutCancel(ctx)
	}
	db.counter.Statements.Add(1)
	return db.counted(tx.unprepared.ExecContext(ctx, Rewrite(db.dialect, text), db.bind(args)...))
}
