package main

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// errNotAlone ends a monolith that another one has replaced, because it could not reach the database for some seconds.
var errNotAlone = errors.New("this process lost its lease on the database: another monolith may have taken over")

// alone runs a monolith while no other one runs on the same database: what it keeps in memory, it takes for the truth. A second one
// waits until the first has ended. An SQLite file has a lock of its own.
func (p *process) alone(ctx context.Context, serve func(held context.Context) error) error {
	const owner = "roomserver" // whose tables have the lease
	db, err := p.database(ctx, owner)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	if db.Dialect() == sqlutil.SQLite {
		return serve(ctx)
	}
	log, err := eventlog.New(ctx, db, owner, eventlog.Options{Log: p.log, Tracer: p.tracer})
	if err != nil {
		return unlessEnded(ctx, err)
	}
	// The lease is held until everything has ended; only the wait for it ends with ctx.
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var begun atomic.Bool
	defer context.AfterFunc(ctx, func() {
		if !begun.Load() {
			stop()
		}
	})()
	p.log.Debug("waiting for the lease of the monolith")
	return log.Hold(holding, "monolith", func(held context.Context) error {
		if begun.Swap(true) {
			return errNotAlone
		}
		defer stop() // Hold would begin again
		return serve(held)
	})
}

// unlessEnded leaves out an error that came because the process was asked to end.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
