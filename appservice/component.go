// Package appservice is the component for application services: it sends them what they are interested in, and asks them what
// only they know (Application Service API).
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
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

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
	log, err := eventlog.New(ctx, deps.DB, storage.Component, eventlog.Options{Log: deps.Log, Tracer: deps.Tracer, Sole: deps.Sole})
	if err != nil {
		return nil, fmt.Errorf("leases of appservice: %w", err)
	}
	metrics, err := transactions.NewMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics of appservice: %w", err)
	}
	client := outgoing.New(deps)
	var queues *services.Services
	secrets := encryption.New(encryption.Options{Store: store, Room: p.Room, Registrations: deps.Registrations, Log: deps.Log,
		Wake: func(service string) { queues.Queued([]string{service}) }})
	sender := transactions.NewSender(transactions.Options{Store: store, Registrations: deps.Registrations, Do: client.Do,
		Events: &transactions.Events{Query: func(ctx context.Context, req roomserver.QueryEventsRequest) (roomserver.QueryEventsResponse, error) {
			return p.Room.QueryEvents(ctx, req)
		}}, Companions: []transactions.Companions{secrets}, Log: deps.Log, Metrics: metrics, Now: time.Now})
	queues = services.New(services.Options{Registrations: deps.Registrations, Store: store, Sender: sender, Transport: deps.Transport,
		Sole: deps.Sole, Log: deps.Log, Now: time.Now, Skipped: metrics.Skipped})
	judge := interest.New(interest.Options{Server: deps.Config.Matrix.ServerName, Registrations: deps.Registrations, Room: p.Room, Store: store,
		Log: deps.Log, Registered: queues.Registered, Queued: queues.Queued, RoomsChanged: secrets.RoomsChanged})
	rooms, err := consumers.Room(ctx, deps, p.Room, judge.Handle)
	if err != nil {
		return nil, err
	}
	syncs, err := consumers.Sync(ctx, deps, p.Sync, secrets.TakeSync)
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
	pings := &ping.Service{Services: deps.Registrations, Client: client, Wait: ping.MaxWait, Alive: contract.NoteAlive, Log: deps.Log}
	contract.Ping = pings.Ping
	return &component.Component{
		Name:   storage.Component,
		API:    contract,
		Routes: routing.Routes(routing.Deps{Ping: pings.Ping, ThirdParty: lookups}),
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return queues.Tend(ctx) })
			group.Go(func() error { return queues.Run(ctx) })
			group.Go(func() error { return deps.Transport.Follow(ctx, rooms) })
			group.Go(func() error { return deps.Transport.Follow(ctx, syncs) })
			group.Go(func() error { return deps.Transport.Follow(ctx, users) })
			group.Go(func() error { return secrets.Run(ctx) })
			group.Go(func() error {
				if deps.Sole {
					return sender.Run(ctx)
				}
				return log.Hold(ctx, "transactions", sender.Run)
			})
			return group.Wait()
		},
		Ready: func(ctx context.Context) error { return errors.Join(deps.DB.Ping(ctx), deps.Transport.Ready(ctx)) },
	}, nil
}
