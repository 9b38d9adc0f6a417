// Package syncapi is the component that answers /sync, and owns what only /sync shows: account data, tags, push rules, receipts,
// read markers and filters. It follows the roomserver's log into an index of its own (syncapi/storage).
package syncapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/accountdata"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/consumers"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/input"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/push"
	"github.com/matrix-org/dendrite/syncapi/receipts"
	"github.com/matrix-org/dendrite/syncapi/routing"
	"github.com/matrix-org/dendrite/syncapi/rules"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
	"github.com/matrix-org/dendrite/syncapi/todevice"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// Peers are the components that syncapi asks.
type Peers struct {
	Room   *roomserver.RoomserverAPI
	Client *clientapi.ClientAPI
	Typing *typingserver.TypingserverAPI
}

// New builds the component.
func New(ctx context.Context, deps component.Deps, p Peers) (*component.Component, error) {
	cache := events.New(p.Room)
	var in *input.Input
	var tracker *presence.Tracker
	if deps.Config.Matrix.Presence.Enabled {
		tracker = presence.NewTracker(time.Now)
	}
	var output *eventlog.Topic
	hub := stream.New(stream.Options{PresenceChanged: func(ctx context.Context, changed []stream.Presence) {
		if !deps.Registrations.Load().WantsEphemeral() {
			return
		}
		if err := tellPresence(ctx, deps.DB, output, changed); err != nil && ctx.Err() == nil {
			deps.Log.WithError(err).Warn("application services are not told of presence")
		}
	},
		Events: cache, Typing: p.Typing, Presence: tracker, Transport: deps.Transport, Log: deps.Log, Sole: deps.Sole,
		RulesChanged: func(users []id.UserID) { in.Forget(users) }}, rand.Text())
	db, err := storage.New(ctx, deps.DB, hub.Committed)
	if err != nil {
		return nil, err
	}
	if in, err = input.New(deps.Config.Matrix.ServerName, p.Room, db, cache); err != nil {
		return nil, err
	}
	if err := hub.Start(ctx, db); err != nil {
		return nil, err
	}
	pushRules := &rules.Store{Storage: db}
	if err := pushRules.Shrink(ctx); err != nil {
		return nil, err
	}
	log, err := eventlog.New(ctx, deps.DB, storage.Component, eventlog.Options{Log: deps.Log, Tracer: deps.Tracer, Sole: deps.Sole})
	if err != nil {
		return nil, fmt.Errorf("log of syncapi: %w", err)
	}
	if output, err = log.Topic(ctx, api.Topic, nil); err != nil {
		return nil, err
	}
	rooms, err := consumers.Room(ctx, deps, p.Room, db, in)
	if err != nil {
		return nil, err
	}
	var messages *todevice.Service
	users, err := consumers.User(ctx, deps, p.Client, db, func() { messages.Gone() })
	if err != nil {
		return nil, err
	}
	barrier, err := consumers.NewBarrier(deps, p.Room, p.Client, rooms, users, hub)
	if err != nil {
		return nil, err
	}
	messages = todevice.New(todevice.Deps{Storage: db, Client: p.Client, Hub: hub, Output: output,
		ServerName: deps.Config.Matrix.ServerName, Registrations: deps.Registrations, Barrier: barrier.WaitUsers,
		Log: deps.Log})
	pushes := &push.Service{Storage: db, Hub: hub, Room: p.Room, Judge: &notify.Judge{Room: p.Room, Events: cache},
		Log:    deps.Log,
		Client: sync.OnceValue(func() *http.Client { return deps.Outgoing(netpolicy.Push) })}
	engine := &answer.Engine{Room: p.Room, Storage: db, Hub: hub, Events: cache, ToDevice: messages, Barrier: barrier.Wait,
		Draining: deps.Draining, Log: deps.Log}
	data := &accountdata.Service{Storage: db, Room: p.Room}
	marks := &receipts.Service{Storage: db, Room: p.Room, Output: output, Barrier: barrier.Wait,
		Private: func(user id.UserID) bool { return deps.Registrations.Load().WantsPrivate(user) }}
	routes, err := routing.New(routing.Deps{Engine: engine, Storage: db, Client: p.Client, AccountData: data,
		Receipts: marks, ToDevice: messages, Rules: pushRules, Presence: tracker != nil})
	if err != nil {
		return nil, fmt.Errorf("endpoints of syncapi: %w", err)
	}
	return &component.Component{
		Name:   "syncapi",
		API:    newAPI(engine, data, messages, output),
		Routes: routes,
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return deps.Transport.Relay(ctx, log) })
			group.Go(func() error { return deps.Transport.Follow(ctx, rooms) })
			group.Go(func() error { return deps.Transport.Follow(ctx, users) })
			group.Go(func() error { return hub.Run(ctx) })
			group.Go(func() error { return messages.Run(ctx) })
			group.Go(func() error {
				if deps.Sole {
					return pushes.Run(ctx)
				}
				return log.Hold(ctx, "push", pushes.Run)
			})
			return group.Wait()
		},
		Ready: func(ctx context.Context) error { return errors.Join(deps.DB.Ping(ctx), deps.Transport.Ready(ctx)) },
	}, nil
}

