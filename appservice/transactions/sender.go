package transactions

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/pace"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	// maxEvents and maxBytes bound the events of a transaction: their number and, if they are more than one, their bytes.
	// Many services, and servers in front of them, take requests of 1 MiB.
	maxEvents = 100
	maxBytes  = 512 << 10
	firstWait = time.Second
	lastWait  = 5 * time.Minute
	// lookEvery is how often it is looked for what waits and nobody told of: another replica was killed after its
	// commit.
	lookEvery = 2 * time.Second
)

// Do sends a request to a service: see outgoing.Client.
type Do func(ctx context.Context, service *registration.Registration, method, path, legacyPath string, query url.Values,
	body []byte) (status int, answer []byte, err error)

// Options are what a Sender is made of.
type Options struct {
	Store         *storage.Store
	Registrations *registration.Holder
	Events        *Events
	Do            Do
	Companions    []Companions
	Log           *logrus.Entry
	Metrics       *Metrics
	Now           func() time.Time
	// FirstWait is how long a service is left alone that has not taken a transaction. It doubles with each attempt,
	// up to LastWait. 0: a second, and five minutes.
	FirstWait, LastWait time.Duration
}

// Sender sends what waits for services, to each one transaction after the other, and to all at the same time. One
// process of all replicas does, by a lease. What a transaction says is stored before it is sent, and does not
// change. It is safe for concurrent use.
type Sender struct {
	Options

	mu      sync.Mutex
	running context.Context // nil while another process sends
	workers map[string]*worker
	paces   map[string]*pace.Pace // by service
	all     sync.WaitGroup
}

// NewSender makes one.
func NewSender(o Options) *Sender {
	if o.FirstWait == 0 {
		o.FirstWait, o.LastWait = firstWait, lastWait
	}
	return &Sender{Options: o, workers: make(map[string]*worker), paces: make(map[string]*pace.Pace)}
}

// Run sends until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.running = ctx
	s.mu.Unlock()
	defer func() {
		cancel()
		s.mu.Lock()
		s.running = nil
		s.mu.Unlock()
		s.all.Wait()
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := s.Registrations.Changed()
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.Log.WithError(err).Warn("what waits for application services cannot be read now")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			s.allAlive() // a url may be another one
		case <-tick.C:
		}
	}
}

// allAlive ends the waits for all services.
func (s *Sender) allAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.isAlive()
	}
}

// look starts what sends to services for which something waits.
func (s *Sender) look(ctx context.Context) error {
	if s.Registrations.Load().Empty() {
		return nil
	}
	var waiting []string
	err := s.Store.DB.ReadOne(ctx, "services with something to send", func(ctx context.Context,
		tx *sqlutil.Tx) (err error) {
		waiting, err = s.Store.Waiting(ctx, tx)
		return err
	})
	for _, c := range s.Companions {
		more, failed := c.Waiting(ctx)
		waiting, err = append(waiting, more...), errors.Join(err, failed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, service := range waiting {
		if s.workers[service] == nil {
			s.start(service)
		}
	}
	return err
}

// Wake says that something waits for a service. It does nothing where another process sends.
func (s *Sender) Wake(service string) { s.wake(service, false) }

// Alive says that a service is there: if it is left alone after a failure, that ends.
func (s *Sender) Alive(service string) { s.wake(service, true) }

func (s *Sender) wake(service string, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workers[service]
	if w == nil {
		s.start(service)
		return
	}
	w.again = true
	if alive {
		w.isAlive()
	}
}

// start starts what sends to a service. The lock is held.
func (s *Sender) start(service string) {
	if s.running == nil || s.running.Err() != nil {
		return
	}
	if r := s.Registrations.Load().ByID(service); r == nil || r.URL == "" {
		return
	}
	if s.paces[service] == nil {
		s.paces[service] = new(pace.Pace)
	}
	w := &worker{s: s, service: service, pace: s.paces[service], alive: make(chan struct{}, 1), log: s.Log.WithField("service", service)}
	s.workers[service] = w
	ctx := s.running
	s.all.Go(func() { w.run(ctx) })
}

// rest ends a worker that has found nothing to send, unless something has come meanwhile.
func (s *Sender) rest(w *worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.again {
		w.again = false
		return false
	}
	delete(s.workers, w.service)
	return true
}
