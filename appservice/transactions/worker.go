package transactions

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/pace"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// maxError is how much is kept of why a service did not take a transaction, in bytes.
const maxError = 1000

// localWait is how long is waited when this server cannot do its part.
const (
	localWait    = 100 * time.Millisecond
	maxLocalWait = 10 * time.Second
)

// worker sends to one service while something waits for it.
type worker struct {
	s       *Sender
	service string
	pace    *pace.Pace
	log     *logrus.Entry
	again   bool // something has come since the queue was read; under the Sender's lock
	alive   chan struct{}
	// forgiven are the attempts of the transaction under way that were made before the service was seen alive.
	forgiven int64
	poisoned map[int64]int // how often events could not be read, by number
	full     bool          // the last transaction had as many events as one may have
	// atMost bounds the bytes of events, where the service did not take so much; else 0.
	atMost int
}

// outcome is how a step has ended.
type outcome int

const (
	idle   outcome = iota // nothing waits
	done                  // there may be more
	broken                // this server could not do its part
	failed                // the service did not take the transaction
)

func (w *worker) run(ctx context.Context) {
	first, most := min(localWait, w.s.FirstWait), min(maxLocalWait, w.s.LastWait)
	wait := first
	for ctx.Err() == nil {
		result, next, err := w.step(ctx)
		if ctx.Err() != nil {
			break
		}
		if result != broken {
			wait = first
		}
		switch result {
		case idle:
			if w.s.rest(w) {
				return
			}
		case done:
			if !w.full {
				w.pace.Wait(ctx)
			}
		case broken:
			w.log.WithError(err).WithField("again_in", wait).Warn("a transaction cannot be prepared now")
			w.pause(ctx, wait)
			wait = min(2*wait, most)
		case failed:
			w.log.WithError(err).WithField("again_in", next.Round(time.Millisecond)).
				Warn("the application service did not take a transaction")
			w.pause(ctx, next)
		}
	}
	w.s.mu.Lock()
	delete(w.s.workers, w.service)
	w.s.mu.Unlock()
}

// isAlive ends a pause, or the next one.
func (w *worker) isAlive() {
	select {
	case w.alive <- struct{}{}:
	default:
	}
}

// pause waits, or until the service shows that it is alive. A service that does, and takes nothing, is not asked all
// the time.
func (w *worker) pause(ctx context.Context, wait time.Duration) {
	timer, soon := time.NewTimer(wait), time.NewTimer(min(wait, w.s.FirstWait/2, firstWait/2))
	defer timer.Stop()
	defer soon.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.alive:
		w.forgiven = -1
		select {
		case <-ctx.Done():
		case <-soon.C:
		}
	}
}

// step sends the transaction that is under way, or makes one. next is how long a service is to be left alone.
func (w *worker) step(ctx context.Context) (result outcome, next time.Duration, err error) {
	r := w.s.Registrations.Load().ByID(w.service)
	if r == nil || r.URL == "" {
		return idle, 0, nil
	}
	w.s.mu.Lock()
	w.again = false
	w.s.mu.Unlock()
	var t *storage.Transaction
	var rows []storage.Event
	var last int64
	err = w.s.Store.DB.Read(ctx, "what waits for a service", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if last, err = w.s.Store.LastTransaction(ctx, tx, w.service); err != nil {
			return err
		}
		if t, err = w.s.Store.Transaction(ctx, tx, w.service); err != nil || t != nil {
			return err
		}
		rows, err = w.s.Store.Oldest(ctx, tx, w.service, maxEvents)
		return err
	})
	if err != nil {
		return broken, 0, err
	}
	if t == nil {
		if t, err = w.cut(ctx, r, rows, last); err != nil {
			return broken, 0, err
		}
		if t == nil {
			return idle, 0, nil
		}
		if t.ID == 0 {
			return done, 0, nil
		}
	}
	if w.forgiven < 0 || w.forgiven > t.Attempts {
		w.forgiven = t.Attempts
	}
	if why := w.send(ctx, r, t); why != nil {
		if ctx.Err() != nil {
			return broken, 0, why
		}
		if errors.Is(why, errTooLarge) && t.Events > 1 {
			if err := w.shorten(ctx, t); err != nil {
				return broken, 0, err
			}
			return done, 0, nil
		}
		next := w.s.backoff(t.Attempts - w.forgiven)
		if err := w.noteFailure(ctx, t, next, why); err != nil {
			w.log.WithError(err).Warn("the failure of a transaction cannot be noted")
		}
		return failed, next, why
	}
	w.forgiven, w.full = 0, t.Events == maxEvents
	if err := w.end(ctx, t); err != nil {
		return broken, 0, err
	}
	return done, 0, nil
}

