package keys

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"

	"github.com/matrix-org/dendrite/common/pdu"
)

// The vectors of Appendices, § Cryptographic Test Vectors, JSON Signing.
func TestTheVectorsOfTheSpecification(t *testing.T) {
	seed, err := base64.RawStdEncoding.DecodeString("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	public := base64.RawStdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
	for object, signature := range map[string]string{
		`{"signatures":{"domain":{}}}`:                    "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
		`{"two": "\u0054wo", "unsigned": 1.5e3, "one":1}`: "",
		`{"two": "\u0054wo", "unsigned": 15, "one":1}`:    "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
	} {
		form, err := pdu.SigningForm([]byte(object))
		if (err != nil) != (signature == "") {
			t.Errorf("%s: %v", object, err)
		}
		if err != nil {
			continue
		}
		if !signed(form, public, signature) {
			t.Errorf("%s, which is %s, does not have its signature", object, form)
		}
		for name, wrong := range map[string]string{"other": "A" + signature[1:], "short": signature[:85],
			"padded": signature + "==", "empty": "", "no base64": "!" + signature[1:]} {
			if signed(form, public, wrong) {
				t.Errorf("%s: a signature that is %s is right", object, name)
			}
		}
		if signed(append(form, ' '), public, signature) || signed(form, public[:42]+"B", signature) || signed(form, "",
			signature) {
			t.Errorf("%s: the signature is right for something else", object)
		}
	}
}

func TestAKeyHasOneSpelling(t *testing.T) {
	const key = "SogYyrkTldLz0BXP+GYWs0qaYacUI0RleEqNT8J3riQ"
	if !IsPublicKey(key) {
		t.Error("the specification's key is none")
	}
	for _, wrong := range []string{"", key + "=", key[:42] + "R", key[:42], key + "A",
		"SogYyrkTldLz0BXP-GYWs0qaYacUI0RleEqNT8J3riQ", key + "\n"} {
		if IsPublicKey(wrong) {
			t.Errorf("%q is a key", wrong)
		}
	}
}

func TestSignaturesAreSplicedIn(t *testing.T) {
	got := string(withSignatures([]byte(`{"a":1}`), []signature{{"@a:x", "ed25519:1", "s"}, {"@a:x", "ed25519:2",
		"t"}, {"@b:x", "ed25519:\"", "u"}}, unsigned("\"A\n")...))
	want := `{"a":1,"signatures":{"@a:x":{"ed25519:1":"s","ed25519:2":"t"},"@b:x":{"ed25519:\"":"u"}},` +
		`"unsigned":{"device_display_name":"\"A\n"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(withSignatures([]byte(`{}`), nil)); got != `{"signatures":{}}` {
		t.Errorf("got %s", got)
	}
}

func BenchmarkVerify(b *testing.B) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	form := []byte(`{"key":"SogYyrkTldLz0BXP+GYWs0qaYacUI0RleEqNT8J3riQ"}`)
	key := base64.RawStdEncoding.EncodeToString(public)
	signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(private, form))
	for b.Loop() {
		if !signed(form, key, signature) {
			b.Fatal("wrong")
		}
	}
}
