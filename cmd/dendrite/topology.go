package main

import (
	"context"

	"github.com/matrix-org/dendrite/appservice"
	appcontract "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/clientapi"
	clientcontract "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/federationapi"
	"github.com/matrix-org/dendrite/mediaapi"
	"github.com/matrix-org/dendrite/roomserver"
	roomcontract "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi"
	synccontract "github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/typingserver"
	typingcontract "github.com/matrix-org/dendrite/typingserver/api"
)

// contracts are the components as the others of one process see them: functions, where they run in the same process, and calls
// where they do not. They are filled when all components of the process are constructed.
type contracts struct {
	room   roomcontract.RoomserverAPI
	client clientcontract.ClientAPI
	sync   synccontract.SyncAPI
	typing typingcontract.TypingserverAPI
	app    appcontract.AppserviceAPI
}

// row is a component in the topology.
type row struct {
	name string
	what string // in a sentence
	// contract is what others call of it; nil if nobody does.
	contract func(*contracts) any
	// construct builds it, with the contracts of those that it calls.
	construct func(context.Context, component.Deps, *contracts) (*component.Component, error)
}

// topology is the one table of all components, in the order in which they are constructed.
func topology() []row {
	return []row{
		{"roomserver", "the roomserver, which stores events and decides what happens in rooms", func(c *contracts) any { return &c.room },
			func(ctx context.Context, d component.Deps, c *contracts) (*component.Component, error) {
				return roomserver.New(ctx, d, roomserver.Peers{Client: &c.client})
			}},
		{"clientapi", "the client-server API but for sync, and accounts", func(c *contracts) any { return &c.client },
			func(ctx context.Context, d component.Deps, c *contracts) (*component.Component, error) {
				return clientapi.New(ctx, d, clientapi.Peers{Room: &c.room, Sync: &c.sync, Typing: &c.typing, App: &c.app})
			}},
		{"syncapi", "/sync, and what only sync shows", func(c *contracts) any { return &c.sync },
			func(ctx context.Context, d component.Deps, c *contracts) (*component.Component, error) {
				return syncapi.New(ctx, d, syncapi.Peers{Room: &c.room, Client: &c.client, Typing: &c.typing})
			}},
		{"typingserver", "the keeper of who is typing", func(c *contracts) any { return &c.typing },
			func(ctx context.Context, d component.Deps, _ *contracts) (*component.Component, error) {
				return typingserver.New(ctx, d)
			}},
		{"federationapi", "the server-server API", nil,
			func(ctx context.Context, d component.Deps, c *contracts) (*component.Component, error) {
				return federationapi.New(ctx, d, federationapi.Peers{Client: &c.client})
			}},
		{"appservice", "application services", func(c *contracts) any { return &c.app },
			func(ctx context.Context, d component.Deps, c *contracts) (*component.Component, error) {
				return appservice.New(ctx, d, appservice.Peers{Room: &c.room, Client: &c.client, Sync: &c.sync, Typing: &c.typing})
			}},
		{"mediaapi", "the media repository", nil,
			func(ctx context.Context, d component.Deps, _ *contracts) (*component.Component, error) {
				return mediaapi.New(ctx, d)
			}},
	}
}
