package routing

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the TURN REST API asks for it
	"encoding/base64"
	"fmt"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// newestMinor is the minor number of the newest specification that this server follows: all that is here, is as v1.19 has it.
const newestMinor = 19

// features are what clients look for besides the versions of the specification, either because there is no other way to
// know of it, or because they are older than the version that has it.
var features = map[string]bool{
	"com.beeper.msc4169":           true, // redactions by PUT /send in all room versions
	"fi.mau.msc2659.stable":        true, // application services ask for a ping
	"org.matrix.e2e_cross_signing": true,
	"org.matrix.msc3814":           true, // dehydrated devices
	"org.matrix.msc3827.stable":    true, // filtering the directory by types of rooms
	"org.matrix.msc4140":           true, // delayed events
	// Mutual rooms and profile fields, each under its unstable path too.
	"uk.half-shot.msc2666.query_mutual_rooms": true,
	"uk.tcpip.msc4133":                        true,
	"uk.tcpip.msc4133.stable":                 true,
}

// versions is GET /versions.
func (e *endpoints) versions(context.Context, *httputil.Request) (any, error) {
	versions := []string{"r0.6.1"}
	for minor := 1; minor <= newestMinor; minor++ {
		versions = append(versions, fmt.Sprintf("v1.%d", minor))
	}
	return httputil.Object{"versions": versions, "unstable_features": features}, nil
}

// wellKnownClient is GET /.well-known/matrix/client (Client-Server API, § Well-known URIs).
func (e *endpoints) wellKnownClient(context.Context, *httputil.Request) (any, error) {
	if e.Config.WellKnown.Client == "" {
		return nil, mxerr.NotFound("this server does not say where it is: matrix.well_known.client is not set")
	}
	info := homeserverInfo(e.Config.WellKnown.Client)
	for name, value := range e.Config.WellKnown.ClientExtra {
		info[name] = value
	}
	return info, nil
}

func homeserverInfo(baseURL string) httputil.Object {
	return httputil.Object{"m.homeserver": httputil.Object{"base_url": baseURL}}
}

// wellKnownServer is GET /.well-known/matrix/server (Server-Server API, § Resolving server names).
func (e *endpoints) wellKnownServer(context.Context, *httputil.Request) (any, error) {
	if e.Config.WellKnown.Server == "" {
		return nil, mxerr.NotFound("this server does not say where it is: matrix.well_known.server is not set")
	}
	return httputil.Object{"m.server": e.Config.WellKnown.Server}, nil
}

// wellKnownPolicyServer is GET /.well-known/matrix/policy_server (§ Policy Servers).
func (e *endpoints) wellKnownPolicyServer(context.Context, *httputil.Request) (any, error) {
	if e.Config.WellKnown.PolicyServer == "" {
		return nil, mxerr.NotFound("this server names no policy server: matrix.well_known.policy_server is not set")
	}
	return httputil.Object{"public_keys": httputil.Object{"ed25519": e.Config.WellKnown.PolicyServer}}, nil
}

// wellKnownSupport is GET /.well-known/matrix/support.
func (e *endpoints) wellKnownSupport(context.Context, *httputil.Request) (any, error) {
	s := e.Config.WellKnown.Support
	if s.Page == "" && len(s.Contacts) == 0 {
		return nil, mxerr.NotFound("this server names nobody to contact: matrix.well_known.support is not set")
	}
	answer := httputil.Object{}
	if s.Page != "" {
		answer["support_page"] = s.Page
	}
	if len(s.Contacts) > 0 {
		answer["contacts"] = s.Contacts
	}
	return answer, nil
}

// capabilities is GET /capabilities.
func (e *endpoints) capabilities(_ context.Context, r *httputil.Request) (any, error) {
	available := make(map[id.RoomVersion]string)
	for _, version := range roomversion.All() {
		available[version] = "stable"
	}
	enabled := func(is bool) httputil.Object { return httputil.Object{"enabled": is} }
	account := enabled(true)
	all := httputil.Object{
		"m.change_password":          account,
		"m.room_versions":            httputil.Object{"default": e.Config.DefaultRoomVersion, "available": available},
		"m.profile_fields":           account,
		"m.set_displayname":          account,
		"m.set_avatar_url":           account,
		"m.3pid_changes":             enabled(false),
		"m.get_login_token":          account,
		"m.forget_forced_upon_leave": enabled(false),
	}
	if r.Caller.Admin {
		all["m.account_moderation"] = httputil.Object{"lock": true, "suspend": true}
	}
	return httputil.Object{"capabilities": all}, nil
}

// turnServer is GET /voip/turnServer. With a shared secret, credentials are made that end after a time.
func (e *endpoints) turnServer(_ context.Context, r *httputil.Request) (any, error) {
	if len(e.TURN.URIs) == 0 {
		return httputil.Empty, nil
	}
	answer := httputil.Object{"uris": e.TURN.URIs, "ttl": int64(e.TURN.UserLifetime.Seconds()), "username": e.TURN.Username, "password": e.TURN.Password}
	if e.TURN.SharedSecret != "" {
		username := fmt.Sprintf("%d:%s", e.Now().Add(e.TURN.UserLifetime).Unix(), r.Caller.UserID)
		mac := hmac.New(sha1.New, []byte(e.TURN.SharedSecret))
		mac.Write([]byte(username))
		answer["username"], answer["password"] = username, base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return answer, nil
}
