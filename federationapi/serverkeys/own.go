// Package serverkeys has the keys by which servers sign.
package serverkeys

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
)

// Own is this server's document of keys. It is safe for concurrent use.
type Own struct {
	signer   pdu.Signer
	validity time.Duration
	used     UsedKeys
	now      func() time.Time

	mu       sync.Mutex
	document []byte
	keys     string    // the old ones that are in the document
	look     time.Time // when keys are looked at again
	until    time.Time // when the document must be made again
}

// UsedKeys are the keys with which this server has signed, the current one first.
type UsedKeys func(ctx context.Context) ([]identity.Key, error)

// New makes the document of a server that signs with one key and has used others; validity is for how long others may
// rely on it.
func New(signer pdu.Signer, validity time.Duration, used UsedKeys) *Own {
	return &Own{signer: signer, validity: validity, used: used, now: time.Now}
}

// Document is the signed JSON of GET /_matrix/key/v2/server (Server-Server API, § Publishing Keys). It is made anew when half of
// its validity is over, so that whoever asks gets one that is good for a while, and when another process has begun to
// use another key.
func (o *Own) Document(ctx context.Context) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if now.Before(o.look) && now.Before(o.until) {
		return o.document, nil
	}
	used, err := o.used(ctx)
	if err != nil {
		return nil, err
	}
	old := o.old(used, now)
	keys := fmt.Sprint(old) // maps are printed in order
	if keys != o.keys || !now.Before(o.until) {
		if o.document, err = o.sign(old, now); err != nil {
			return nil, err
		}
		o.keys, o.until = keys, now.Add(o.validity/2)
	}
	o.look = now.Add(identity.KeyUseEvery)
	return o.document, nil
}

type oldVerifyKeys = map[gomatrixserverlib.KeyID]gomatrixserverlib.OldVerifyKey

// old are the keys that this process does not sign with. A document must be signed with each key that it says is in
// use, so while replicas are given another key one after the other, each says that the other's is used until now.
func (o *Own) old(used []identity.Key, now time.Time) oldVerifyKeys {
	old := oldVerifyKeys{}
	for _, k := range used {
		if k.ID == string(o.signer.KeyID) {
			continue
		}
		// A process that was killed has used it a little longer than it noted.
		expired := k.Used.Add(identity.KeyUseEvery)
		if now.Before(expired) {
			expired = now
		}
		old[gomatrixserverlib.KeyID(k.ID)] = gomatrixserverlib.OldVerifyKey{ExpiredTS: spec.AsTimestamp(expired),
			VerifyKey: gomatrixserverlib.VerifyKey{Key: spec.Base64Bytes(k.Public)}}
	}
	return old
}

func (o *Own) sign(old oldVerifyKeys, now time.Time) ([]byte, error) {
	public, _ := o.signer.PrivateKey.Public().(ed25519.PublicKey)
	unsigned, err := json.Marshal(gomatrixserverlib.ServerKeyFields{
		ServerName:    spec.ServerName(o.signer.ServerName),
		VerifyKeys:    map[gomatrixserverlib.KeyID]gomatrixserverlib.VerifyKey{o.signer.KeyID: {Key: spec.Base64Bytes(public)}},
		ValidUntilTS:  spec.AsTimestamp(now.Add(o.validity)),
		OldVerifyKeys: old,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding this server's keys: %w", err)
	}
	document, err := gomatrixserverlib.SignJSON(string(o.signer.ServerName), o.signer.KeyID, o.signer.PrivateKey, unsigned)
	if err != nil {
		return nil, fmt.Errorf("signing this server's keys: %w", err)
	}
	return document, nil
}