// maxPresenceRooms is how many rooms of a user are named where their presence is told: who shares none of these does not hear
// of it.
const maxPresenceRooms = 1000

// presenceOnce is of how many users one transaction tells: thousands become something else at the same time where many
// clients come back.
const presenceOnce = 50

// tellPresence writes what users have become into the log.
func tellPresence(ctx context.Context, db *sqlutil.DB, output *eventlog.Topic, changed []stream.Presence) error {
	for some := range slices.Chunk(changed, presenceOnce) {
		if err := tellPresenceOf(ctx, db, output, some); err != nil {
			return err
		}
	}
	return nil
}

func tellPresenceOf(ctx context.Context, db *sqlutil.DB, output *eventlog.Topic, changed []stream.Presence) error {
	return db.Write(ctx, "presence for services", func(ctx context.Context, tx *sqlutil.Tx) error {
		for i := range changed {
			p := &changed[i]
			rooms := p.Rooms()
			output.Append(ctx, tx, string(p.UserID), api.TypePresence, &api.OutputPresence{UserID: p.UserID, Presence: string(p.State),
				StatusMsg: p.StatusMsg, Active: p.Active, Rooms: rooms[:min(len(rooms), maxPresenceRooms)]})
		}
		return nil
	})
}

// newAPI is what other components may ask.
func newAPI(
	engine *answer.Engine, data *accountdata.Service, messages *todevice.Service, output *eventlog.Topic,
) *api.SyncAPI {
	return &api.SyncAPI{
		QueryIgnored: func(ctx context.Context, req api.QueryIgnoredRequest) (res api.QueryIgnoredResponse, err error) {
			res.Users, err = data.Ignored(ctx, req.UserID)
			return res, err
		},
		QueryBlockInvites: func(
			ctx context.Context, req api.QueryBlockInvitesRequest,
		) (res api.QueryBlockInvitesResponse, err error) {
			res.Blocking, err = data.BlockInvites(ctx, req.UserIDs)
			return res, err
		},
		InheritRoom: func(ctx context.Context, req api.InheritRoomRequest) (api.Empty, error) {
			return api.Empty{}, data.Inherit(ctx, req.UserID, req.From, req.To)
		},
		TagRoom: func(ctx context.Context, req api.TagRoomRequest) (api.Empty, error) {
			return api.Empty{}, data.AddTag(ctx, req.UserID, req.RoomID, req.Tag)
		},
		TranslateToken: func(
			ctx context.Context, req api.TranslateTokenRequest,
		) (res api.TranslateTokenResponse, err error) {
			res.Order, err = engine.Translate(ctx, req.RoomID, req.Token)
			return res, err
		},
		SendToDevice: func(ctx context.Context, req api.SendToDeviceRequest) (api.Empty, error) {
			return api.Empty{}, messages.Send(ctx, &todevice.Request{SendToDeviceRequest: req})
		},
		ReadLog: output.Read,
		Heads:   output.Heads,
	}
}
