// Package appservice is the component for application services: it sends them what they are interested in, and asks them what
// only they know (Application Service API).
package appservice

import (
	"context"

	"github.com/matrix-org/dendrite/appservice/api"
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
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
func New(_ context.Context, _ component.Deps, _ Peers) (*component.Component, error) {
	return &component.Component{Name: "appservice", API: &api.AppserviceAPI{}}, nil
}
