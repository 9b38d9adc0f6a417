// Package services keeps what this server knows of its application services besides their registrations: since when
// they are registered, how far they are, and what an operator does to their queues.
package services

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	// keepRemoved is how long what waits for a service is kept after its registration has gone, or has lost its url: an
	// operator's mistake loses nothing.
	keepRemoved = 7 * 24 * time.Hour
	// tendEvery is how often it is looked for services to forget.
	tendEvery = time.Hour
	// retryNoting is when that is tried again after it failed.
	retryNoting = time.Second
	// wakeTopic is where replicas tell each other of services for which something waits.
	wakeTopic = "appservice_wake"
)

// Sender sends what waits. It does nothing where another replica sends.
type Sender interface {
	Wake(service string)
	Alive(service string)
}

// Options are what Services is made of.
type Options struct {
	Registrations *registration.Holder
	Store         *storage.Store
	Sender        Sender
	Transport     eventlog.Transport
	Sole          bool
	Log           *logrus.Entry
	Now           func() time.Time
	// Skipped is told of events that an operator has dropped.
	Skipped func(service string, events int64)
}

// Services answers for the queues. It is safe for concurrent use.
type Services struct {
	Options
	registered atomic.Pointer[map[string]int64] // of services that are remembered, and of those that are registered
	outbox     chan wake
	noted      chan struct{} // closed when the registrations were noted once
}

// wake is a message to the other replicas.
type wake struct {
	Services []string `json:"services"`
	Alive    bool     `json:"alive,omitempty"`
}

// New makes one.
func New(o Options) *Services {
	s := &Services{Options: o, outbox: make(chan wake, 100), noted: make(chan struct{})}
	s.registered.Store(&map[string]int64{})
	return s
}

// Registered tells when a service was registered, in ms; 0 if that is not known yet.
func (s *Services) Registered(service string) int64 { return (*s.registered.Load())[service] }

// Empty tells whether no service is registered, and none is remembered that was: what happens in rooms is for nobody,
// now or when one comes back.
func (s *Services) Empty() bool {
	return s.Registrations.Load().Empty() && len(*s.registered.Load()) == 0
}

// Queued says that something waits for services.
func (s *Services) Queued(services []string) { s.tell(wake{Services: services}) }

func (s *Services) tell(w wake) {
	s.hear(w)
	if s.Sole {
		return
	}
	select {
	case s.outbox <- w:
	default: // the sender looks by itself
	}
}

func (s *Services) hear(w wake) {
	for _, service := range w.Services {
		if w.Alive {
			s.Sender.Alive(service)
		} else {
			s.Sender.Wake(service)
		}
	}
}

// Run carries wakes to and from other replicas, until ctx ends.
func (s *Services) Run(ctx context.Context) error {
	if s.Sole {
		<-ctx.Done()
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.publish(ctx) })
	group.Go(func() error {
		return s.Transport.Subscribe(ctx, wakeTopic, func(_ string, message []byte) {
			var w wake
			if err := json.Unmarshal(message, &w); err != nil {
				s.Log.WithError(err).Warn("a message of another replica cannot be read")
				return
			}
			s.hear(w)
		}, nil)
	})
	return group.Wait()
}

func (s *Services) publish(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-s.outbox:
			message, err := json.Marshal(w)
			if err == nil {
				err = s.Transport.Publish(ctx, wakeTopic, "", message)
			}
			if err != nil && ctx.Err() == nil {
				s.Log.WithError(err).Warn("other replicas are not told what waits: they will look by themselves")
			}
		}
	}
}

// Tend notes which services come and go, until ctx ends.
func (s *Services) Tend(ctx context.Context) error {
	var once sync.Once
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		changed := s.Registrations.Changed()
		retry := (<-chan time.Time)(nil)
		if err := s.note(ctx); err == nil {
			once.Do(func() { close(s.noted) })
		} else if ctx.Err() == nil {
			s.Log.WithError(err).Warn("the registrations of application services cannot be noted now")
			retry = time.After(retryNoting)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		case <-retry:
		}
	}
}

// Noted waits until it is known which services are new since the last start. It is false if ctx ends before.
func (s *Services) Noted(ctx context.Context) bool {
	select {
	case <-s.noted:
		return true
	case <-ctx.Done():
		return false
	}
}

