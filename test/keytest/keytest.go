// Package keytest makes keys of devices and of users, and signs with them, for tests of encryption. Keys are made of
// their names, so that the same ones come at each run; New makes others.
package keytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
)

// Object is JSON.
type Object = map[string]any

// Algorithms of the specification.
const (
	Olm    = "m.olm.v1.curve25519-aes-sha2"
	Megolm = "m.megolm.v1.aes-sha2"
	Backup = "m.megolm_backup.v1.curve25519-aes-sha2"
)

// Key is an ed25519 key of a user that signs.
type Key struct {
	User, Device string // Device is empty for a cross-signing key
	private      ed25519.PrivateKey
}

func key(user, name string) Key {
	seed := sha256.Sum256([]byte(user + " " + name))
	return Key{User: user, private: ed25519.NewKeyFromSeed(seed[:])}
}

// Device is the key of a device.
func Device(user, device string) Key {
	k := key(user, device)
	k.Device = device
	return k
}

// Cross is a cross-signing key. Of one name, there is one.
func Cross(user, name string) Key { return key(user, name) }

// New is a key that nobody had before; of a device, or with an empty one for cross-signing.
func New(user, device string) Key {
	k := key(user, rand.Text())
	k.Device = device
	return k
}

// Unpadded is the base64 of the specification.
func Unpadded(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// Curve is what looks like a curve25519 key.
func Curve(name string) string {
	seed := sha256.Sum256([]byte(name))
	return Unpadded(seed[:])
}

// Public is the public key.
func (k Key) Public() string { return Unpadded(k.private.Public().(ed25519.PublicKey)) }

// ID is what signatures are named.
func (k Key) ID() string {
	if k.Device != "" {
		return "ed25519:" + k.Device
	}
	return "ed25519:" + k.Public()
}

// Sign returns the object with one more signature, the key's (Appendices, § Signing JSON).
func (k Key) Sign(o Object) Object {
	signed := maps.Clone(o)
	delete(signed, "signatures")
	delete(signed, "unsigned")
	var text bytes.Buffer
	e := json.NewEncoder(&text) // sorts members
	e.SetEscapeHTML(false)
	if err := e.Encode(signed); err != nil {
		panic(err) // not reached: tests sign what is JSON
	}
	all, mine := Object{}, Object{}
	if before, has := o["signatures"].(Object); has {
		maps.Copy(all, before)
	}
	if before, has := all[k.User].(Object); has {
		maps.Copy(mine, before)
	}
	mine[k.ID()] = Unpadded(ed25519.Sign(k.private, bytes.TrimSpace(text.Bytes())))
	all[k.User] = mine
	signed = maps.Clone(o)
	signed["signatures"] = all
	return signed
}

// DeviceKeys are those of the device, not signed.
func (k Key) DeviceKeys() Object {
	return Object{"user_id": k.User, "device_id": k.Device, "algorithms": []string{Olm, Megolm},
		"keys": Object{k.ID(): k.Public(), "curve25519:" + k.Device: Curve(k.User + k.Device)}}
}

// OneTime are so many signed keys to claim, from a number on.
func (k Key) OneTime(from, n int) Object {
	all := make(Object, n)
	for i := from; i < from+n; i++ {
		name := fmt.Sprintf("signed_curve25519:%06d", i)
		all[name] = k.Sign(Object{"key": Curve(k.User + k.Device + name)})
	}
	return all
}

// Fallback is a signed fallback key of a number.
func (k Key) Fallback(n int) Object {
	name := fmt.Sprintf("signed_curve25519:F%05d", n)
	return Object{name: k.Sign(Object{"key": Curve(k.User + k.Device + name), "fallback": true})}
}

// CrossKey is the key as a cross-signing key, not signed.
func (k Key) CrossKey(usage string) Object {
	return Object{"user_id": k.User, "usage": []string{usage}, "keys": Object{k.ID(): k.Public()}}
}

// Session is a key of a room as backups have it.
func Session(firstIndex int) Object {
	return Object{"first_message_index": firstIndex, "forwarded_count": 0, "is_verified": true,
		"session_data": Object{"ephemeral": Curve("ephemeral"), "ciphertext": Curve("ciphertext"), "mac": "mac"}}
}
