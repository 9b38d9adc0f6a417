package accounts

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
)

// The rate limits of wrong passwords: of one user from one network, of one user from everywhere, and, beyond that, from
// one network where the user was not seen.
const (
	limitOwn    = "login"
	limitAll    = "password"
	limitBeyond = "password_beyond"
)

// guess lets a password be checked that may be wrong, and counts it as if it was. Each network has its own limit for a
// user, so that nobody uses up another's. Beside it, many networks together have one, which does not count for those
// where a device of the user was seen. From elsewhere few are checked then, so that a password that is right at once
// always counts, whoever guesses meanwhile. right takes the count back, for a password that is right.
func (s *Service) guess(ctx context.Context, user id.UserID, address string) (right func(), err error) {
	if s.Limits == nil {
		return func() {}, nil
	}
	network := httputil.Network(address)
	own, all := "password of "+string(user)+" from "+network, "password of "+string(user)
	if err := s.Limits.Allow(limitOwn, own); err != nil {
		return nil, err
	}
	if s.Limits.Allow(limitAll, all) == nil {
		return func() {
			s.Limits.Return(limitOwn, own)
			s.Limits.Return(limitAll, all)
		}, nil
	}
	devices, err := s.Devices(ctx, user)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(devices, func(d storage.Device) bool { return httputil.Network(d.LastSeenIP) == network }) {
		return func() { s.Limits.Return(limitOwn, own) }, nil
	}
	if err := s.Limits.Allow(limitBeyond, own); err != nil {
		s.Limits.Return(limitOwn, own) // nothing is checked
		return nil, err
	}
	return func() {
		s.Limits.Return(limitOwn, own)
		s.Limits.Return(limitBeyond, own)
	}, nil
}
