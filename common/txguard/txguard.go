// Package txguard marks the context of a database transaction, so that what must not happen inside one fails at once, in every
// build: an rpc, a request to another server, a second Begin. Such a thing holds locks for as long as a network does, and
// deadlocks a pool of connections that waits for itself.
package txguard

import (
	"context"
	"fmt"
)

type key struct{}

// Mark returns a context that is inside the named transaction.
func Mark(ctx context.Context, transaction string) context.Context {
	return context.WithValue(ctx, key{}, transaction)
}

// Check fails when ctx is inside a transaction. what names the forbidden act.
func Check(ctx context.Context, what string) error {
	if name, inside := ctx.Value(key{}).(string); inside {
		return &Error{Transaction: name, What: what}
	}
	return nil
}

// Error says that something was tried inside a transaction that is not allowed there. It is a defect of the caller.
type Error struct{ Transaction, What string }

func (e *Error) Error() string {
	return fmt.Sprintf("%s inside the transaction %q: do it before or after", e.What, e.Transaction)
}
