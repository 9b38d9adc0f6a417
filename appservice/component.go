// Package appservice is the component for application services: it sends them what they are interested in, and asks
// them what only they know (Application Service API).
package appservice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/consumers"
	"github.com/matrix-org/dendrite/appservice/encryption"
	"github.com/matrix-org/dendrite/appservice/ephemeral"
	"github.com/matrix-org/dendrite/appservice/interest"
	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/appservice/ping"
	"github.com/matrix-org/dendrite/appservice/questions"
	"github.com/matrix-org/dendrite/appservice/routing"
	"github.com/matrix-org/dendrite/appservice/services"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/thirdparty"
	"github.com/matrix-org/dendrite/appservice/transactions"
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/periodic"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// firstWait and lastWait are how long is waited for the roomserver when the component starts.
const (
	firstWait = 20 * time.Millisecond
	lastWait  = 2 * time.Second
)

// observeEvery is how often the metrics of backlogs are brought up to date.
const observeEvery = 15 * time.Second

// Peers are the components that this one asks.
type Peers struct {
	Room   *roomserver.RoomserverAPI
	Client *clientapi.ClientAPI
	Sync   *syncapi.SyncAPI
	Typing *typingserver.TypingserverAPI
}

// New builds the component.
func New(ctx context.Context, deps component.Deps, p Peers) (*component.Component, error) {
	store, err := storage.Open(ctx, deps.DB)
	if err != nil {
		return nil, err
	}
	log, err := eventlog.New(ctx, deps.DB, storage.Component, eventlog.Options{Log: deps.Log, Tracer: deps.Tracer,
		Sole: deps.Sole})
	if err != nil {
		return nil, fmt.Errorf("leases of appservice: %w", err)
	}
	metrics, err := transactions.NewMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics of appservice: %w", err)
	}
	client := outgoing.New(deps)
	var queues *services.Services
	secrets := encryption.New(encryption.Options{Store: store, Room: p.Room, Registrations: deps.Registrations,
		Log:  deps.Log,
		Wake: func(service string) { queues.Queued([]string{service}) }})
	passing := ephemeral.New(ephemeral.Options{Store: store, Registrations: deps.Registrations, Room: p.Room,
		Typing:    p.Typing,
		Transport: deps.Transport, Registered: func(service string) int64 { return queues.Registered(service) },
		Queued: func(services []string) { queues.Queued(services) }, Log: deps.Log, Now: time.Now})
	sender := transactions.NewSender(transactions.Options{Store: store, Registrations: deps.Registrations,
		Do: client.Do,
		Events: &transactions.Events{Query: func(ctx context.Context,
			req roomserver.QueryEventsRequest) (roomserver.QueryEventsResponse, error) {
			return p.Room.QueryEvents(ctx, req)
		}}, Companions: []transactions.Companions{secrets, passing}, Log: deps.Log, Metrics: metrics, Now: time.Now})
	queues = services.New(services.Options{Registrations: deps.Registrations, Store: store, Sender: sender,
		Transport: deps.Transport,
		Sole:      deps.Sole, Log: deps.Log, Now: time.Now, Skipped: metrics.Skipped})
	judge := interest.New(interest.Options{Server: deps.Config.Matrix.ServerName, Registrations: deps.Registrations,
		Room: p.Room, Store: store,
		Log: deps.Log, Registered: queues.Registered, Queued: queues.Queued, RoomsChanged: secrets.RoomsChanged})
	rooms, err := consumers.Room(ctx, deps, p.Room, queues.Empty, judge.Handle)
	if err != nil {
		return nil, err
	}
	syncs, err := consumers.Sync(ctx, deps, p.Sync, secrets.TakeSync, passing.TakeSync)
	if err != nil {
		return nil, err
	}
	users, err := consumers.User(ctx, deps, p.Client, secrets.TakeUser)
	if err != nil {
		return nil, err
	}
	asked := questions.New(deps.Registrations, client, deps.Log, time.Now)
	lookups := thirdparty.New(deps.Registrations, client, deps.Log, time.Now)
	contract := &api.AppserviceAPI{
		QueryAlias: asked.QueryAlias, QueryUser: asked.QueryUser,
		NoteAlive: queues.NoteAlive, QueryStatus: queues.QueryStatus, Retry: queues.Retry, Skip: queues.Skip,
	}
	pings := &ping.Service{Services: deps.Registrations, Client: client, Wait: ping.MaxWait,
		Alive: contract.NoteAlive, Log: deps.Log}
	contract.Ping = pings.Ping
	// What a service was not registered for must not be taken for it, and what happens from the start on must be.
	begun := make(chan struct{})
	begin := func(ctx context.Context) error {
		if !queues.Noted(ctx) {
			return nil
		}
		for wait := firstWait; ; wait = min(2*wait, lastWait) {
			err := rooms.Begin(ctx)
			if err == nil {
				close(begun)
				return nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
				deps.Log.WithError(err).WithField("again_in", wait).Warn("the roomserver's log cannot be followed yet")
			}
		}
	}
	follow := func(ctx context.Context, c *eventlog.Consumer) error {
		select {
		case <-ctx.Done():
			return nil
		case <-begun:
			return deps.Transport.Follow(ctx, c)
		}
	}
	send := func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return sender.Run(ctx) })
		group.Go(func() error {
			defer metrics.Reset()
			periodic.Run(ctx, observeEvery, deps.Log, "the backlogs of application services cannot be counted now",
				func(ctx context.Context) error {
					status, err := queues.QueryStatus(ctx, api.QueryStatusRequest{})
					metrics.Observe(status.Services, time.Now())
					return err
				})
			return nil
		})
		return group.Wait()
	}
	return &component.Component{
		Name:   storage.Component,
		API:    contract,
		Routes: routing.Routes(routing.Deps{Ping: pings.Ping, ThirdParty: lookups}),
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return queues.Tend(ctx) })
			group.Go(func() error { return queues.Run(ctx) })
			group.Go(func() error { return begin(ctx) })
			group.Go(func() error { return follow(ctx, rooms) })
			group.Go(func() error { return follow(ctx, syncs) })
			group.Go(func() error { return follow(ctx, users) })
			group.Go(func() error { return secrets.Run(ctx) })
			for lease, run := range map[string]func(context.Context) error{"transactions": send,
				"typing": passing.Run} {
				group.Go(func() error {
					if deps.Sole {
						return run(ctx)
					}
					return log.Hold(ctx, lease, run)
				})
			}
			return group.Wait()
		},
		Ready: func(ctx context.Context) error {
			select {
			case <-begun:
			default: // it needs the roomserver once, to know from where on services get events
				return errors.New("the roomserver's log is not followed yet")
			}
			return errors.Join(deps.DB.Ping(ctx), deps.Transport.Ready(ctx))
		},
	}, nil
}
