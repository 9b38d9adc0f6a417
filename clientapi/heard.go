package clientapi

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	appservice "github.com/matrix-org/dendrite/appservice/api"
)

const (
	// heardEvery is how often at most it is told that a service has asked for something.
	heardEvery = 5 * time.Second
	// heardWaiting is how many services wait to be told of; beyond, the next request of a service tells of it.
	heardWaiting = 1000
	// heardTimeout bounds the telling.
	heardTimeout = 10 * time.Second
)

// heard tells appservice which services ask this server for something, and so can be reached again.
type heard struct {
	app *appservice.AppserviceAPI
	log *logrus.Entry
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // by service
	next chan string
}

func newHeard(app *appservice.AppserviceAPI, log *logrus.Entry, now func() time.Time) *heard {
	return &heard{app: app, log: log, now: now, last: make(map[string]time.Time), next: make(chan string, heardWaiting)}
}

// note does not wait.
func (h *heard) note(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if now.Sub(h.last[service]) < heardEvery {
		return
	}
	select {
	case h.next <- service:
		h.last[service] = now
	default:
	}
}

func (h *heard) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case service := <-h.next:
			h.tell(ctx, service)
		}
	}
}

func (h *heard) tell(ctx context.Context, service string) {
	ctx, cancel := context.WithTimeout(ctx, heardTimeout)
	defer cancel()
	if _, err := h.app.NoteAlive(ctx, appservice.NoteAliveRequest{Service: service}); err != nil && ctx.Err() == nil {
		h.log.WithError(err).WithField("service", service).Debug("appservice is not told that a service is there")
	}
}