// backoff is how long a service is left alone after so many attempts that failed before the last. Services that
// failed together do not come again together.
func (s *Sender) backoff(before int64) time.Duration {
	wait := s.LastWait
	if before < 20 {
		wait = min(wait, s.FirstWait<<before)
	}
	return wait*4/5 + rand.N(wait*2/5)
}

var errTooLarge = errors.New("it answers with status 413, too large")

// shorten replaces a transaction that is too large for the service by one, under another id, with half of its events.
// The others are left for later transactions, which are smaller too.
func (w *worker) shorten(ctx context.Context, t *storage.Transaction) error {
	var rows []storage.Event
	err := w.s.Store.DB.Read(ctx, "what waits for a service", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		rows, err = w.s.Store.Oldest(ctx, tx, w.service, maxEvents)
		return err
	})
	if err != nil {
		return err
	}
	shorter := &storage.Transaction{Service: w.service}
	var events []id.EventID
	if shorter.Body, events, err = half(t.Body); err != nil {
		return err
	}
	shorter.Events = int64(len(events))
	for i := range rows {
		if len(events) > 0 && rows[i].EventID == events[0] {
			events, shorter.LastNumber = events[1:], rows[i].Number
		}
	}
	if len(events) > 0 { // what waits was skipped meanwhile
		return nil
	}
	now := w.s.Now().UnixMilli()
	err = w.s.Store.DB.Write(ctx, "shorter transaction", func(ctx context.Context, tx *sqlutil.Tx) error {
		return w.s.Store.Replace(ctx, tx, shorter, t.ID, now)
	})
	if errors.Is(err, storage.ErrUnderWay) {
		return nil
	}
	w.atMost = len(t.Body) / 2
	w.log.WithFields(logrus.Fields{"bytes": len(t.Body), "events": t.Events}).
		Warn("a transaction is too large for the application service: it is sent with half of the events")
	return err
}

// send sends a transaction once. The error says why the service has not taken it.
func (w *worker) send(ctx context.Context, r *registration.Registration, t *storage.Transaction) error {
	name := strconv.FormatInt(t.ID, 10)
	status, answer, err := w.s.Do(ctx, r, http.MethodPut, "/_matrix/app/v1/transactions/"+name,
		"/transactions/"+name, nil, t.Body)
	w.s.Metrics.attempted(w.service, status == http.StatusOK && err == nil)
	switch {
	case err != nil:
		return err
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: it has %d bytes and %d events", errTooLarge, len(t.Body), t.Events)
	case status != http.StatusOK:
		return fmt.Errorf("it answers with status %d: %s", status, answer[:min(len(answer), 200)])
	case !json.Valid(answer):
		return fmt.Errorf("its answer is no JSON, or too large: %.200q", answer)
	}
	return nil
}

func (w *worker) noteFailure(ctx context.Context, t *storage.Transaction, next time.Duration, why error) error {
	now, text := w.s.Now(), why.Error()
	text = text[:min(len(text), maxError)]
	return w.s.Store.DB.Write(ctx, "transaction was not taken", func(ctx context.Context, tx *sqlutil.Tx) error {
		noted, err := w.s.Store.NoteDown(ctx, tx, t, now.UnixMilli(), printable(text))
		if err != nil || !noted {
			return err
		}
		return w.s.Store.NoteAttempt(ctx, tx, t, now.Add(next).UnixMilli())
	})
}

// end removes a transaction that was taken, and what it settles.
func (w *worker) end(ctx context.Context, t *storage.Transaction) error {
	now := w.s.Now().UnixMilli()
	return w.s.Store.DB.Write(ctx, "transaction was taken", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := w.s.Store.NoteUp(ctx, tx, w.service, now); err != nil {
			return err
		}
		ended, err := w.s.Store.End(ctx, tx, t)
		if ended {
			tx.AfterCommit(func() { w.s.Metrics.took(w.service, t.Events) })
		}
		return err
	})
}