// note remembers services that are new, marks those that are gone, and forgets those that are gone for long.
func (s *Services) note(ctx context.Context) error {
	set, now := s.Registrations.Load(), s.Now()
	var known []storage.Service
	err := s.Store.DB.ReadOne(ctx, "services", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		known, err = s.Store.Services(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	registered, present := make(map[string]int64), make(map[string]bool)
	var gone, forgotten, fresh []string
	for i := range known {
		k := &known[i]
		registered[k.ID] = k.RegisteredMS
		if r := set.ByID(k.ID); r == nil || r.URL == "" {
			gone = append(gone, k.ID)
		} else {
			present[k.ID] = k.RemovedMS == 0
		}
	}
	for _, r := range set.All() {
		if r.URL != "" && !present[r.ID] {
			fresh = append(fresh, r.ID)
		}
	}
	if len(gone)+len(fresh) > 0 {
		err = s.Store.DB.Write(ctx, "services come and go", func(ctx context.Context, tx *sqlutil.Tx) error {
			forgotten = nil
			if err := s.Store.AddServices(ctx, tx, fresh, now.UnixMilli()); err != nil {
				return err
			}
			for _, service := range gone {
				if err := s.Store.MarkRemoved(ctx, tx, service, now.UnixMilli()); err != nil {
					return err
				}
				deleted, err := s.Store.DeleteService(ctx, tx, service, now.Add(-keepRemoved).UnixMilli())
				if err != nil {
					return fmt.Errorf("forget %s: %w", service, err)
				}
				if deleted {
					forgotten = append(forgotten, service)
					tx.AfterCommit(func() {
						s.Log.WithField("service", service).
							Info("what waited for an application service that is gone is deleted")
					})
				}
			}
			if len(forgotten) == len(known) && len(fresh) == 0 {
				return s.Store.ForgetRooms(ctx, tx)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, service := range forgotten {
		delete(registered, service)
	}
	for _, service := range fresh {
		if _, was := registered[service]; !was {
			registered[service] = now.UnixMilli()
		}
	}
	s.registered.Store(&registered)
	return nil
}

// QueryStatus is of the contract.
func (s *Services) QueryStatus(ctx context.Context, req api.QueryStatusRequest) (
	res api.QueryStatusResponse, err error) {
	set := s.Registrations.Load()
	var known []storage.Service
	var backlogs map[string]storage.Backlog
	var underWay []storage.Transaction
	err = s.Store.DB.Read(ctx, "status of services", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if known, err = s.Store.Services(ctx, tx); err != nil {
			return err
		}
		if backlogs, err = s.Store.Backlogs(ctx, tx); err != nil {
			return err
		}
		underWay, err = s.Store.Transactions(ctx, tx)
		return err
	})
	if err != nil {
		return res, fmt.Errorf("status of application services: %w", err)
	}
	wanted := req.Services
	if len(wanted) == 0 {
		for _, r := range set.All() {
			wanted = append(wanted, r.ID)
		}
	}
	for _, service := range wanted {
		r := set.ByID(service)
		if r == nil {
			return res, noService(service)
		}
		status := api.Status{Service: service, URL: r.URL, Up: true, Backlog: backlogs[service].Events,
			Oldest: backlogs[service].OldestMS}
		for i := range known {
			if k := &known[i]; k.ID == service {
				status.Up, status.Since = k.Up, k.SinceMS
				status.LastError, status.LastSuccess = k.LastError, k.LastSuccess
			}
		}
		for i := range underWay {
			if t := &underWay[i]; t.Service == service {
				status.TransactionID, status.Attempts, status.NextAttempt = fmt.Sprint(t.ID), t.Attempts, t.NextMS
			}
		}
		res.Services = append(res.Services, status)
	}
	return res, nil
}

func noService(service string) error {
	return mxerr.NotFound("there is no application service %s", service)
}

// Retry is of the contract.
func (s *Services) Retry(_ context.Context, req api.RetryRequest) (none api.Empty, err error) {
	if s.Registrations.Load().ByID(req.Service) == nil {
		return none, noService(req.Service)
	}
	s.tell(wake{Services: []string{req.Service}, Alive: true})
	return none, nil
}

// NoteAlive is of the contract.
func (s *Services) NoteAlive(_ context.Context, req api.NoteAliveRequest) (none api.Empty, err error) {
	s.tell(wake{Services: []string{req.Service}, Alive: true})
	return none, nil
}

// Skip is of the contract. It is for services that are gone too.
func (s *Services) Skip(ctx context.Context, req api.SkipRequest) (res api.SkipResponse, err error) {
	err = s.Store.DB.Write(ctx, "skip what waits for a service", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		res.Events, err = s.Store.Skip(ctx, tx, req.Service, req.All)
		return err
	})
	if err != nil {
		return res, fmt.Errorf("skip what waits for %s: %w", req.Service, err)
	}
	s.Skipped(req.Service, res.Events)
	s.Log.WithFields(logrus.Fields{"service": req.Service, "events": res.Events, "all": req.All}).
		Warn("an operator skips what waits for an application service")
	s.tell(wake{Services: []string{req.Service}, Alive: true})
	return res, nil
}
