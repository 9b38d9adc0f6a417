package accounts

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// What administrators can put on an account (Client-Server API, § Account moderation).
const (
	Locked    = "locked"
	Suspended = "suspended"
)

// CheckAdmin fails for callers who are no administrators of this server.
func CheckAdmin(by httputil.Caller) error {
	if !by.Admin {
		return mxerr.Forbidden("only administrators of this server may do this")
	}
	return nil
}

// Local finds the account of a user of this server. M_INVALID_PARAM for users of others, M_NOT_FOUND where there is none that is
// active.
func (s *Service) Local(ctx context.Context, user id.UserID) (*storage.Account, error) {
	if user.Server() != s.Server {
		return nil, mxerr.InvalidParam("%s is no user of this server", user)
	}
	account, err := s.account(ctx, user)
	if err == nil && (account == nil || account.Deactivated) {
		err = mxerr.NotFound("there is no account %s", user)
	}
	return account, err
}

// Moderated tells an administrator what is on an account. Those of other administrators are none of their business.
func (s *Service) Moderated(ctx context.Context, by httputil.Caller, user id.UserID) (*storage.Account, error) {
	if err := CheckAdmin(by); err != nil {
		return nil, err
	}
	account, err := s.Local(ctx, user)
	if err == nil && account.Admin && user != by.UserID {
		err = mxerr.Forbidden("%s is an administrator", user)
	}
	return account, err
}

// Moderate locks or suspends an account, or lifts that.
func (s *Service) Moderate(ctx context.Context, by httputil.Caller, user id.UserID, what string, is bool) error {
	if _, err := s.Moderated(ctx, by, user); err != nil {
		return err
	}
	if user == by.UserID {
		return mxerr.Forbidden("you cannot do this to yourself")
	}
	err := s.Store.DB.Write(ctx, what, func(ctx context.Context, tx *sqlutil.Tx) error {
		s.tell(ctx, tx, api.TypeTokens, user, "")
		return s.Store.Moderate(ctx, tx, user, what, is)
	})
	if err != nil {
		return fmt.Errorf("set %s of %s: %w", what, user, err)
	}
	return nil
}
