// Package tokens makes and judges what lets clients in: access tokens, refresh tokens and login tokens.
//
// Access and refresh tokens are random and opaque; only their SHA-256 is kept. A refresh makes a new pair and leaves the old
// refresh token valid until the new pair is used for the first time, so that a client which lost the answer can ask again
// (Client-Server API, § Refreshing access tokens). Login tokens are macaroons that can be used once.
package tokens

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

const (
	// AccessLifetime is how long an access token works that came with a refresh token. Others work until they are revoked.
	AccessLifetime = 5 * time.Minute
	// keepExpired is how long a client with an expired and refreshed token still hears that it may log in again.
	keepExpired = 7 * 24 * time.Hour
	// MostRefreshed is how many of these tokens one device has.
	MostRefreshed = 100
	// maxToken is longer than any token we make.
	maxToken = 2048
)

// Issued is what a client gets.
type Issued struct {
	AccessToken  string
	RefreshToken string        // empty: the access token does not expire
	ExpiresIn    time.Duration // 0: never
}

// Service knows the tokens.
type Service struct {
	store *storage.Store
	now   func() time.Time
	root  []byte // key of login tokens and nonces
	where string
}

// New makes a Service. All replicas share the key of login tokens through the database.
func New(ctx context.Context, store *storage.Store, server id.ServerName, now func() time.Time) (*Service, error) {
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails
	root, err := store.Secret(ctx, "login_tokens", fresh)
	if err != nil {
		return nil, fmt.Errorf("key of login tokens: %w", err)
	}
	return &Service{store: store, now: now, root: root, where: string(server)}, nil
}

// Random is a word that cannot be guessed, fit for URLs.
func Random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func hash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// Wanted are tokens of a device that are to be made.
type Wanted struct {
	UserID      id.UserID
	DeviceID    id.DeviceID
	Refreshable bool // a refresh token comes with the access token
	Plain       bool // the rights of an administrator do not come with them, nor with those that they are refreshed into
}

// Issue makes tokens in the caller's transaction.
func (s *Service) Issue(ctx context.Context, tx *sqlutil.Tx, w Wanted) (Issued, error) {
	return s.issue(ctx, tx, w, nil)
}

func (s *Service) issue(ctx context.Context, tx *sqlutil.Tx, w Wanted, parent []byte) (Issued, error) {
	now := s.now()
	issued := Issued{AccessToken: "dat_" + Random()}
	row := storage.Token{AccessHash: hash(issued.AccessToken), UserID: w.UserID, DeviceID: w.DeviceID, CreatedMS: now.UnixMilli(),
		Parent: parent, Plain: w.Plain}
	if w.Refreshable {
		issued.RefreshToken, issued.ExpiresIn = "drt_"+Random(), AccessLifetime
		row.RefreshHash, row.ExpiresMS = hash(issued.RefreshToken), now.Add(AccessLifetime).UnixMilli()
	}
	if err := s.store.InsertToken(ctx, tx, row); err != nil {
		return Issued{}, fmt.Errorf("keep a token: %w", err)
	}
	return issued, nil
}

// Query tells whose an access token is. M_UNKNOWN_TOKEN if it is nobody's, with soft_logout if it has expired.
func (s *Service) Query(ctx context.Context, token string) (httputil.Caller, error) {
	unknown := mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "the access token is unknown or was revoked: log in again")
	if token == "" || len(token) > maxToken {
		return httputil.Caller{}, unknown
	}
	var owner *storage.TokenOwner
	err := s.store.DB.ReadOne(ctx, "query token", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		owner, err = s.store.TokenByAccess(ctx, tx, hash(token))
		return err
	})
	switch {
	case err != nil:
		return httputil.Caller{}, fmt.Errorf("look up an access token: %w", err)
	case owner == nil:
		return httputil.Caller{}, unknown
	case owner.Expired(s.now().UnixMilli()):
		return httputil.Caller{}, mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN",
			"the access token has expired: refresh it, or log in again to the same device").With("soft_logout", true)
	}
	if owner.Parent != nil {
		err := s.store.DB.Write(ctx, "confirm token", func(ctx context.Context, tx *sqlutil.Tx) error {
			return s.store.ConfirmToken(ctx, tx, owner.Token)
		})
		if err != nil {
			return httputil.Caller{}, fmt.Errorf("end the refresh token before this one: %w", err)
		}
	}
	return httputil.Caller{UserID: owner.UserID, DeviceID: owner.DeviceID, Guest: owner.Guest, Admin: owner.Admin && !owner.Plain,
		Locked: owner.Locked, Suspended: owner.Suspended, TokenHash: hex.EncodeToString(owner.AccessHash)}, nil
}

// Refresh makes a new pair of tokens from a refresh token. M_UNKNOWN_TOKEN if it is unknown or its successor is in use, in
// the second case with soft_logout.
func (s *Service) Refresh(ctx context.Context, refreshToken string) (Issued, error) {
	if refreshToken == "" || len(refreshToken) > maxToken {
		return Issued{}, unknownRefresh(false)
	}
	var issued Issued
	err := s.store.DB.Write(ctx, "refresh", func(ctx context.Context, tx *sqlutil.Tx) error {
		old, err := s.store.TokenByRefresh(ctx, tx, hash(refreshToken))
		if err != nil {
			return fmt.Errorf("look up a refresh token: %w", err)
		}
		if old == nil || old.RefreshUsed {
			return unknownRefresh(old != nil)
		}
		if old.Locked {
			return mxerr.Locked()
		}
		if old.Parent != nil {
			if err := s.store.ConfirmToken(ctx, tx, old.Token); err != nil {
				return fmt.Errorf("end the refresh token before this one: %w", err)
			}
		}
		if err := s.store.DeleteChildren(ctx, tx, old.AccessHash); err != nil {
			return fmt.Errorf("drop tokens that were never used: %w", err)
		}
		if err := s.store.DeleteExpired(ctx, tx, old.UserID, old.DeviceID, s.now().Add(-keepExpired).UnixMilli()); err != nil {
			return fmt.Errorf("drop old tokens: %w", err)
		}
		if err := s.store.DeleteSurplusTokens(ctx, tx, old.UserID, old.DeviceID, MostRefreshed); err != nil {
			return fmt.Errorf("drop the oldest tokens: %w", err)
		}
		w := Wanted{UserID: old.UserID, DeviceID: old.DeviceID, Refreshable: true, Plain: old.Plain}
		issued, err = s.issue(ctx, tx, w, old.AccessHash)
		return err
	})
	return issued, err
}

func unknownRefresh(soft bool) error {
	e := mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "the refresh token is unknown or was used before: log in again")
	if soft {
		return e.With("soft_logout", true)
	}
	return e
}
