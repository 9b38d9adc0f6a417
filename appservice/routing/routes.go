// Package routing turns requests of the Client-Server API about application services into calls.
package routing

import (
	"net/http"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/thirdparty"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Deps are what the endpoints use.
type Deps struct {
	Ping       rpc.Call[api.PingRequest, api.PingResponse]
	ThirdParty *thirdparty.Service
}

type endpoints struct{ Deps }

// Routes lists the endpoints. Clients of r0 and of unstable get what v3 says.
func Routes(d Deps) []httputil.Route {
	e := &endpoints{d}
	const (
		root  = "/_matrix/client"
		third = root + "/{r0|v3|unstable}/thirdparty"
	)
	get := func(path, name string, handler httputil.Handler) httputil.Route {
		return httputil.Route{Method: http.MethodGet, Path: third + path, Name: name, Auth: httputil.AuthUser, Limit: "directory", Large: true,
			Handler: handler}
	}
	ping := func(path string) httputil.Route {
		return httputil.Route{Method: http.MethodPost, Path: path + "/appservice/{serviceID}/ping", Name: "appservice_ping",
			Auth: httputil.AuthUser, Limit: "directory", Handler: e.ping}
	}
	return []httputil.Route{
		get("/protocols", "thirdparty_protocols", e.protocols),
		get("/protocol/{protocol}", "thirdparty_protocol", e.protocol),
		get("/location", "thirdparty_location_of", e.locationsOf),
		get("/location/{protocol}", "thirdparty_location", e.locations),
		get("/user", "thirdparty_user_of", e.usersOf),
		get("/user/{protocol}", "thirdparty_user", e.users),
		ping(root + "/v1"),
		ping(root + "/unstable/fi.mau.msc2659"),
	}
}
