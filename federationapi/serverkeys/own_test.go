package serverkeys

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"testing"
	"time"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
)

func TestDocumentVerifiesAndIsRenewed(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	var used []identity.Key
	o := New(pdu.Signer{ServerName: "example.org", KeyID: "ed25519:a", PrivateKey: key}, 24*time.Hour,
		func(context.Context) ([]identity.Key, error) { return used, nil })
	now := time.UnixMilli(1_700_000_000_000)
	o.now = func() time.Time { return now }

	check := func() gomatrixserverlib.ServerKeys {
		t.Helper()
		document, err := o.Document(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var keys gomatrixserverlib.ServerKeys
		if err := json.Unmarshal(document, &keys); err != nil {
			t.Fatal(err)
		}
		if checks, _ := gomatrixserverlib.CheckKeys("example.org", now, keys); !checks.AllChecksOK {
			t.Fatalf("other servers refuse the document: %+v\n%s", checks, document)
		}
		return keys
	}
	first := check()
	if until := first.ValidUntilTS.Time(); !until.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("valid until %v, not a day from %v", until, now)
	}
	now = now.Add(11 * time.Hour)
	if again := check(); again.ValidUntilTS != first.ValidUntilTS {
		t.Error("made again although it is good for more than half of its time")
	}
	now = now.Add(2 * time.Hour)
	if renewed := check(); renewed.ValidUntilTS == first.ValidUntilTS {
		t.Error("not made again when more than half of its time is over")
	}

	// Another process has begun to sign with another key.
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	third := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	used = []identity.Key{{ID: "ed25519:b", Public: other, Used: now},
		{ID: "ed25519:a", Public: key.Public().(ed25519.PublicKey), Used: now},
		{ID: "ed25519:c", Public: third, Used: now.Add(-time.Hour)}}
	now = now.Add(2 * identity.KeyUseEvery)
	rotated := check()
	if len(rotated.VerifyKeys) != 1 || !bytes.Equal(rotated.OldVerifyKeys["ed25519:b"].Key, other) {
		t.Errorf("keys to verify with: %v", rotated.VerifyKeys)
	}
	old := rotated.OldVerifyKeys["ed25519:c"]
	if len(rotated.OldVerifyKeys) != 2 || !bytes.Equal(old.Key, third) ||
		!old.ExpiredTS.Time().Equal(used[2].Used.Add(identity.KeyUseEvery)) {
		t.Errorf("old keys: %v", rotated.OldVerifyKeys)
	}
}
