package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// table is a table whose rows are values of T. Its columns are listed once, for what is written and what is read.
type table[T any] struct {
	name string
	key  []string // the columns of the primary key, at most 4
	// replaces says that a row takes the place of one with its key, whose columns in keeps stay as they are.
	replaces bool
	keeps    []string
	columns  []column[T]

	insert *sqlutil.Insert
	keys   []column[T]
}

// column is one column of a table: what is written of a row, and where it is read into.
type column[T any] struct {
	name  string
	value func(row *T) any
	scan  func(row *T) any
}

// col is a column for a field of a type that databases know.
func col[T, V any](name string, field func(*T) *V) column[T] {
	return column[T]{name, func(row *T) any { return *field(row) }, func(row *T) any { return field(row) }}
}

// rootCol is a column for the root of a state.
func rootCol[T any](name string, field func(*T) *roomserver.Root) column[T] {
	return column[T]{name, func(row *T) any { return field(row)[:] }, func(row *T) any { return rootInto{field(row)} }}
}

// jsonCol is a column for a text of JSON.
func jsonCol[T any](name string, field func(*T) *json.RawMessage) column[T] {
	text := func(row *T) any { return string(*field(row)) }
	return column[T]{name, text, func(row *T) any { return jsonInto{field(row)} }}
}

type rootInto struct{ root *roomserver.Root }

// Scan is that of sql.Scanner.
func (r rootInto) Scan(value any) error {
	bytes, is := value.([]byte)
	if !is || len(bytes) != len(r.root) {
		return fmt.Errorf("a column for the root of a state has %T of %d bytes", value, len(bytes))
	}
	copy(r.root[:], bytes)
	return nil
}

type jsonInto struct{ text *json.RawMessage }

// Scan is that of sql.Scanner.
func (j jsonInto) Scan(value any) error {
	switch v := value.(type) {
	case string:
		*j.text = json.RawMessage(v)
	case []byte: // which is the driver's own
		*j.text = slices.Clone(v)
	default:
		return fmt.Errorf("a column for JSON has a %T", value)
	}
	return nil
}

// on makes the table's statement.
func (t table[T]) on(db *sqlutil.DB) table[T] {
	var names, set []string
	for _, c := range t.columns {
		names = append(names, c.name)
		switch {
		case slices.Contains(t.key, c.name):
			t.keys = append(t.keys, c)
		case !slices.Contains(t.keeps, c.name):
			set = append(set, c.name+" = excluded."+c.name)
		}
	}
	conflict := ""
	if t.replaces {
		conflict = "ON CONFLICT (" + strings.Join(t.key, ", ") + ") DO UPDATE SET " + strings.Join(set, ", ")
	}
	t.insert = db.Insert(t.name, names, conflict)
	return t
}

// list names all columns of the table, which has an alias in the statement.
func (t *table[T]) list(alias string) string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = alias + "." + c.name
	}
	return strings.Join(names, ", ")
}

// put writes rows with one statement. Of rows with one key only the last is written: one statement may touch a row
// once.
func (t *table[T]) put(ctx context.Context, tx *sqlutil.Tx, rows []T) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := t.insert.Exec(ctx, tx, t.last(rows)); err != nil {
		return fmt.Errorf("insert into %s: %w", t.name, err)
	}
	return nil
}

func (t *table[T]) last(rows []T) [][]any {
	all := make([][]any, 0, len(rows))
	at := make(map[[4]any]int)
	for i := range rows {
		values := make([]any, len(t.columns))
		for c := range t.columns {
			values[c] = t.columns[c].value(&rows[i])
		}
		if len(rows) == 1 {
			return append(all, values)
		}
		var key [4]any
		for c := range t.keys {
			key[c] = t.keys[c].value(&rows[i])
		}
		if before, has := at[key]; has {
			all[before] = values
			continue
		}
		at[key] = len(all)
		all = append(all, values)
	}
	return all
}

// read runs a statement for rows that have all columns. Every row is scanned into the same place, which is told once
// where its columns are: of thousands of rows, that is a third of the memory. It is emptied before each row, or a slice
// of one row would be scanned into that of the row before.
func (t *table[T]) read(ctx context.Context, tx *sqlutil.Tx, query *sqlutil.Stmt, args ...any) ([]T, error) {
	rows, err := query.Query(ctx, tx, args...)
	var row, empty T
	into := make([]any, len(t.columns))
	for c := range t.columns {
		into[c] = t.columns[c].scan(&row)
	}
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (T, error) {
		row = empty
		err := rows.Scan(into...)
		return row, err
	})
}

// first is the first row, or nil.
func first[T any](rows []T, err error) (*T, error) {
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}

// by makes a map of rows.
func by[K comparable, T any](key func(*T) K, rows []T, err error) (map[K]T, error) {
	all := make(map[K]T, len(rows))
	for i := range rows {
		all[key(&rows[i])] = rows[i]
	}
	return all, err
}

// readColumn reads the only column of rows.
func readColumn[V any](rows *sql.Rows, err error) ([]V, error) {
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (v V, err error) { return v, rows.Scan(&v) })
}