// cut makes the next transaction, of the oldest events that wait, and stores it. It is nil if nothing waits; its ID
// is 0 if what waited needs none, or if another process made one or skipped what waited since last was read.
func (w *worker) cut(ctx context.Context, r *registration.Registration, rows []storage.Event, last int64) (
	*storage.Transaction, error) {
	t := &storage.Transaction{Service: w.service}
	events, users, err := w.events(ctx, r, rows, t)
	if err != nil {
		return nil, err
	}
	var parts []Part
	empty, nothing := len(events) == 0, t.LastNumber == 0
	var missing error
	for _, c := range w.s.Companions {
		part, err := c.Collect(ctx, r, users)
		if err != nil {
			missing = errors.Join(missing, fmt.Errorf("what rides with events: %w", err))
			continue
		}
		parts, empty = append(parts, part), empty && part.Empty()
		nothing = nothing && part.Empty() && part.Taken == nil
	}
	switch {
	case nothing:
		return nil, missing
	case missing != nil: // it stays where it is, and does not hold up what is there
		w.log.WithError(missing).Warn("a transaction goes without what rides with its events")
	}
	if t.Body, err = body(events, parts); err != nil {
		return nil, err
	}
	now := w.s.Now().UnixMilli()
	err = w.s.Store.DB.Write(ctx, "transaction for a service", func(ctx context.Context, tx *sqlutil.Tx) error {
		t.ID = 0
		if empty {
			if err := w.s.Store.Settle(ctx, tx, w.service, t.LastNumber); err != nil {
				return err
			}
		} else if err := w.s.Store.Begin(ctx, tx, t, last, now); err != nil {
			return err
		}
		for i := range parts {
			if parts[i].Taken == nil {
				continue
			}
			if err := parts[i].Taken(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, storage.ErrUnderWay) {
		return &storage.Transaction{}, nil
	}
	return t, err
}

// events makes the events of a transaction, as many as fit, and says in t which rows they settle. users are the
// service's whom they are about.
func (w *worker) events(ctx context.Context, r *registration.Registration, rows []storage.Event,
	t *storage.Transaction) (
	events []json.RawMessage, users []id.UserID, err error) {
	all, bad, err := w.s.Events.read(ctx, rows)
	if err != nil {
		return nil, nil, err
	}
	set := w.s.Registrations.Load()
	about := func(user id.UserID) {
		if user != "" && !slices.Contains(users, user) && set.Owns(r, user) {
			users = append(users, user)
		}
	}
	w.asked(rows, bad)
	size := 0
	for i := range rows {
		number := rows[i].Number
		if why := bad[number]; why != nil {
			if w.poisoned[number] < asks && !errors.Is(why, errMissing) {
				if len(events) > 0 {
					break // those before it are sent first
				}
				return nil, nil, fmt.Errorf("event %s: %w", rows[i].EventID, why)
			}
			w.s.Metrics.Skipped(w.service, 1)
			w.log.WithError(why).WithField("event", rows[i].EventID).
				Error("an event is left out of what the application service is sent")
			t.LastNumber = number
			continue
		}
		if size += len(all[i].body); size > cmp.Or(w.atMost, maxBytes) && len(events) > 0 {
			break
		}
		events = append(events, all[i].body)
		t.LastNumber, t.Events = number, t.Events+1
		about(all[i].sender)
		about(all[i].target)
	}
	if len(events) > 0 {
		about(r.Sender)
	}
	return events, users, nil
}

// asked counts how often in a row each event could not be read, all at the same time: many are waited for no longer than
// one.
func (w *worker) asked(rows []storage.Event, bad map[int64]error) {
	before := w.poisoned
	w.poisoned = make(map[int64]int, len(bad))
	for i := range rows {
		if number := rows[i].Number; bad[number] != nil {
			w.poisoned[number] = before[number] + 1
		}
	}
}

// printable replaces what a database does not take in a text.
func printable(text string) string {
	out := make([]rune, 0, len(text))
	for _, c := range text {
		if c == 0 {
			c = '\uFFFD'
		}
		out = append(out, c)
	}
	return string(out)
}
