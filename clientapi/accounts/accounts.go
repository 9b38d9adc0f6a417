// Package accounts has the rules of accounts and their devices: who may have which name, what a password is worth, what a
// login makes and what a logout ends. It knows neither HTTP nor SQL.
//
// Whatever changes is told on the user log in the transaction that changes it.
package accounts

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Limits of what clients may choose.
const (
	MaxPassword    = 512 // bytes
	MaxDeviceID    = 255 // bytes
	MaxDisplayName = 256 // characters
)

// Deps are what a Service is made of.
type Deps struct {
	Store  *storage.Store
	Tokens *tokens.Service
	Users  *eventlog.Topic
	Keys   *keys.Service // of the devices
	Server id.ServerName
	// Reserved is a user whose name cannot be had; empty: none.
	Reserved id.UserID
	// Registrations are those of the application services; it may be nil.
	Registrations *registration.Holder
	// HashCost is bcrypt's.
	HashCost int
	// Limits may be nil.
	Limits httputil.Limiter
	// Forget drops what caches hold of a device's tokens, or, for an empty device, of all of a user's.
	Forget func(user id.UserID, device id.DeviceID)
	Now    func() time.Time
}

// Service has the accounts of this server.
type Service struct {
	Deps
	hasher *hasher
}

// New makes a Service.
func New(d Deps) *Service {
	return &Service{Deps: d, hasher: newHasher(d.HashCost)}
}

// DeviceRequest says which device a login is for.
type DeviceRequest struct {
	ID          id.DeviceID // empty: a new one
	DisplayName string      // of a new one
	Refreshable bool        // the client knows refresh tokens
	Plain       bool        // the rights of an administrator do not come with its tokens
	IP          string
}

// Session is a device that is logged in.
type Session struct {
	UserID   id.UserID
	DeviceID id.DeviceID // empty: no login was wanted
	tokens.Issued
}

// Registration is a new account.
type Registration struct {
	Localpart string // empty: one is made up
	Password  string // empty: no password leads in
	Admin     bool
	Guest     bool
	Upgrade   bool // the account is there, a guest's, and becomes a user's
	// Service is the application service whose user it becomes; nil: nobody's.
	Service *registration.Registration
	// DisplayName is the first of the profile.
	DisplayName string
	Device      *DeviceRequest // nil: no login
}

// ParseLocalpart turns the name that a client wants into a localpart (Appendices, § User Identifiers): capitals become small.
// M_INVALID_USERNAME for what the grammar does not have.
func (s *Service) ParseLocalpart(name string) (string, error) {
	local := strings.ToLower(name)
	if local == "" {
		return "", invalidUsername("the username is empty")
	}
	for _, c := range local {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("._=-/+", c) {
			return "", invalidUsername("a username may have letters of ASCII, digits and any of ._=-/+, not %q", c)
		}
	}
	return local, s.fits(local)
}

func (s *Service) fits(local string) error {
	if n := len(id.NewUserID(local, s.Server)); n > id.MaxLength {
		return invalidUsername("the username is too long by %d bytes", n-id.MaxLength)
	}
	return nil
}

func invalidUsername(format string, args ...any) error {
	return mxerr.New(http.StatusBadRequest, "M_INVALID_USERNAME", format, args...)
}

// Available fails with M_USER_IN_USE, M_INVALID_USERNAME or M_EXCLUSIVE where a name cannot be had.
func (s *Service) Available(ctx context.Context, name string) error {
	local, err := s.ParseLocalpart(name)
	if err != nil {
		return err
	}
	user := id.NewUserID(local, s.Server)
	if err := s.mayRegister(user, nil); err != nil {
		return err
	}
	account, err := s.account(ctx, user)
	if err == nil && (account != nil || user == s.Reserved) {
		return inUse(local)
	}
	return err
}

func inUse(local string) error {
	return mxerr.New(http.StatusBadRequest, "M_USER_IN_USE", "the username %s is taken", local)
}

func deactivated() error {
	return mxerr.New(http.StatusForbidden, "M_USER_DEACTIVATED", "this account was deactivated")
}

// CheckNewPassword fails where a password cannot be set.
func CheckNewPassword(password string) error {
	switch {
	case password == "":
		return mxerr.MissingParam("the password is missing")
	case len(password) > MaxPassword:
		return mxerr.InvalidParam("a password may have %d bytes", MaxPassword)
	}
	return nil
}

