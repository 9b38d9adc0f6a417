// Package clientapi is the component that owns accounts, devices, access tokens and profiles, and serves the Client-Server API but
// for what syncapi, mediaapi and appservice serve. Rooms and typing it reads and changes through the contracts of their owners.
package clientapi

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	appservice "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/backups"
	"github.com/matrix-org/dendrite/clientapi/dehydration"
	"github.com/matrix-org/dendrite/clientapi/delayed"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/clientapi/notices"
	"github.com/matrix-org/dendrite/clientapi/profiles"
	"github.com/matrix-org/dendrite/clientapi/propagate"
	"github.com/matrix-org/dendrite/clientapi/routing"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/clientapi/uia"
	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/periodic"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// Peers are the contracts that clientapi calls.
type Peers struct {
	Room   *roomserver.RoomserverAPI
	Sync   *syncapi.SyncAPI
	Typing *typingserver.TypingserverAPI
	App    *appservice.AppserviceAPI
}

// sweepEvery is how often sessions that are over are removed.
const sweepEvery = 10 * time.Minute

// New builds clientapi.
func New(ctx context.Context, deps component.Deps, p Peers) (*component.Component, error) {
	forget := func(id.UserID, id.DeviceID) {}
	if cache, can := deps.Auth.(interface {
		Forget(user id.UserID, device id.DeviceID)
	}); can {
		forget = cache.Forget
	}
	matrix := &deps.Config.Matrix
	o := eventlog.Options{Log: deps.Log, Tracer: deps.Tracer, Sole: deps.Sole}
	owned, err := open(ctx, deps.DB, matrix, o, accounts.Deps{Limits: deps.Limits, Registrations: deps.Registrations, Forget: forget})
	if err != nil {
		return nil, err
	}
	store, users := owned.store, owned.users
	profileService := profiles.New(store, users, matrix.ServerName, time.Now)
	seen := accounts.NewLastSeen(store, time.Now)
	sessions := uia.New(store, time.Now)
	services := newHeard(p.App, deps.Log, time.Now)
	keyBackups := backups.New(store)
	dehydrated := &dehydration.Service{Store: store, Accounts: owned.accounts, Keys: owned.keys, Now: time.Now}
	propagation := propagate.New(store, profileService, p.Room, deps.Log, time.Now)
	later := delayed.New(delayed.Service{Store: store, Room: p.Room, Local: owned.accounts.Local, Log: deps.Log,
		Now: time.Now})
	typists := typingserver.NewFollower(typingserver.FollowerDeps{Typing: p.Typing, Transport: deps.Transport, Log: deps.Log})
	c := &component.Component{
		Name: storage.Component,
		API: &api.ClientAPI{
			QueryToken: func(ctx context.Context, q api.QueryTokenRequest) (api.QueryTokenResponse, error) {
				caller, err := owned.caller(ctx, deps.Registrations.Load(), q)
				if err == nil {
					seen.Note(caller.UserID, caller.DeviceID, q.Address)
				}
				if caller.AppService != "" {
					services.note(caller.AppService)
				}
				return api.QueryTokenResponse{Caller: caller}, err
			},
			QueryProfiles: func(ctx context.Context, q api.QueryProfilesRequest) (api.QueryProfilesResponse, error) {
				names, err := profileService.Names(ctx, q.UserIDs...)
				found := make(map[id.UserID]api.Profile, len(names))
				for user, name := range names {
					found[user] = api.Profile(name)
				}
				return api.QueryProfilesResponse{Profiles: found}, err
			},
			QueryUsers: func(ctx context.Context, q api.QueryUsersRequest) (api.QueryUsersResponse, error) {
				active, guests, err := owned.accounts.Active(ctx, q.UserIDs)
				return api.QueryUsersResponse{Active: active, Guests: guests}, err
			},
			QueryOpenID: func(ctx context.Context, q api.QueryOpenIDRequest) (api.QueryOpenIDResponse, error) {
				user, err := owned.accounts.OpenIDUser(ctx, q.Token)
				return api.QueryOpenIDResponse{UserID: user}, err
			},
			QueryDevices: func(ctx context.Context, q api.QueryDevicesRequest) (api.QueryDevicesResponse, error) {
				devices, err := owned.keys.Devices(ctx, q.UserIDs)
				return api.QueryDevicesResponse{Devices: devices}, err
			},
			QueryDehydratedDevice: func(ctx context.Context, q api.QueryDehydratedDeviceRequest) (api.QueryDehydratedDeviceResponse, error) {
				d, err := dehydrated.Get(ctx, q.UserID)
				if err != nil {
					return api.QueryDehydratedDeviceResponse{}, err
				}
				return api.QueryDehydratedDeviceResponse{DeviceID: d.DeviceID}, nil
			},
			QueryKeys: func(ctx context.Context, q api.QueryKeysRequest) (api.QueryKeysResponse, error) {
				found, err := owned.keys.QueryLocal(ctx, q.Viewer, q.Devices)
				if err != nil {
					return api.QueryKeysResponse{}, err
				}
				return api.QueryKeysResponse{DeviceKeys: found.Devices, MasterKeys: found.Master, SelfSigningKeys: found.SelfSigning,
					UserSigningKeys: found.UserSigning, StreamIDs: found.StreamIDs}, nil
			},
			ClaimKeys: func(ctx context.Context, q api.ClaimKeysRequest) (api.ClaimKeysResponse, error) {
				claimed, err := owned.keys.ClaimLocal(ctx, q.RequestKey, q.Keys)
				return api.ClaimKeysResponse{Keys: claimed}, err
			},
			ReadLog: users.Read,
			Heads:   users.Heads,
		},
		Routes: routing.Routes(routing.Deps{Config: matrix, TURN: &deps.Config.TURN, Accounts: owned.accounts, Tokens: owned.tokens, UIA: sessions, Keys: owned.keys,
			Profiles: profileService, Propagate: propagation, Delayed: later, Backups: keyBackups, Dehydration: dehydrated,
			Unknown: &unknown.Finder{Services: deps.Registrations, App: p.App, Room: p.Room, Server: matrix.ServerName, Known: owned.accounts.Existing,
				Limits: deps.Limits},
			Notices: &notices.Service{Config: matrix, Accounts: owned.accounts, Profiles: profileService, Room: p.Room, Sync: p.Sync}, Room: p.Room, Sync: p.Sync, Typing: p.Typing,
			Typists: typists, Now: time.Now}),
		Ready: func(ctx context.Context) error {
			if err := deps.DB.Ping(ctx); err != nil {
				return err
			}
			return deps.Transport.Ready(ctx)
		},
	}
	c.Run = func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return deps.Transport.Relay(ctx, owned.log) })
		again := func(every time.Duration, what string, do func(context.Context) error) {
			group.Go(func() error {
				periodic.Run(ctx, every, deps.Log, what, do)
				return nil
			})
		}
		again(accounts.SeenFlush, "devices are not marked as seen", seen.Flush)
		again(propagate.RetryEvery, "what is pending cannot be read", propagation.Retry)
		again(sweepEvery, "old sessions stay", sessions.DropOld)
		again(backups.SweepEvery, "keys of deleted backups stay", keyBackups.Sweep)
		again(sweepEvery, "old claims of keys stay", owned.keys.DropOldClaims)
		group.Go(func() error { return typists.Run(ctx) })
		for _, run := range []func(context.Context){later.Run, services.run} {
			group.Go(func() error {
				run(ctx)
				return nil
			})
		}
		return group.Wait()
	}
	return c, nil
}

