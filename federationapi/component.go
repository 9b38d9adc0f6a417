// Package federationapi is the component of the server-server API. It tells other servers this server's keys and version, so that
// they can check events that they were given by others.
package federationapi

import (
	"context"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
	"github.com/matrix-org/dendrite/federationapi/routing"
	"github.com/matrix-org/dendrite/federationapi/serverkeys"
)

// Peers are the contracts that federationapi calls.
type Peers struct{ Client *clientapi.ClientAPI }

// New builds the component.
func New(_ context.Context, deps component.Deps, p Peers) (*component.Component, error) {
	used := func(ctx context.Context) ([]identity.Key, error) { return identity.Keys(ctx, deps.DB) }
	keys := serverkeys.New(deps.Signer, deps.Config.Matrix.KeyValidity, used)
	return &component.Component{Name: "federationapi", Routes: routing.Routes(keys, p.Client)}, nil
}
