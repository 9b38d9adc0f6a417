package blackbox

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
)

// unpadded is the base64 of the specification.
func unpadded(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// signer is an ed25519 key that signs JSON for a user.
type signer struct {
	t       *testing.T
	userID  string
	keyID   string // with its algorithm
	private ed25519.PrivateKey
}

func newSigner(t *testing.T, userID, name string) *signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if name == "" {
		name = unpadded(public)
	}
	return &signer{t, userID, "ed25519:" + name, private}
}

// public is the public key.
func (s *signer) public() string { return unpadded(s.private.Public().(ed25519.PublicKey)) }

// sign returns the object with one more signature (Appendices, § Signing JSON).
func (s *signer) sign(o object) object {
	s.t.Helper()
	signed := maps.Clone(o)
	delete(signed, "signatures")
	delete(signed, "unsigned")
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(signed); err != nil { // sorts keys
		s.t.Fatal(err)
	}
	signature := unpadded(ed25519.Sign(s.private, bytes.TrimSpace(text.Bytes())))
	all := object{}
	if before, has := o["signatures"].(object); has {
		maps.Copy(all, before)
	}
	mine := object{}
	if before, has := all[s.userID].(object); has {
		maps.Copy(mine, before)
	}
	mine[s.keyID] = signature
	all[s.userID] = mine
	signed = maps.Clone(o)
	signed["signatures"] = all
	return signed
}

// cryptoDevice makes the keys of a device.
type cryptoDevice struct {
	*signer
	deviceID string
	identity string // the curve25519 key
	made     int    // one-time and fallback keys
}

// crypto makes keys for the client's device. Nothing is uploaded.
func (c *client) crypto() *cryptoDevice {
	c.t.Helper()
	return &cryptoDevice{signer: newSigner(c.t, c.userID, c.deviceID), deviceID: c.deviceID,
		identity: unpadded(randomBytes(32))}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// deviceKeys is the signed object that /keys/upload takes as device_keys.
func (k *cryptoDevice) deviceKeys() object {
	k.t.Helper()
	return k.sign(object{"user_id": k.userID, "device_id": k.deviceID,
		"algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys":       object{"curve25519:" + k.deviceID: k.identity, k.keyID: k.public()}})
}

// oneTimeKeys are so many new ones of signed_curve25519. Their ids grow.
func (k *cryptoDevice) oneTimeKeys(n int) object {
	k.t.Helper()
	keys := object{}
	for range n {
		k.made++
		keys[fmt.Sprintf("signed_curve25519:AAAA%06d", k.made)] = k.sign(object{"key": unpadded(randomBytes(32))})
	}
	return keys
}

// fallbackKey is a new one of signed_curve25519.
func (k *cryptoDevice) fallbackKey() object {
	k.t.Helper()
	k.made++
	return object{fmt.Sprintf("signed_curve25519:AAAA%06d", k.made): k.sign(object{"key": unpadded(randomBytes(32)),
		"fallback": true})}
}

// encrypted makes keys for the client's device and uploads them, with so many one-time keys.
func (c *client) encrypted(oneTime int) *cryptoDevice {
	c.t.Helper()
	k := c.crypto()
	c.must("POST", at("keys", "upload"), object{"device_keys": k.deviceKeys(), "one_time_keys": k.oneTimeKeys(oneTime)})
	return k
}

// crossSigning are a user's cross-signing keys.
type crossSigning struct{ master, self, user *signer }

// crossSigning makes cross-signing keys for the client's user. Nothing is uploaded.
func (c *client) crossSigning() *crossSigning {
	c.t.Helper()
	return &crossSigning{newSigner(c.t, c.userID, ""), newSigner(c.t, c.userID, ""), newSigner(c.t, c.userID, "")}
}

// object is the JSON of a cross-signing key, without signatures.
func (s *signer) object(usage string) object {
	return object{"user_id": s.userID, "usage": []string{usage}, "keys": object{s.keyID: s.public()}}
}

// upload is the body of /keys/device_signing/upload with all three keys.
func (x *crossSigning) upload() object {
	x.master.t.Helper()
	return object{"master_key": x.master.object("master"),
		"self_signing_key": x.master.sign(x.self.object("self_signing")),
		"user_signing_key": x.master.sign(x.user.object("user_signing"))}
}
