package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	// NonceLifetime is how long a nonce may be used.
	NonceLifetime = time.Minute
	// OpenIDLifetime is how long others can learn from an OpenID token who its user is.
	OpenIDLifetime = time.Hour
)

// What sealed words are for.
const (
	forNonce  = "nonce"
	forOpenID = "openid"
)

// Nonce makes a word that UseNonce takes once. Nothing is kept of it until then.
func (s *Service) Nonce() string { return s.sealed(forNonce, Random(), NonceLifetime) }

// UseNonce tells whether a nonce is one of ours, in time, and was not used before. It is used then.
func (s *Service) UseNonce(ctx context.Context, nonce string) (bool, error) {
	text, ours := s.unseal(forNonce, nonce)
	if !ours {
		return false, nil
	}
	return s.useOnce(ctx, "nonce:"+text, NonceLifetime)
}

// OpenIDToken makes a token that proves to others who a user is, and does nothing else (Client-Server API, § OpenID).
func (s *Service) OpenIDToken(user id.UserID) string {
	return s.sealed(forOpenID, string(user), OpenIDLifetime)
}

// OpenIDUser tells whose an OpenID token is. M_UNKNOWN_TOKEN if nobody's, or if it is too old.
func (s *Service) OpenIDUser(token string) (id.UserID, error) {
	user, ours := s.unseal(forOpenID, token)
	if !ours {
		return "", UnknownOpenID()
	}
	return id.UserID(user), nil
}

// UnknownOpenID is the error for an OpenID token that proves nothing.
func UnknownOpenID() error {
	return mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN",
		"the OpenID token is unknown or has expired: ask its user for a new one")
}

// sealed makes of a text a word that nobody else can make, for one purpose and a time. Nothing is kept of it.
func (s *Service) sealed(purpose, text string, lifetime time.Duration) string {
	word := binary.BigEndian.AppendUint64([]byte(text), uint64(s.now().Add(lifetime).UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(word, s.proof(purpose, word)...))
}

// unseal returns the text of a word that is ours, for this purpose, and in time.
func (s *Service) unseal(purpose, word string) (text string, ours bool) {
	all, err := base64.RawURLEncoding.DecodeString(word)
	n := len(all) - sha256.Size
	if err != nil || n <= 8 || len(word) > maxToken {
		return "", false
	}
	until := int64(binary.BigEndian.Uint64(all[n-8 : n]))
	if !hmac.Equal(s.proof(purpose, all[:n]), all[n:]) || s.now().UnixMilli() >= until {
		return "", false
	}
	return string(all[:n-8]), true
}

func (s *Service) proof(purpose string, word []byte) []byte {
	mac := hmac.New(sha256.New, s.root)
	mac.Write([]byte(purpose))
	mac.Write(word)
	return mac.Sum(nil)
}

// useOnce tells whether a key is used for the first time. It is remembered for as long as it would be valid.
func (s *Service) useOnce(ctx context.Context, key string, lifetime time.Duration) (bool, error) {
	fresh := false
	err := s.store.DB.Write(ctx, "use once", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		fresh, err = s.store.UseOnce(ctx, tx, key, s.now().Add(lifetime).UnixMilli())
		return err
	})
	if err != nil {
		return false, fmt.Errorf("remember what was used: %w", err)
	}
	return fresh, nil
}