// parts are those that the database holds.
type parts struct {
	store    *storage.Store
	log      *eventlog.Log
	users    *eventlog.Topic
	tokens   *tokens.Service
	accounts *accounts.Service
	keys     *keys.Service
}

// caller is whom a token stands for: a user, or an application service as one of its users.
func (p *parts) caller(ctx context.Context, set *registration.Set, q api.QueryTokenRequest) (httputil.Caller, error) {
	if service := set.ByToken(q.Token); service != nil {
		return p.accounts.Masquerade(ctx, service, q.UserID, q.DeviceID)
	}
	caller, err := p.tokens.Query(ctx, q.Token)
	caller.Unlimited = err == nil && set.Unlimited(caller.UserID)
	return caller, err
}

// open makes them. The dependencies of accounts have what the caller decides: Limits, Registrations and Forget.
func open(ctx context.Context, db *sqlutil.DB, matrix *config.Matrix, o eventlog.Options, decided accounts.Deps) (*parts, error) {
	store, err := storage.Open(ctx, db)
	if err != nil {
		return nil, err
	}
	log, err := eventlog.New(ctx, db, storage.Component, o)
	if err != nil {
		return nil, fmt.Errorf("log of clientapi: %w", err)
	}
	users, err := log.Topic(ctx, api.Topic, nil)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", api.Topic, err)
	}
	tokenService, err := tokens.New(ctx, store, matrix.ServerName, time.Now)
	if err != nil {
		return nil, err
	}
	keyService := keys.New(keys.Deps{Store: store, Users: users, Server: matrix.ServerName, Now: time.Now})
	decided.Store, decided.Tokens, decided.Users, decided.Keys, decided.Now = store, tokenService, users, keyService, time.Now
	decided.Server, decided.Reserved, decided.HashCost = matrix.ServerName, matrix.NoticesUser(), matrix.PasswordHashCost
	accountService := accounts.New(decided)
	return &parts{store, log, users, tokenService, accountService, keyService}, nil
}
