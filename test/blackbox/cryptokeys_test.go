package blackbox

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/keytest"
)

// unpadded is the base64 of the specification.
func unpadded(b []byte) string { return keytest.Unpadded(b) }

// signer is a key that signs JSON for a user.
type signer struct {
	t      *testing.T
	key    keytest.Key
	userID string
	keyID  string // with its algorithm
}

// newSigner makes a key with a name; without one it is named after itself, as cross-signing keys are.
func newSigner(t *testing.T, userID, name string) *signer {
	key := keytest.New(userID, name)
	return &signer{t, key, userID, key.ID()}
}

// public is the public key.
func (s *signer) public() string { return s.key.Public() }

// sign returns the object with one more signature.
func (s *signer) sign(o object) object { return s.key.Sign(o) }

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
		"algorithms": []string{keytest.Olm, keytest.Megolm},
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

// claim claims a key of a device: its id, empty if there is none.
func (c *client) claim(userID, deviceID string) (keyID string, key gjson.Result) {
	c.t.Helper()
	a := c.must("POST", at("keys", "claim"),
		object{"one_time_keys": object{userID: object{deviceID: "signed_curve25519"}}})
	in(a, "one_time_keys", userID, deviceID).ForEach(func(name, value gjson.Result) bool {
		keyID, key = name.Str, value
		return true
	})
	return keyID, key
}

// claimed is claim for its id alone.
func (c *client) claimed(userID, deviceID string) string {
	c.t.Helper()
	keyID, _ := c.claim(userID, deviceID)
	return keyID
}

// crossSigning are a user's cross-signing keys.
type crossSigning struct{ master, self, user *signer }

// crossSigning makes cross-signing keys for the client's user. Nothing is uploaded.
func (c *client) crossSigning() *crossSigning {
	c.t.Helper()
	return &crossSigning{newSigner(c.t, c.userID, ""), newSigner(c.t, c.userID, ""), newSigner(c.t, c.userID, "")}
}

// object is the JSON of a cross-signing key, without signatures.
func (s *signer) object(usage string) object { return s.key.CrossKey(usage) }

// upload is the body of /keys/device_signing/upload with all three keys.
func (x *crossSigning) upload() object {
	x.master.t.Helper()
	return object{"master_key": x.master.object("master"),
		"self_signing_key": x.master.sign(x.self.object("self_signing")),
		"user_signing_key": x.master.sign(x.user.object("user_signing"))}
}
