// Package syncapi is the component that answers /sync, and owns what only /sync shows: account data, tags, push rules, receipts,
// read markers and filters. It follows the roomserver's log into an index of its own (syncapi/storage).
package syncapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/answer"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/input"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/push"
	"github.com/matrix-org/dendrite/syncapi/routing"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// barrierTimeout is how long a request waits for what was committed before it. Beyond, it is answered with what there is.
const barrierTimeout = 5 * time.Second

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
	hub := stream.New(stream.Options{Events: cache, Typing: p.Typing, Presence: tracker, Transport: deps.Transport, Log: deps.Log, Sole: deps.Sole,
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
	log, err := eventlog.New(ctx, deps.DB, storage.Component, eventlog.Options{Log: deps.Log, Tracer: deps.Tracer, Sole: deps.Sole})
	if err != nil {
		return nil, fmt.Errorf("log of syncapi: %w", err)
	}
	output, err := log.Topic(ctx, api.Topic, nil)
	if err != nil {
		return nil, err
	}
	consumer, err := eventlog.NewConsumer(ctx, eventlog.ConsumerConfig{
		Name: "room", Topic: roomserver.Topic, Component: storage.Component, DB: deps.DB, Start: eventlog.Oldest,
		Source: eventlog.Source{
			Read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
				return p.Room.ReadLog(ctx, q)
			},
			Heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
				return p.Room.Heads(ctx, q)
			},
		},
		Handle: in.Handle, Commit: db.Commit, Log: deps.Log, Tracer: deps.Tracer, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of the roomserver's log: %w", err)
	}
	devices, err := eventlog.NewConsumer(ctx, eventlog.ConsumerConfig{
		Name: "user", Topic: clientapi.Topic, Component: storage.Component, DB: deps.DB, Start: eventlog.Oldest,
		Source: eventlog.Source{
			Read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
				return p.Client.ReadLog(ctx, q)
			},
			Heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
				return p.Client.Heads(ctx, q)
			},
		},
		Handle: dropGone(db), Commit: db.Commit, Log: deps.Log, Tracer: deps.Tracer, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of clientapi's log: %w", err)
	}
	pushes := &push.Service{Storage: db, Hub: hub, Room: p.Room, Judge: &notify.Judge{Room: p.Room, Events: cache}, Log: deps.Log,
		Client: sync.OnceValue(func() *http.Client { return deps.Outgoing(netpolicy.Push) })}
	b, err := newBarrier(deps, p.Room, consumer, hub)
	if err != nil {
		return nil, err
	}
	engine := &answer.Engine{Room: p.Room, Storage: db, Hub: hub, Events: cache, Barrier: b.wait, Draining: deps.Draining, Log: deps.Log}
	routes, err := routing.New(routing.Deps{Engine: engine, Storage: db, Events: cache, Room: p.Room, Client: p.Client, Presence: tracker != nil, Output: output, Log: deps.Log})
	if err != nil {
		return nil, fmt.Errorf("endpoints of syncapi: %w", err)
	}
	return &component.Component{
		Name: "syncapi",
		API: &api.SyncAPI{
			QueryIgnored: func(ctx context.Context, req api.QueryIgnoredRequest) (res api.QueryIgnoredResponse, err error) {
				err = db.Read(ctx, "ignored users", func(ctx context.Context, tx *sqlutil.Tx) error {
					content, err := db.AccountDataOne(ctx, tx, req.UserID, "", storage.IgnoredUsers)
					res.Users = storage.IgnoredIn(content)
					return err
				})
				return res, err
			},
			QueryBlockInvites: func(ctx context.Context, req api.QueryBlockInvitesRequest) (res api.QueryBlockInvitesResponse, err error) {
				err = db.Read(ctx, "invite permissions", func(ctx context.Context, tx *sqlutil.Tx) error {
					res.Blocking, err = db.BlockInvites(ctx, tx, req.UserIDs)
					return err
				})
				return res, err
			},
			InheritRoom: func(ctx context.Context, req api.InheritRoomRequest) (none api.Empty, err error) {
				return none, inheritRoom(ctx, db, &req)
			},
			TranslateToken: func(ctx context.Context, req api.TranslateTokenRequest) (api.TranslateTokenResponse, error) {
				return translateToken(ctx, db, req)
			},
			TagRoom: func(ctx context.Context, req api.TagRoomRequest) (api.Empty, error) {
				return api.Empty{}, tagRoom(ctx, db, &req)
			},
			ReadLog: output.Read,
			Heads:   output.Heads,
		},
		Routes: routes,
		Run: func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return deps.Transport.Relay(ctx, log) })
			group.Go(func() error { return deps.Transport.Follow(ctx, consumer) })
			group.Go(func() error { return hub.Run(ctx) })
			group.Go(func() error { return deps.Transport.Follow(ctx, devices) })
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

// dropGone removes the pushers of devices that are logged out (Client-Server API, § Push Notifications), and everything that is kept of
// users who are erased.
func dropGone(db *storage.Database) func(context.Context, []eventlog.Record) (eventlog.Apply, error) {
	return func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
		var gone []*clientapi.OutputDevice
		var erased []id.UserID
		for i := range records {
			switch records[i].Type {
			case clientapi.TypeDeviceDeleted:
				device, err := eventlog.Decode[clientapi.OutputDevice](&records[i])
				if err != nil {
					return nil, err
				}
				gone = append(gone, device)
			case clientapi.TypeErased:
				user, err := eventlog.Decode[clientapi.OutputErased](&records[i])
				if err != nil {
					return nil, err
				}
				erased = append(erased, user.UserID)
			}
		}
		if gone == nil && erased == nil {
			return nil, nil
		}
		return func(ctx context.Context, tx *sqlutil.Tx) error {
			if err := db.Erase(ctx, tx, erased); err != nil {
				return err
			}
			storage.Add(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, _ int64) (*storage.Changes, error) {
				changes := new(storage.Changes)
				for _, device := range gone {
					touched, err := db.DropPushersOf(ctx, tx, device.UserID, device.DeviceID)
					if err != nil {
						return nil, err
					}
					changes.Touched = append(changes.Touched, touched...)
				}
				return changes, nil
			})
			return nil
		}, nil
	}
}

// translateToken finds the newest event of a room that a token covers.
func translateToken(ctx context.Context, db *storage.Database, req api.TranslateTokenRequest) (api.TranslateTokenResponse, error) {
	token, err := answer.ParseToken(req.Token)
	if err != nil {
		return api.TranslateTokenResponse{}, err
	}
	var at map[id.RoomID]storage.TimelineRow
	err = db.Read(ctx, "token", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		at, err = db.At(ctx, tx, []id.RoomID{req.RoomID}, token.Pos)
		return err
	})
	return api.TranslateTokenResponse{Order: at[req.RoomID].Order}, err
}

// barrier makes requests wait for what the roomserver had committed when they began.
type barrier struct {
	heads    stream.Coalesced[eventlog.HeadsResponse]
	consumer *eventlog.Consumer
	hub      *stream.Hub
	deps     component.Deps
	late     prometheus.Counter
}

func newBarrier(deps component.Deps, room *roomserver.RoomserverAPI, consumer *eventlog.Consumer, hub *stream.Hub) (*barrier, error) {
	b := &barrier{consumer: consumer, hub: hub, deps: deps, late: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "dendrite_sync_late_total", Help: "Syncs that were answered although the log of rooms was not followed to its end."})}
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

func (b *barrier) wait(ctx context.Context) {
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