// newUser is whose account a registration makes. M_INVALID_USERNAME, M_EXCLUSIVE and M_USER_IN_USE for those who cannot be had.
func (s *Service) newUser(r Registration) (id.UserID, error) {
	local, err := r.Localpart, error(nil)
	switch {
	case r.Service != nil:
		err = s.serviceLocalpart(local)
	case local == "":
		local = strings.ToLower(rand.Text()[:16])
	default:
		local, err = s.ParseLocalpart(local)
	}
	if err != nil {
		return "", err
	}
	user := id.NewUserID(local, s.Server)
	if user == s.Reserved {
		return "", inUse(local)
	}
	if r.Upgrade {
		return user, nil // who is there, stays
	}
	return user, s.mayRegister(user, r.Service)
}

// Register makes an account, and logs its first device in.
func (s *Service) Register(ctx context.Context, r Registration) (*Session, error) {
	user, err := s.newUser(r)
	if err != nil {
		return nil, err
	}
	account := storage.Account{UserID: user, CreatedMS: s.Now().UnixMilli(), Admin: r.Admin, Guest: r.Guest}
	if r.Password != "" {
		if account.PasswordHash, err = s.hasher.hash(ctx, r.Password); err != nil {
			return nil, err
		}
	}
	session := &Session{UserID: account.UserID}
	device, err := s.device(r.Device, session)
	if err != nil {
		return nil, err
	}
	err = s.Store.DB.Write(ctx, "register", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		add := s.addDevice
		if r.Upgrade {
			err = s.upgrade(ctx, tx, account, session.DeviceID)
		} else {
			err = s.insert(ctx, tx, account, r.DisplayName)
			add = s.insertDevice // a new account has nothing that its first device could be too much for
		}
		if err != nil || r.Device == nil {
			return err
		}
		return s.open(ctx, tx, session, device, r.Device, add)
	})
	if err != nil {
		return nil, fmt.Errorf("register %s: %w", account.UserID, err)
	}
	return session, nil
}

func (s *Service) insert(ctx context.Context, tx *sqlutil.Tx, account storage.Account, displayName string) error {
	made, err := s.Store.InsertAccount(ctx, tx, account)
	if err != nil {
		return fmt.Errorf("insert the account: %w", err)
	}
	if !made {
		return inUse(account.UserID.Localpart())
	}
	if err := s.Store.PutProfile(ctx, tx, storage.Profile{UserID: account.UserID, DisplayName: displayName}); err != nil {
		return fmt.Errorf("insert the profile: %w", err)
	}
	return nil
}

// upgrade makes a user of a guest, whose profile, devices and rooms stay. Earlier tokens of the device that logs in end.
// M_USER_IN_USE if another request was first.
func (s *Service) upgrade(ctx context.Context, tx *sqlutil.Tx, account storage.Account, device id.DeviceID) error {
	upgraded, err := s.Store.UpgradeGuest(ctx, tx, account.UserID, account.PasswordHash)
	if err != nil {
		return fmt.Errorf("update the account: %w", err)
	}
	if !upgraded {
		return inUse(account.UserID.Localpart())
	}
	if _, err := s.Store.DeleteTokens(ctx, tx, account.UserID, device); err != nil {
		return fmt.Errorf("end earlier tokens: %w", err)
	}
	s.tell(ctx, tx, api.TypeTokens, account.UserID, "") // caches have it as a guest
	return nil
}

// Login logs a device of an active user in. Earlier tokens of the device end. M_FORBIDDEN if the user has no account,
// M_USER_DEACTIVATED if it has ended.
func (s *Service) Login(ctx context.Context, user id.UserID, r DeviceRequest) (*Session, error) {
	session := &Session{UserID: user}
	device, err := s.device(&r, session)
	if err != nil {
		return nil, err
	}
	err = s.Store.DB.Write(ctx, "login", func(ctx context.Context, tx *sqlutil.Tx) error {
		account, err := s.Store.LockAccount(ctx, tx, user) // no device comes after the end of an account
		switch {
		case err != nil:
			return fmt.Errorf("read the account: %w", err)
		case account == nil:
			return mxerr.Forbidden("there is no such account")
		case account.Deactivated:
			return deactivated()
		case account.Locked:
			return mxerr.Locked()
		}
		ended, err := s.Store.DeleteTokens(ctx, tx, user, session.DeviceID)
		if err != nil {
			return fmt.Errorf("end earlier tokens: %w", err)
		}
		if ended > 0 {
			s.tell(ctx, tx, api.TypeTokens, user, session.DeviceID)
		}
		return s.open(ctx, tx, session, device, &r, s.addDevice)
	})
	if err != nil {
		return nil, fmt.Errorf("log %s in: %w", user, err)
	}
	return session, nil
}

