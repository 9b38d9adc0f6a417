package accounts

import (
	"context"
	"fmt"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ParseIdentifier finds the user whom a client names by localpart or user id. M_FORBIDDEN for users of other servers.
func (s *Service) ParseIdentifier(name string) (id.UserID, error) {
	if !strings.HasPrefix(name, "@") {
		local, err := s.ParseLocalpart(name)
		if err != nil {
			return "", wrongPassword()
		}
		return id.NewUserID(local, s.Server), nil
	}
	user, err := id.ParseUserID(strings.ToLower(name[:max(strings.IndexByte(name, ':'), 0)]) + name[max(strings.IndexByte(name, ':'), 0):])
	if err != nil || user.Server() != s.Server {
		return "", wrongPassword()
	}
	return user, nil
}

func wrongPassword() error { return mxerr.Forbidden("wrong username or password") }

// CheckPassword fails with M_FORBIDDEN where a password is not that of the user, in the same way and time whether the user
// exists or not, and with M_LIMIT_EXCEEDED where too many wrong ones were tried, or too many clients wait for a check.
// address is the client's.
func (s *Service) CheckPassword(ctx context.Context, user id.UserID, password, address string) error {
	guessed, err := s.guess(ctx, user, address)
	if err != nil {
		return err
	}
	account, err := s.account(ctx, user)
	if err != nil {
		return err
	}
	if len(password) > MaxPassword {
		return wrongPassword()
	}
	hash := ""
	if account != nil && !account.Deactivated {
		hash = account.PasswordHash
	}
	right, stale, err := s.hasher.check(ctx, hash, password)
	switch {
	case err != nil:
		guessed()
		return fmt.Errorf("check the password of %s: %w", user, err)
	case !right:
		return wrongPassword()
	}
	guessed()
	if account.Locked {
		return mxerr.Locked()
	}
	if stale {
		return s.renewHash(ctx, user, hash, password)
	}
	return nil
}

// renewHash gives a password that is right a hash of the cost that new ones have.
func (s *Service) renewHash(ctx context.Context, user id.UserID, old, password string) error {
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = s.Store.DB.Write(ctx, "renew a hash", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.Store.RenewHash(ctx, tx, user, old, hash)
	})
	if err != nil {
		return fmt.Errorf("renew the hash of the password of %s: %w", user, err)
	}
	return nil
}

// ChangePassword sets a password. With logoutOthers all devices but keep are removed, and but
// a dehydrated one.
func (s *Service) ChangePassword(ctx context.Context, user id.UserID, password string, logoutOthers bool, keep id.DeviceID) error {
	if err := CheckNewPassword(password); err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = s.Store.DB.Write(ctx, "change password", func(ctx context.Context, tx *sqlutil.Tx) error {
		changed, err := s.Store.UpdatePassword(ctx, tx, user, hash)
		if err != nil {
			return fmt.Errorf("update the account: %w", err)
		}
		if !changed {
			return mxerr.Forbidden("this account was deactivated")
		}
		if !logoutOthers {
			return nil
		}
		return s.removeOthers(ctx, tx, user, keep)
	})
	if err != nil {
		return fmt.Errorf("change the password of %s: %w", user, err)
	}
	return nil
}

// What is pending of a deactivated user: to leave all rooms, after their events in them were erased or without that.
const (
	PendingLeave = "leave"
	PendingErase = "erase"
)

// Deactivate ends an account for good, with all its devices; erase also removes its profile and what other components keep of it. What it
// returns is pending then.
func (s *Service) Deactivate(ctx context.Context, user id.UserID, erase bool) (pending string, err error) {
	pending = PendingLeave
	err = s.Store.DB.Write(ctx, "deactivate", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := s.Store.Deactivate(ctx, tx, user); err != nil {
			return fmt.Errorf("update the account: %w", err)
		}
		if erase {
			if err := s.Store.DeleteProfile(ctx, tx, user); err != nil {
				return fmt.Errorf("delete the profile: %w", err)
			}
			s.Users.Append(ctx, tx, string(user), api.TypeProfile, &api.OutputProfile{UserID: user})
			s.Users.Append(ctx, tx, string(user), api.TypeErased, &api.OutputErased{UserID: user})
			pending = PendingErase
		}
		if err := s.removeAll(ctx, tx, user); err != nil {
			return err
		}
		if err := s.Keys.RemoveUser(ctx, tx, user); err != nil {
			return fmt.Errorf("remove the keys: %w", err)
		}
		return s.Store.PutPending(ctx, tx, user, pending, s.Now())
	})
	if err != nil {
		return "", fmt.Errorf("deactivate %s: %w", user, err)
	}
	return pending, nil
}
