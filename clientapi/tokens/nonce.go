package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// NonceLifetime is how long a nonce may be used.
const NonceLifetime = time.Minute

// Nonce makes a word that UseNonce takes once. Nothing is kept of it until then.
func (s *Service) Nonce() string {
	text := binary.BigEndian.AppendUint64([]byte(Random()), uint64(s.now().Add(NonceLifetime).UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(s.seal(text))
}

// UseNonce tells whether a nonce is one of ours, in time, and was not used before. It is used then.
func (s *Service) UseNonce(ctx context.Context, nonce string) (bool, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(sealed) <= sha256.Size+8 || len(nonce) > maxToken {
		return false, nil
	}
	text := sealed[:len(sealed)-sha256.Size]
	until := int64(binary.BigEndian.Uint64(text[len(text)-8:]))
	if !hmac.Equal(s.seal(text), sealed) || s.now().UnixMilli() >= until {
		return false, nil
	}
	return s.useOnce(ctx, "nonce:"+base64.RawURLEncoding.EncodeToString(text), NonceLifetime)
}

// seal adds a proof that we made a text.
func (s *Service) seal(text []byte) []byte {
	mac := hmac.New(sha256.New, s.root)
	mac.Write([]byte("nonce"))
	mac.Write(text)
	return mac.Sum(text[:len(text):len(text)])
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
