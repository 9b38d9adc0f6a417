package accounts

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Masquerade tells as whom an application service acts that names a user and a device, each of them or none
// (Application Service API, § Identity assertion). Without a user it is the service's own, whose account is made when
// it is first needed. M_FORBIDDEN for users who are not the service's, and for those who have no account;
// M_USER_DEACTIVATED for those whose account has ended; M_UNKNOWN_DEVICE for devices that the user has not.
//
// A service has the rights of an administrator with a user who is its own alone: its sender, or one of an exclusive
// namespace. A namespace that humans are in too does not give it theirs.
func (s *Service) Masquerade(
	ctx context.Context, service *registration.Registration, user id.UserID, device id.DeviceID,
) (httputil.Caller, error) {
	none := httputil.Caller{}
	if user == "" {
		user = service.Sender
	}
	if !s.mayActAs(service, user) {
		return none, mxerr.Forbidden("the application service %s may not act as %s: its namespaces do not have that user",
			service.ID, user)
	}
	account, known, err := s.accountAndDevice(ctx, user, device)
	if err == nil && account == nil && user == service.Sender {
		account, err = s.makeSender(ctx, user)
	}
	switch {
	case err != nil:
		return none, err
	case account == nil:
		return none, mxerr.Forbidden("the application service %s has not registered the user %s", service.ID, user)
	case account.Deactivated:
		return none, deactivated()
	case device != "" && !known:
		return none, mxerr.New(http.StatusBadRequest, "M_UNKNOWN_DEVICE", "%s has no device %s", user, device)
	}
	return httputil.Caller{UserID: user, DeviceID: device, Guest: account.Guest,
		Admin: account.Admin && s.Exclusively(service.ID, user), Locked: account.Locked, Suspended: account.Suspended,
		AppService: service.ID, Unlimited: !service.RateLimited || user == service.Sender}, nil
}

// mayActAs tells whether a namespace of a service has a user. Nobody is the user who sends the server's own notices.
func (s *Service) mayActAs(service *registration.Registration, user id.UserID) bool {
	if _, err := id.ParseUserID(string(user)); err != nil {
		return false
	}
	return user != s.Reserved && s.Registrations.Load().Owns(service, user)
}

// accountAndDevice reads an account, nil if there is none, and whether its user has a device that is in use.
func (s *Service) accountAndDevice(
	ctx context.Context, user id.UserID, device id.DeviceID,
) (account *storage.Account, known bool, err error) {
	if len(user) > id.MaxLength || len(device) > MaxDeviceID {
		return nil, false, nil
	}
	err = s.Store.DB.Read(ctx, "masquerade", func(ctx context.Context, tx *sqlutil.Tx) error {
		if account, err = s.Store.Account(ctx, tx, user); err != nil || account == nil || device == "" {
			return err
		}
		d, err := s.Store.Device(ctx, tx, user, device)
		known = d != nil && !d.Dehydrated
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("read the account of %s for an application service: %w", user, err)
	}
	return account, known, nil
}

// makeSender makes the account of a service's own user, unless another request was first.
func (s *Service) makeSender(ctx context.Context, user id.UserID) (*storage.Account, error) {
	var account *storage.Account
	err := s.Store.DB.Write(ctx, "make an account of a service", func(ctx context.Context, tx *sqlutil.Tx) error {
		err := s.insert(ctx, tx, storage.Account{UserID: user, CreatedMS: s.Now().UnixMilli()}, "")
		if err != nil && !mxerr.Is(err, "M_USER_IN_USE") {
			return err
		}
		account, err = s.Store.Account(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the account of %s: %w", user, err)
	}
	return account, nil
}

// LoginAs is Login of a user of an application service (Application Service API, § Server admin style permissions).
// name is a localpart or a user id. M_EXCLUSIVE if the user is not the service's. The rights of an administrator come with
// the token as Masquerade says.
func (s *Service) LoginAs(
	ctx context.Context, service *registration.Registration, name string, r DeviceRequest,
) (*Session, error) {
	user := id.UserID(name)
	if !strings.HasPrefix(name, "@") {
		user = id.NewUserID(name, s.Server)
	}
	if !s.mayActAs(service, user) {
		return nil, exclusive("%q is not a user of the application service %s", user, service.ID)
	}
	if user == service.Sender {
		if _, err := s.Masquerade(ctx, service, user, ""); err != nil {
			return nil, err
		}
	}
	r.Plain = !s.Exclusively(service.ID, user)
	return s.Login(ctx, user, r)
}

// serviceLocalpart checks the localpart of a user of an application service: it may be historical, because bridges tell
// users of other networks apart by case (Appendices, § Historical User IDs).
func (s *Service) serviceLocalpart(local string) error {
	isHistorical := func(c rune) bool { return c > ' ' && c < 0x7f && c != ':' }
	if local == "" || strings.ContainsFunc(local, func(c rune) bool { return !isHistorical(c) }) {
		return invalidUsername("the username must have visible characters of ASCII, and no colon")
	}
	return s.fits(local)
}

// mayRegister fails with M_EXCLUSIVE where a user is for others. by is the application service that asks; nil:
// nobody's.
func (s *Service) mayRegister(user id.UserID, by *registration.Registration) error {
	set := s.Registrations.Load()
	switch {
	case by != nil && !set.Owns(by, user):
		return exclusive("the namespaces of the application service %s do not have the user %s", by.ID, user)
	case set.ReservedUser(user, by):
		return exclusive("the username %s is reserved by an application service", user.Localpart())
	}
	return nil
}

// Exclusively tells whether a user is one of a service's, and of no human: its own, or of an exclusive namespace.
func (s *Service) Exclusively(service string, user id.UserID) bool {
	set := s.Registrations.Load()
	r := set.ByID(service)
	return r != nil && len(set.ExclusiveUsers(user)) > 0 && !set.ReservedUser(user, r)
}

// Service finds the application service that a request is of; nil if it is none's.
func (s *Service) Service(caller httputil.Caller) *registration.Registration {
	if caller.AppService == "" {
		return nil
	}
	return s.Registrations.Load().ByID(caller.AppService)
}

func exclusive(format string, args ...any) error {
	return mxerr.New(http.StatusBadRequest, "M_EXCLUSIVE", format, args...)
}
