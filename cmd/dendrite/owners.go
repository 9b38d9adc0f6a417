package main

import "github.com/matrix-org/dendrite/common/httputil"

// owners says which component serves which public paths. A public listener passes on what its own process does not serve.
func owners() *httputil.Owners {
	const client = "/_matrix/client/*"
	return httputil.NewOwners([]httputil.Owned{
		{Path: "/.well-known/matrix", Component: "clientapi"},
		{Path: "/_synapse/admin", Component: "clientapi"},
		{Path: "/_dendrite/admin", Component: "clientapi"},
		{Path: "/_matrix/client", Component: "clientapi"},
		{Path: "/_matrix/static", Component: "clientapi"},

		{Path: client + "/{sync|events|initialSync|notifications|pushers|pushrules|presence|sendToDevice}", Component: "syncapi"},
		{Path: client + "/keys/changes", Component: "syncapi"},
		{Path: client + "/rooms/*/{initialSync|read_markers|receipt}", Component: "syncapi"},
		{Path: client + "/user/*/{account_data|filter}", Component: "syncapi"},
		{Path: client + "/user/*/rooms/*/{account_data|tags}", Component: "syncapi"},
		{Path: "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", Component: "syncapi"},
		{Path: "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/*/events", Component: "syncapi"},

		{Path: "/_matrix/media", Component: "mediaapi"},
		{Path: client + "/media", Component: "mediaapi"},
		{Path: "/_matrix/federation/*/media", Component: "mediaapi"},

		{Path: "/_matrix/federation", Component: "federationapi"},
		{Path: "/_matrix/key", Component: "federationapi"},

		{Path: client + "/{thirdparty|appservice}", Component: "appservice"},
		{Path: "/_matrix/client/unstable/fi.mau.msc2659/appservice", Component: "appservice"},
	})
}
