package routing

import (
	"context"
	"net/url"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Bounds of the fields that services are asked with.
const (
	maxFields     = 50
	maxFieldBytes = 8 << 10 // of all together
)

// protocols is GET /thirdparty/protocols.
func (e *endpoints) protocols(ctx context.Context, _ *httputil.Request) (any, error) {
	return e.ThirdParty.Protocols(ctx)
}

// protocol is GET /thirdparty/protocol/{protocol}.
func (e *endpoints) protocol(ctx context.Context, r *httputil.Request) (any, error) {
	return e.ThirdParty.Protocol(ctx, r.Var("protocol"))
}

// locations is GET /thirdparty/location/{protocol}.
func (e *endpoints) locations(ctx context.Context, r *httputil.Request) (any, error) {
	fields, err := fieldsOf(r)
	if err != nil {
		return nil, err
	}
	return e.ThirdParty.Locations(ctx, r.Var("protocol"), fields)
}

// users is GET /thirdparty/user/{protocol}.
func (e *endpoints) users(ctx context.Context, r *httputil.Request) (any, error) {
	fields, err := fieldsOf(r)
	if err != nil {
		return nil, err
	}
	return e.ThirdParty.Users(ctx, r.Var("protocol"), fields)
}

// locationsOf is GET /thirdparty/location.
func (e *endpoints) locationsOf(ctx context.Context, r *httputil.Request) (any, error) {
	if r.Query("alias") == "" {
		return nil, mxerr.MissingParam("alias is missing")
	}
	alias, err := id.ParseRoomAlias(r.Query("alias"))
	if err != nil {
		return nil, mxerr.InvalidParam("alias: %v", err)
	}
	return e.ThirdParty.LocationsOf(ctx, alias)
}

// usersOf is GET /thirdparty/user.
func (e *endpoints) usersOf(ctx context.Context, r *httputil.Request) (any, error) {
	if r.Query("userid") == "" {
		return nil, mxerr.MissingParam("userid is missing")
	}
	user, err := id.ParseUserID(r.Query("userid"))
	if err != nil {
		return nil, mxerr.InvalidParam("userid: %v", err)
	}
	return e.ThirdParty.UsersOf(ctx, user)
}

// identity are the parameters that say who asks. They are no fields of a search.
func identity(r *httputil.Request) []string {
	if r.Caller.AppService == "" {
		return []string{"access_token"}
	}
	return []string{"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"}
}

// fieldsOf are the fields to search by: the parameters of the query.
func fieldsOf(r *httputil.Request) (url.Values, error) {
	fields, bytes := make(url.Values), 0
	for name, values := range r.Values() {
		fields[name] = values
		for _, value := range values {
			bytes += len(name) + len(value)
		}
	}
	for _, name := range identity(r) {
		fields.Del(name)
	}
	if len(fields) > maxFields || bytes > maxFieldBytes {
		return nil, mxerr.InvalidParam("a lookup may have %d fields with %d bytes", maxFields, maxFieldBytes)
	}
	return fields, nil
}
