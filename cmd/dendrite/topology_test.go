package main

import (
	"testing"

	"github.com/matrix-org/dendrite/common/config"
)

func TestOwnersOfPublicPaths(t *testing.T) {
	o := owners()
	for path, want := range map[string]string{
		"/_matrix/client/versions":                                                        "clientapi",
		"/_matrix/client/v3/rooms/!a/send/m.room.message/1":                               "clientapi",
		"/_matrix/client/v3/rooms/!a/messages":                                            "clientapi",
		"/_matrix/client/v3/sync":                                                         "syncapi",
		"/_matrix/client/r0/sync":                                                         "syncapi",
		"/_matrix/client/v3/user/@a:b/rooms/!a/tags/x":                                    "syncapi",
		"/_matrix/client/v3/user/@a:b/account_data/x":                                     "syncapi",
		"/_matrix/client/v3/user/@a:b/openid/request_token":                               "clientapi",
		"/_matrix/client/v3/rooms/!a%2Fb/receipt/m.read/$e":                               "syncapi",
		"/_matrix/client/v3/keys/changes":                                                 "syncapi",
		"/_matrix/client/v3/keys/query":                                                   "clientapi",
		"/_matrix/client/unstable/org.matrix.simplified_msc3575/sync":                     "syncapi",
		"/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device":                "clientapi",
		"/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/a%2Fb+c/events": "syncapi",
		"/_matrix/client/v1/media/config":                                                 "mediaapi",
		"/_matrix/media/v3/upload":                                                        "mediaapi",
		"/_matrix/federation/v1/media/download/x":                                         "mediaapi",
		"/_matrix/federation/v1/send/1":                                                   "federationapi",
		"/_matrix/key/v2/server":                                                          "federationapi",
		"/_matrix/client/v3/thirdparty/protocols":                                         "appservice",
		"/_matrix/client/v1/appservice/x/ping":                                            "appservice",
		"/.well-known/matrix/client":                                                      "clientapi",
		"/_synapse/admin/v1/register":                                                     "clientapi",
		"/":                                                                               "",
	} {
		if got := o.Of(path); got != want {
			t.Errorf("%s belongs to %q, not to %q", path, got, want)
		}
	}
}

func TestAllComponentsAreInTheTopology(t *testing.T) {
	has := make(map[string]bool)
	for _, r := range topology() {
		has[r.name] = true
	}
	for _, name := range config.Components() {
		if !has[name] {
			t.Errorf("%s is not in the topology", name)
		}
	}
}