// device checks which device is wanted, or thinks one up, and notes it in the session.
func (s *Service) device(r *DeviceRequest, session *Session) (storage.Device, error) {
	if r == nil {
		return storage.Device{}, nil
	}
	session.DeviceID = r.ID
	if r.ID == "" {
		session.DeviceID = id.DeviceID(rand.Text()[:10])
	}
	if len(r.ID) > MaxDeviceID || strings.ContainsRune(string(r.ID), 0) || !utf8.ValidString(string(r.ID)) {
		return storage.Device{}, mxerr.InvalidParam("a device_id may have %d bytes and no NUL", MaxDeviceID)
	}
	if err := CheckDisplayName(r.DisplayName); err != nil {
		return storage.Device{}, err
	}
	now := s.Now().UnixMilli()
	return storage.Device{UserID: session.UserID, DeviceID: session.DeviceID, DisplayName: r.DisplayName, CreatedMS: now, LastSeenMS: now,
		LastSeenIP: r.IP}, nil
}

func (s *Service) open(ctx context.Context, tx *sqlutil.Tx, session *Session, device storage.Device, r *DeviceRequest,
	add func(context.Context, *sqlutil.Tx, storage.Device) error) error {
	if err := add(ctx, tx, device); err != nil {
		return err
	}
	issued, err := s.Tokens.Issue(ctx, tx, tokens.Wanted{UserID: session.UserID, DeviceID: session.DeviceID,
		Refreshable: r.Refreshable, Plain: r.Plain})
	session.Issued = issued
	return err
}

// CheckDisplayName fails for a name of a user or a device that is too long or has NULs.
func CheckDisplayName(name string) error {
	if utf8.RuneCountInString(name) > MaxDisplayName || strings.ContainsRune(name, 0) {
		return mxerr.InvalidParam("a display name may have %d characters and no NUL", MaxDisplayName)
	}
	return nil
}

// Existing returns those of the users that have an account, or had one.
func (s *Service) Existing(ctx context.Context, users []id.UserID) (existing []id.UserID, err error) {
	err = s.Store.DB.ReadOne(ctx, "existing users", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		existing, err = s.Store.ExistingUsers(ctx, tx, users)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up accounts: %w", err)
	}
	return existing, nil
}

// Active returns those of the users that have an account which is not deactivated, and those of them who are guests.
func (s *Service) Active(ctx context.Context, users []id.UserID) (active, guests []id.UserID, err error) {
	var found []storage.Account
	err = s.Store.DB.ReadOne(ctx, "active users", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		found, err = s.Store.ActiveUsers(ctx, tx, users)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look up accounts: %w", err)
	}
	for _, a := range found {
		active = append(active, a.UserID)
		if a.Guest {
			guests = append(guests, a.UserID)
		}
	}
	return active, guests, nil
}

// OpenIDUser tells whose an OpenID token is. M_UNKNOWN_TOKEN if nobody's whose account is there and is not locked.
func (s *Service) OpenIDUser(ctx context.Context, token string) (id.UserID, error) {
	user, err := s.Tokens.OpenIDUser(token)
	if err != nil {
		return "", err
	}
	account, err := s.account(ctx, user)
	if err == nil && (account == nil || account.Deactivated || account.Locked) {
		err = tokens.UnknownOpenID()
	}
	if err != nil {
		return "", err
	}
	return user, nil
}

func (s *Service) account(ctx context.Context, user id.UserID) (*storage.Account, error) {
	var account *storage.Account
	err := s.Store.DB.ReadOne(ctx, "account", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		account, err = s.Store.Account(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the account %s: %w", user, err)
	}
	return account, nil
}

// tell writes to the user log that a device, or all of them for an empty one, is gone or has other tokens.
func (s *Service) tell(ctx context.Context, tx *sqlutil.Tx, typ string, user id.UserID, device id.DeviceID) {
	s.Users.Append(ctx, tx, string(user), typ, &api.OutputDevice{UserID: user, DeviceID: device})
	tx.AfterCommit(func() { s.Forget(user, device) })
}
