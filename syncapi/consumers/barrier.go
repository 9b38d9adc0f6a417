package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// barrierTimeout is how long a request waits for what was committed before it. Beyond, it is answered with what there
// is.
const barrierTimeout = 5 * time.Second

// Barrier makes requests wait for what the roomserver had committed when they began.
type Barrier struct {
	heads    stream.Coalesced[eventlog.HeadsResponse]
	consumer *eventlog.Consumer
	hub      *stream.Hub
	deps     component.Deps
	late     prometheus.Counter
}

// NewBarrier makes the barrier before what a consumer of the roomserver's log has applied.
func NewBarrier(
	deps component.Deps, room *roomserver.RoomserverAPI, consumer *eventlog.Consumer, hub *stream.Hub,
) (*Barrier, error) {
	b := &Barrier{consumer: consumer, hub: hub, deps: deps, late: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dendrite_sync_late_total",
		Help: "Syncs that were answered although the log of rooms was not followed to its end."})}
	b.heads.Ask = func(ctx context.Context) (eventlog.HeadsResponse, error) {
		return room.Heads(ctx, eventlog.HeadsRequest{Topic: roomserver.Topic})
	}
	if deps.Metrics != nil {
		if err := deps.Metrics.Register(b.late); err != nil {
			return nil, fmt.Errorf("metrics of syncapi: %w", err)
		}
	}
	return b, nil
}

// Wait returns when what was committed can be seen here, or when it has waited long enough.
func (b *Barrier) Wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	heads, err := b.heads.Get(ctx)
	if err == nil {
		err = b.consumer.WaitFor(ctx, heads.Heads)
	}
	// What syncapi itself has committed can be seen even while the roomserver cannot be asked.
	if err = errors.Join(err, b.hub.Reach(ctx)); err != nil {
		b.late.Inc()
		b.deps.Log.WithError(err).Debug("a sync does not wait any longer for what was committed before it")
	}
}
