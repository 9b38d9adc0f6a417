package eventlog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	leaseTime  = 5 * time.Second
	leaseRenew = leaseTime / 4
	// leaseSafe is how long after its last renewal began a holder may still work: less than the lease, so that two clocks that do
	// not run equally fast do not make two holders.
	leaseSafe = leaseTime - leaseTime/5
	// releaseFor is how long the end of a holder may take to give the lease back.
	releaseFor = 500 * time.Millisecond
)

// Hold runs work while this process has the named lease of the log: at most one of all replicas has it, but for the moments in
// which one does not know yet that it lost it. The database's clock decides. work's context ends when the lease is lost; Hold then
// waits for it again. It returns when ctx ends, or with the error of work.
func (l *Log) Hold(ctx context.Context, name string, work func(ctx context.Context) error) error {
	return l.hold(ctx, &lease{log: l, name: name, holder: rand.Text()}, work)
}

// Tenure tells whether a lease that is kept is known to be held.
type Tenure struct{ until atomic.Pointer[time.Time] }

// Confirmed tells whether no other process can have the lease now, by this machine's clock. Where it cannot, what the
// holder has in memory may be out of date, and the holder must neither show it nor write.
func (t *Tenure) Confirmed() bool {
	until := t.until.Load()
	return until != nil && time.Now().Before(*until)
}

// Keep is Hold for a holder that outlives the absence of the database. work's context ends only when another process
// has taken the lease meanwhile; while that is unknown, the tenure is not confirmed. When the database is back and
// nobody has taken the lease, the holder has it as before: everything that was written meanwhile was written before, by
// itself.
func (l *Log) Keep(ctx context.Context, name string, work func(ctx context.Context, t *Tenure) error) error {
	h := &lease{log: l, name: name, holder: rand.Text(), tenure: new(Tenure)}
	return l.hold(ctx, h, func(ctx context.Context) error { return work(ctx, h.tenure) })
}

func (l *Log) hold(ctx context.Context, h *lease, work func(ctx context.Context) error) error {
	name := h.name
	err := l.db.Write(ctx, "make lease", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := l.tables.insertLease.Exec(ctx, tx, [][]any{{name, "", 0, 0}})
		return err
	})
	for ctx.Err() == nil {
		if err == nil {
			began := time.Now()
			var taken bool
			if taken, err = h.take(ctx); taken {
				if err := h.run(ctx, began, work); err != nil {
					return err
				}
				continue
			}
		}
		if err != nil && ctx.Err() == nil {
			l.o.Log.WithError(err).WithField("lease", name).Warn("a lease cannot be taken now")
		}
		err = nil
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
	return nil
}

// lease is one attempt to hold a lease. Its epoch grows with every holder.
type lease struct {
	log    *Log
	name   string
	holder string
	epoch  int64
	tenure *Tenure // of a lease that is kept; else nil
}

// renewed notes that the database has confirmed the lease, by a statement that began at a time.
func (h *lease) renewed(began time.Time) {
	if h.tenure != nil {
		until := began.Add(leaseSafe)
		h.tenure.until.Store(&until)
	}
}

func (h *lease) take(ctx context.Context) (taken bool, err error) {
	h.epoch, err = h.write(ctx, "take lease", func(ctx context.Context, tx *sqlutil.Tx) (epoch int64, err error) {
		err = h.log.tables.takeLease.QueryRow(ctx, tx, h.name, h.holder, leaseTime.Milliseconds()).Scan(&epoch)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, nil
		}
		return epoch, err
	})
	if err != nil {
		return false, fmt.Errorf("take the lease %s: %w", h.name, err)
	}
	return h.epoch > 0, nil
}

// write runs a statement about the lease. It waits for a database that does not answer no longer than ctx allows.
func (h *lease) write(ctx context.Context, name string,
	fn func(context.Context, *sqlutil.Tx) (int64, error)) (int64, error) {
	return sqlutil.Within(ctx, func() (result int64, err error) {
		err = h.log.db.Write(ctx, name, func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			result, err = fn(ctx, tx)
			return err
		})
		return result, err
	})
}

// run does the work, renews the lease beside it, and gives the lease back at the end.
func (h *lease) run(ctx context.Context, renewed time.Time, work func(context.Context) error) error {
	h.renewed(renewed)
	log := h.log.o.Log.WithFields(logrus.Fields{"lease": h.name, "epoch": h.epoch})
	log.Debug("lease taken")
	working, lost := context.WithCancel(ctx)
	defer lost()
	done := make(chan error, 1)
	go func() { done <- work(working) }()
	ticker := time.NewTicker(leaseRenew)
	defer ticker.Stop()
	away := false
	for {
		select {
		case err := <-done:
			h.release(ctx)
			return err
		case <-ticker.C:
		}
		if working.Err() != nil {
			continue // the work is about to end
		}
		began := time.Now()
		until := renewed.Add(leaseSafe)
		if h.tenure != nil {
			until = began.Add(leaseTime)
		}
		switch ours, err := h.renew(working, until); {
		case err == nil && ours:
			if renewed = began; away {
				log.Info("the lease is confirmed again: nobody has taken it meanwhile")
			}
			away = false
			h.renewed(renewed)
		case err == nil:
			log.Warn("the lease was lost to another replica")
			lost()
		case h.tenure != nil:
			if !away && !h.tenure.Confirmed() {
				away = true
				log.WithError(err).
					Warn("the database is away: until it confirms the lease, requests are answered with 503")
			}
		case time.Since(renewed)+leaseRenew > leaseSafe:
			log.WithError(err).Warn("the lease cannot be renewed")
			lost()
		}
	}
}

func (h *lease) renew(ctx context.Context, until time.Time) (ours bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	renewed, err := h.extend(ctx, "renew lease", leaseTime)
	return renewed == 1, err
}

// release lets another replica take the lease at once. Where that fails, it takes it when it has run out.
func (h *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseFor)
	defer cancel()
	if _, err := h.extend(ctx, "release lease", 0); err != nil {
		h.log.o.Log.WithError(err).WithField("lease", h.name).Debug("lease not given back")
	}
}

// extend makes the lease last for so long from now on, and tells how many there are: none, if another has it.
func (h *lease) extend(ctx context.Context, name string, by time.Duration) (int64, error) {
	epoch := h.epoch
	return h.write(ctx, name, func(ctx context.Context, tx *sqlutil.Tx) (int64, error) {
		return h.log.tables.renewLease.Exec(ctx, tx, h.name, h.holder, epoch, by.Milliseconds())
	})
}
