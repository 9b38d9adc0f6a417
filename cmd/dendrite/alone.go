package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// errNotAlone ends a monolith that another one has replaced, because it could not reach the database for some seconds.
var errNotAlone = errors.New("another monolith has taken over the database of this one: run one only, " +
	"or the components as processes of their own")

// errUnconfirmed refuses what would read or write while another process may have the lease.
var errUnconfirmed = fmt.Errorf("the database is away: it does not confirm that no other monolith has taken over: %w",
	mxerr.ErrUnavailable)

// alone runs a monolith while no other one runs on the same database: what it keeps in memory, it takes for the truth. A second one
// waits until the first has ended. An SQLite file has a lock of its own.
//
// A monolith that cannot reach the database goes on when it can: if nobody has taken the lease meanwhile, its memory is
// still the truth. Until it knows, it answers 503 and writes nothing, so that it does no harm where it alone is cut
// off, and another has taken over.
func (p *process) alone(ctx context.Context, serve func(held context.Context) error) error {
	const owner = "roomserver" // whose tables have the lease
	if _, is := sqlutil.SQLitePath(p.config.Database.For(owner)); is {
		return serve(ctx)
	}
	// The lease has connections of its own: it must be renewed also while all others are busy, and is not held back as
	// they are.
	few := *p.config
	few.Database.MaxOpenConnections = leaseConnections
	db, err := place.OpenDatabase(ctx, &few, owner, 0, sqlutil.Deps{Log: p.log})
	if err != nil {
		return unlessEnded(ctx, err)
	}
	p.closers = append(p.closers, db)
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
	return log.Keep(holding, "monolith", func(held context.Context, tenure *eventlog.Tenure) error {
		if begun.Swap(true) {
			return errNotAlone
		}
		defer stop() // Keep would begin again
		p.confirmed = tenure.Confirmed
		return serve(held)
	})
}

// leaseConnections is how many connections the lease of a monolith has.
const leaseConnections = 2

// gate refuses what must not happen while another process may have the lease.
func (p *process) gate() error {
	if p.confirmed != nil && !p.confirmed() {
		return errUnconfirmed
	}
	return nil
}

// gated answers requests only while no other process can have the lease.
func (p *process) gated(h http.Handler) http.Handler {
	if p.confirmed == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.gate(); err != nil {
			httputil.WriteError(w, mxerr.Unavailable("the server cannot reach its database: try again"))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// unlessEnded leaves out an error that came because the process was asked to end.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
