package sqlutil

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/debug"
)

// Tx is a transaction. It must not be used after its closure has returned, nor by two goroutines.
type Tx struct {
	db    *DB
	name  string
	write bool

	prepare    func(context.Context, *Stmt) (*sql.Stmt, error)
	unprepared interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	}
	// uninterrupted statements get a context that does not end: the driver of SQLite would otherwise start a goroutine for each.
	uninterrupted bool
	fresh         []*Stmt // that were never prepared before

	values       map[any]any
	beforeCommit []func(context.Context, *Tx) error
	afterCommit  []func()
	onRollback   []func()
}

// BeforeCommit adds what runs last in the transaction. Functions run in the order in which they were added.
func (tx *Tx) BeforeCommit(fn func(ctx context.Context, tx *Tx) error) {
	tx.beforeCommit = append(tx.beforeCommit, fn)
}

// AfterCommit adds what runs when the transaction is durable, and only then: caches, wake-ups, answers.
func (tx *Tx) AfterCommit(fn func()) { tx.afterCommit = append(tx.afterCommit, fn) }

// OnRollback adds what runs when it is known, or must be feared, that the transaction did not take place.
func (tx *Tx) OnRollback(fn func()) { tx.onRollback = append(tx.onRollback, fn) }

// Value returns what is kept in the transaction under a key, or makes it with create.
func (tx *Tx) Value(key any, create func() any) any {
	v, has := tx.values[key]
	if !has {
		if tx.values == nil {
			tx.values = make(map[any]any)
		}
		v = create()
		tx.values[key] = v
	}
	return v
}

// DB is the database of the transaction.
func (tx *Tx) DB() *DB { return tx.db }

// run runs the closure of a transaction and what it added. A panic becomes its error: it must not take with it what
// others do in the same transaction or process, nor keep a connection.
func (tx *Tx) run(ctx context.Context, fn func(context.Context, *Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in transaction %s: %v\n%s", tx.name, p, debug.Stack())
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	for i := 0; i < len(tx.beforeCommit); i++ {
		if err := tx.beforeCommit[i](ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) committed() {
	for _, fn := range tx.afterCommit {
		fn()
	}
}

func (tx *Tx) rolledBack() {
	for _, fn := range tx.onRollback {
		fn()
	}
}
