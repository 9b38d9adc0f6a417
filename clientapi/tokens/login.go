package tokens

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// LoginLifetime is how long a login token works (Client-Server API, § POST /login/get_token).
const LoginLifetime = 2 * time.Minute

const (
	caveatUse    = "use = login"
	caveatUser   = "user = "
	caveatBefore = "before = " // ms
)

// LoginToken makes a token with which a client of this user logs in, once.
func (s *Service) LoginToken(user id.UserID) (string, error) {
	once, expires := Random(), s.now().Add(LoginLifetime).UnixMilli()
	m, err := macaroon.New(s.root, []byte(once), s.where, macaroon.V2)
	if err != nil {
		return "", fmt.Errorf("make a login token: %w", err)
	}
	for _, caveat := range []string{caveatUse, caveatUser + string(user), caveatBefore + strconv.FormatInt(expires, 10)} {
		if err := m.AddFirstPartyCaveat([]byte(caveat)); err != nil {
			return "", fmt.Errorf("make a login token: %w", err)
		}
	}
	binary, err := m.MarshalBinary()
	if err != nil {
		return "", fmt.Errorf("encode a login token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(binary), nil
}

// RedeemLoginToken uses a login token up, and tells whose it is. M_FORBIDDEN if it is not valid.
func (s *Service) RedeemLoginToken(ctx context.Context, token string) (id.UserID, error) {
	forbidden := mxerr.Forbidden("the login token is not valid, has expired or was used before")
	binary, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(token) > maxToken {
		return "", forbidden
	}
	m := new(macaroon.Macaroon)
	if m.UnmarshalBinary(binary) != nil {
		return "", forbidden
	}
	now := s.now().UnixMilli()
	var user id.UserID
	var forLogin, inTime bool
	err = m.Verify(s.root, func(caveat string) error {
		switch {
		case caveat == caveatUse:
			forLogin = true
		case strings.HasPrefix(caveat, caveatUser):
			named := id.UserID(strings.TrimPrefix(caveat, caveatUser))
			if user != "" && user != named {
				return errors.New("two users")
			}
			user = named
		case strings.HasPrefix(caveat, caveatBefore):
			before, err := strconv.ParseInt(strings.TrimPrefix(caveat, caveatBefore), 10, 64)
			if err != nil || now >= before {
				return errors.New("expired")
			}
			inTime = true
		default:
			return errors.New("unknown caveat")
		}
		return nil
	}, nil)
	if err != nil || !forLogin || !inTime || user == "" {
		return "", forbidden
	}
	fresh, err := s.useOnce(ctx, "login:"+string(m.Id()), LoginLifetime)
	if err != nil {
		return "", fmt.Errorf("use a login token: %w", err)
	}
	if !fresh {
		return "", forbidden
	}
	return user, nil
}
