// Package routing is the table of federationapi's endpoints.
package routing

import (
	"context"
	"net/http"

	"github.com/matrix-org/dendrite"
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/federationapi/serverkeys"
)

// Routes are the public endpoints.
func Routes(keys *serverkeys.Own, client *clientapi.ClientAPI) []httputil.Route {
	return []httputil.Route{
		{Method: http.MethodGet, Path: "/_matrix/key/v2/server", Name: "server_keys", Handler: serverKeys(keys)},
		{Method: http.MethodGet, Path: "/_matrix/federation/v1/version", Name: "federation_version", Handler: version},
		{Method: http.MethodGet, Path: "/_matrix/federation/v1/openid/userinfo", Name: "openid_userinfo", Handler: openIDUser(client)},
	}
}

// serverKeys is GET /_matrix/key/v2/server (Server-Server API, § Publishing Keys).
func serverKeys(keys *serverkeys.Own) httputil.Handler {
	return func(ctx context.Context, _ *httputil.Request) (any, error) {
		document, err := keys.Document(ctx)
		return httputil.Raw{Body: document}, err
	}
}

// openIDUser is GET /_matrix/federation/v1/openid/userinfo (Server-Server API, § OpenID).
func openIDUser(client *clientapi.ClientAPI) httputil.Handler {
	return func(ctx context.Context, r *httputil.Request) (any, error) {
		found, err := client.QueryOpenID(ctx, clientapi.QueryOpenIDRequest{Token: r.Query("access_token")})
		return httputil.Object{"sub": found.UserID}, err
	}
}

// version is GET /_matrix/federation/v1/version (Server-Server API, § Server implementation).
func version(context.Context, *httputil.Request) (any, error) {
	return httputil.Object{"server": httputil.Object{"name": "Dendrite", "version": dendrite.Version}}, nil
}
