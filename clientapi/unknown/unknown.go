// Package unknown looks for aliases and users of this server that it does not know, but that an application service
// may make when it is asked (Application Service API, § Querying).
//
// Only what a namespace has is asked for, and only if it is not there. Nobody may ask within a transaction or with a
// lock: the service makes what it is asked for with requests to this server.
package unknown

import (
	"context"
	"errors"
	"slices"
	"sync"

	appservice "github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// atOnce is how many users are asked for at once.
const atOnce = 16

// Finder looks for what is not known.
type Finder struct {
	Services *registration.Holder // may be nil: there are none
	App      *appservice.AppserviceAPI
	Room     *roomserver.RoomserverAPI
	Server   id.ServerName
	// Known returns those of some local users who have, or had, an account.
	Known func(ctx context.Context, users []id.UserID) ([]id.UserID, error)
	// Limits may be nil.
	Limits httputil.Limiter
}

// By is who wants to know something.
type By struct {
	// Service is the application service that asks, empty if none does. It is not asked itself: it would wait for its
	// own answer.
	Service string
	// User is who asks with a token of their own. A service that logs its users in asks so too.
	User id.UserID
	// Address is the client's, where nobody knows who it is: it makes services work, and so is limited as lookups in the
	// directory are. Empty where a limit has been applied.
	Address string
}

// ByOf is who sent a request.
func ByOf(r *httputil.Request) By {
	switch {
	case r.Caller.AppService != "":
		return By{Service: r.Caller.AppService}
	case r.Service != nil:
		return By{Service: r.Service.ID}
	}
	if r.Caller.UserID == "" {
		return By{Address: httputil.ClientAddress(r.Request)}
	}
	return By{User: r.Caller.UserID}
}

// service is the application service that asks: by itself, or with the token of a user who is its alone.
func (f *Finder) service(by By) string {
	if by.Service == "" && by.User != "" {
		if owners := f.Services.Load().ExclusiveUsers(by.User); len(owners) > 0 {
			return owners[0].ID
		}
	}
	return by.Service
}

// Alias finds the room of an alias. M_NOT_FOUND if there is none; M_UNKNOWN with status 408 if a service that could
// have it does not answer.
func (f *Finder) Alias(ctx context.Context, by By, alias id.RoomAlias) (roomserver.QueryAliasResponse, error) {
	found, err := f.Room.QueryAlias(ctx, roomserver.QueryAliasRequest{Alias: alias})
	if !mxerr.Is(err, "M_NOT_FOUND") || !f.HasAlias(alias) {
		return found, err
	}
	answer, silent := f.App.QueryAlias(ctx, appservice.QueryAliasRequest{Alias: alias, By: f.service(by)})
	if silent == nil && !answer.Exists {
		return found, err
	}
	// A service that does not answer may have made it all the same.
	if found, err = f.Room.QueryAlias(ctx, roomserver.QueryAliasRequest{Alias: alias}); mxerr.Is(err, "M_NOT_FOUND") && silent != nil {
		err = silent
	}
	return found, err
}

// HasAlias tells whether a service may have an alias that is not known.
func (f *Finder) HasAlias(alias id.RoomAlias) bool {
	return alias.Server() == f.Server && mayAnswer(f.Services.Load().Aliases(alias))
}

func mayAnswer(services []*registration.Registration) bool {
	return slices.ContainsFunc(services, func(r *registration.Registration) bool { return r.URL != "" })
}

// User calls look, and calls it again where it has not found a user (M_NOT_FOUND) whom a service may have made since.
// M_UNKNOWN with status 408 if a service that could have the user does not answer.
func (f *Finder) User(ctx context.Context, by By, user id.UserID, look func(ctx context.Context) error) error {
	err := look(ctx)
	if !mxerr.Is(err, "M_NOT_FOUND") || !mayAnswer(f.Services.Load().Users(user)) {
		return err
	}
	silent := f.Users(ctx, by, user)
	if err = look(ctx); mxerr.Is(err, "M_NOT_FOUND") && silent != nil {
		err = silent
	}
	return err
}

// Users has those of some users made that are not known and that a service has. The error is why one of the questions
// was not answered: M_UNKNOWN with status 408 if a service did not answer.
func (f *Finder) Users(ctx context.Context, by By, users ...id.UserID) error {
	services := f.Services.Load()
	var asked []id.UserID
	for _, user := range users {
		if mayAnswer(services.Users(user)) && !slices.Contains(asked, user) {
			asked = append(asked, user)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	known, err := f.Known(ctx, asked)
	if err != nil {
		return err
	}
	asked = slices.DeleteFunc(asked, func(user id.UserID) bool { return slices.Contains(known, user) })
	if len(asked) == 0 {
		return nil
	}
	if by.Address != "" && f.Limits != nil {
		if err := f.Limits.Allow("directory", httputil.Network(by.Address)); err != nil {
			return err
		}
	}
	silent := make([]error, len(asked))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, user := range asked {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			_, silent[i] = f.App.QueryUser(ctx, appservice.QueryUserRequest{UserID: user, By: f.service(by)})
		})
	}
	all.Wait()
	return errors.Join(silent...)
}
