package routing

import (
	"context"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// serviceOf is the application service whose token came to POST /register or POST /login (Application Service API, §
// Server admin style permissions).
func serviceOf(r *httputil.Request) (*registration.Registration, error) {
	switch {
	case r.Service != nil:
		return r.Service, nil
	case r.HasToken():
		return nil, mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "the access token is of no application service")
	}
	return nil, mxerr.New(http.StatusUnauthorized, "M_MISSING_TOKEN",
		"only application services use %s: send the as_token as Authorization: Bearer TOKEN", byService)
}

// mayLogIn refuses logins of services that make their devices themselves (MSC4190): they would get tokens that nobody
// needs.
func mayLogIn(service *registration.Registration) error {
	if !service.DeviceManagement {
		return nil
	}
	return mxerr.New(http.StatusBadRequest, "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED",
		"the registration of %s has io.element.msc4190: make devices with PUT /devices, and register with inhibit_login",
		service.ID)
}

// registerByService is POST /register of an application service, which needs no authentication and no open
// registration.
func (e *endpoints) registerByService(ctx context.Context, r *httputil.Request, body registerRequest) (any, error) {
	service, err := serviceOf(r)
	if err != nil {
		return nil, err
	}
	if !body.InhibitLogin {
		if err := mayLogIn(service); err != nil {
			return nil, err
		}
	}
	if body.Username == "" {
		return nil, mxerr.MissingParam("username is missing")
	}
	session, err := e.Accounts.Register(ctx,
		accounts.Registration{Localpart: body.Username, Service: service, Device: body.device(r)})
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}

// loginByService is POST /login of an application service (Client-Server API, § Appservice Login).
func (e *endpoints) loginByService(
	ctx context.Context, r *httputil.Request, login *passwordLogin, device accounts.DeviceRequest,
) (any, error) {
	service, err := serviceOf(r)
	if err != nil {
		return nil, err
	}
	if err := mayLogIn(service); err != nil {
		return nil, err
	}
	name, err := login.name("")
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, mxerr.MissingParam("an identifier of type m.id.user with a user is needed")
	}
	session, err := e.Accounts.LoginAs(ctx, service, name, device)
	if err != nil {
		return nil, err
	}
	return e.sessionAnswer(session), nil
}

// noService refuses what belongs to account management, which application services do not do for their users
// (Application Service API, § Identity assertion).
func noService(r *httputil.Request) error {
	if r.Caller.AppService != "" {
		return mxerr.Forbidden("application services do not manage accounts in the name of their users")
	}
	return nil
}

// mayHaveAlias fails with M_EXCLUSIVE for aliases that the caller may neither make nor remove: services have those of
// their namespaces, and everybody else those that no service has for itself.
func (e *endpoints) mayHaveAlias(r *httputil.Request, alias id.RoomAlias) error {
	set, service := e.Accounts.Registrations.Load(), e.Accounts.Service(r.Caller)
	switch {
	case service != nil && !set.OwnsAlias(service, alias):
		return mxerr.New(http.StatusBadRequest, "M_EXCLUSIVE",
			"the namespaces of the application service %s do not have the alias %s", service.ID, alias)
	case set.ReservedAlias(alias, service):
		return mxerr.New(http.StatusBadRequest, "M_EXCLUSIVE", "the alias %s is reserved by an application service", alias)
	}
	return nil
}

// joinedFor lists the members of a room for who is in it, and for an application service that has a user in it
// (Client-Server API, GET /rooms/{roomId}/joined_members).
func (e *endpoints) joinedFor(ctx context.Context, r *httputil.Request, room id.RoomID) ([]roomserver.Event, error) {
	query := roomserver.QueryMembersRequest{Viewer: viewer(r), RoomID: room, Membership: "join"}
	service := e.Accounts.Service(r.Caller)
	outside := e.mustBeJoined(ctx, room, r.Caller.UserID)
	if outside != nil && (service == nil || !mxerr.Is(outside, "M_FORBIDDEN")) {
		return nil, outside
	}
	if outside != nil {
		query.Viewer = roomserver.Viewer{} // the server itself, until it is known who is there
	}
	found, err := e.Room.QueryMembers(ctx, query)
	if err != nil || outside == nil {
		return found.Events, err
	}
	set := e.Accounts.Registrations.Load()
	for i := range found.Events {
		if user, _ := found.Events[i].PDU.StateKey(); set.Owns(service, id.UserID(user)) {
			return found.Events, nil
		}
	}
	return nil, outside
}
