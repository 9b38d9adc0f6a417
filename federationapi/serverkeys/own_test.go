package serverkeys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"testing"
	"time"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/pdu"
)

func TestDocumentVerifiesAndIsRenewed(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	o := New(pdu.Signer{ServerName: "example.org", KeyID: "ed25519:a", PrivateKey: key}, 24*time.Hour)
	now := time.UnixMilli(1_700_000_000_000)
	o.now = func() time.Time { return now }

	check := func() gomatrixserverlib.ServerKeys {
		t.Helper()
		document, err := o.Document()
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
}
