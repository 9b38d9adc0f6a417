package sqlutil

import (
	"context"
	"fmt"
)

// Within runs work on a database, and waits for it no longer than until ctx ends. The driver of Postgres waits for the
// answer to a statement whatever became of its context: for minutes, if the network or the machine of the database has
// failed. What is not waited for may still take place.
func Within[T any](ctx context.Context, work func() (T, error)) (result T, err error) {
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		o.result, o.err = work()
		done <- o
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done: // it ended in the same moment
		return o.result, o.err
	default:
		return result, fmt.Errorf("the database does not answer: %w", ctx.Err())
	}
}
