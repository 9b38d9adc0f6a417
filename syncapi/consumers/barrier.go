package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// barrierTimeout is how long a request waits for what was committed before it. Beyond, it is answered with what there
// is.
const barrierTimeout = 5 * time.Second

// Barrier makes requests wait for what the roomserver and clientapi had committed when they began.
type Barrier struct {
	rooms, users followed
	hub          *stream.Hub
	deps         component.Deps
	late         prometheus.Counter
}

// followed is a log with who follows it.
type followed struct {
	heads    stream.Coalesced[eventlog.HeadsResponse]
	consumer *eventlog.Consumer
}

// NewBarrier makes the barrier before what the consumers of both logs have applied.
func NewBarrier(
	deps component.Deps, room *roomserver.RoomserverAPI, client *clientapi.ClientAPI, rooms, users *eventlog.Consumer,
	hub *stream.Hub,
) (*Barrier, error) {
	b := &Barrier{hub: hub, deps: deps, late: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dendrite_sync_late_total",
		Help: "Syncs that were answered although the log of rooms or of users was not followed to its end."})}
	b.rooms.consumer, b.users.consumer = rooms, users
	b.rooms.heads.Ask = func(ctx context.Context) (eventlog.HeadsResponse, error) {
		return room.Heads(ctx, eventlog.HeadsRequest{Topic: roomserver.Topic})
	}
	b.users.heads.Ask = func(ctx context.Context) (eventlog.HeadsResponse, error) {
		return client.Heads(ctx, eventlog.HeadsRequest{Topic: clientapi.Topic})
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(b.late); err != nil {
			return nil, fmt.Errorf("metrics of syncapi: %w", err)
		}
	}
	return b, nil
}

// wait returns when what is in the log now is applied.
func (f *followed) wait(ctx context.Context) error {
	heads, err := f.heads.Get(ctx)
	if err != nil {
		return err
	}
	return f.consumer.WaitFor(ctx, heads.Heads)
}

// Wait returns when what was committed can be seen here, or when it has waited long enough.
func (b *Barrier) Wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	users := make(chan error, 1)
	go func() { users <- b.users.wait(ctx) }()
	err := errors.Join(b.rooms.wait(ctx), <-users)
	// What syncapi itself has committed can be seen even while others cannot be asked.
	if err = errors.Join(err, b.hub.Reach(ctx)); err != nil {
		b.late.Inc()
		b.deps.Log.WithError(err).Debug("a sync does not wait any longer for what was committed before it")
	}
}

// WaitUsers returns when what clientapi had committed is applied here. It fails where that takes too long.
func (b *Barrier) WaitUsers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	return b.users.wait(ctx)
}
