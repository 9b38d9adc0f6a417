// Package appservice is the component for application services: it sends them what they are interested in, and asks them what
// only they know (Application Service API).
package appservice

import (
	"context"
	"net/http"
	"time"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/appservice/ping"
	"github.com/matrix-org/dendrite/appservice/questions"
	"github.com/matrix-org/dendrite/appservice/routing"
	"github.com/matrix-org/dendrite/appservice/thirdparty"
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/mxerr"
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
func New(_ context.Context, deps component.Deps, _ Peers) (*component.Component, error) {
	client := outgoing.New(deps)
	asked := questions.New(deps.Registrations, client, deps.Log, time.Now)
	lookups := thirdparty.New(deps.Registrations, client, deps.Log, time.Now)
	contract := &api.AppserviceAPI{
		QueryAlias: asked.QueryAlias, QueryUser: asked.QueryUser,
		NoteAlive:   unanswered[api.NoteAliveRequest, api.Empty],
		QueryStatus: unanswered[api.QueryStatusRequest, api.QueryStatusResponse], Retry: unanswered[api.RetryRequest, api.Empty],
		Skip: unanswered[api.SkipRequest, api.SkipResponse],
	}
	pings := &ping.Service{Services: deps.Registrations, Client: client, Wait: ping.MaxWait, Alive: contract.NoteAlive, Log: deps.Log}
	contract.Ping = pings.Ping
	return &component.Component{Name: "appservice", API: contract,
		Routes: routing.Routes(routing.Deps{Ping: pings.Ping, ThirdParty: lookups})}, nil
}

// unanswered is a call that this build does not serve.
func unanswered[Req, Res any](context.Context, Req) (res Res, err error) {
	return res, mxerr.New(http.StatusNotImplemented, "M_UNRECOGNIZED", "this server does not serve application services")
}
