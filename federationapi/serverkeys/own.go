// Package serverkeys has the keys by which servers sign.
package serverkeys

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/matrix-org/dendrite/common/pdu"
)

// Own is this server's document of keys. It is safe for concurrent use.
type Own struct {
	signer   pdu.Signer
	validity time.Duration
	now      func() time.Time

	mu       sync.Mutex
	document []byte
	until    time.Time // when the document must be made again
}

// New makes the document of a server that signs with one key; validity is for how long others may rely on it.
func New(signer pdu.Signer, validity time.Duration) *Own {
	return &Own{signer: signer, validity: validity, now: time.Now}
}

// Document is the signed JSON of GET /_matrix/key/v2/server (Server-Server API, § Publishing Keys). It is made anew when half of
// its validity is over, so that whoever asks gets one that is good for a while.
func (o *Own) Document() ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if now.Before(o.until) {
		return o.document, nil
	}
	public := o.signer.PrivateKey.Public().(ed25519.PublicKey)
	unsigned, err := json.Marshal(gomatrixserverlib.ServerKeyFields{
		ServerName:    spec.ServerName(o.signer.ServerName),
		VerifyKeys:    map[gomatrixserverlib.KeyID]gomatrixserverlib.VerifyKey{o.signer.KeyID: {Key: spec.Base64Bytes(public)}},
		ValidUntilTS:  spec.AsTimestamp(now.Add(o.validity)),
		OldVerifyKeys: map[gomatrixserverlib.KeyID]gomatrixserverlib.OldVerifyKey{},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding this server's keys: %w", err)
	}
	document, err := gomatrixserverlib.SignJSON(string(o.signer.ServerName), o.signer.KeyID, o.signer.PrivateKey, unsigned)
	if err != nil {
		return nil, fmt.Errorf("signing this server's keys: %w", err)
	}
	o.document, o.until = document, now.Add(o.validity/2)
	return document, nil
}
