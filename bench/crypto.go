package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// identity is the keys of a device and of its user, as clients make them. What is signed is signed; what is only ever
// used between clients is random bytes of the right size.
type identity struct {
	*user
	device             ed25519.PrivateKey
	master, self       ed25519.PrivateKey
	agreement, forUser string
	made               int // one-time keys
}

func newIdentity(u *user) *identity {
	key := func() ed25519.PrivateKey {
		_, private, _ := ed25519.GenerateKey(nil)
		return private
	}
	return &identity{user: u, device: key(), master: key(), self: key(), agreement: random(32), forUser: public(key())}
}

// random is unpadded base64 of n random bytes.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.RawStdEncoding.EncodeToString(b)
}

func public(key ed25519.PrivateKey) string {
	return base64.RawStdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

type object = map[string]any

// sign adds a signature of the user to an object. What encoding/json makes of maps of ASCII strings is canonical JSON.
func (i *identity) sign(o object, keyID string, key ed25519.PrivateKey) object {
	signatures, _ := o["signatures"].(object)
	delete(o, "signatures")
	canonical, _ := json.Marshal(o)
	if signatures == nil {
		signatures = object{i.id: object{}}
	}
	signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(key, canonical))
	signatures[i.id].(object)["ed25519:"+keyID] = signature
	o["signatures"] = signatures
	return o
}

func (i *identity) deviceKeys() object {
	return i.sign(object{
		"user_id": i.id, "device_id": i.user.device,
		"algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys": object{
			"curve25519:" + i.user.device: i.agreement, "ed25519:" + i.user.device: public(i.device),
		},
	}, i.user.device, i.device)
}

// oneTimeKeys makes n new ones.
func (i *identity) oneTimeKeys(n int) object {
	keys := object{}
	for range n {
		i.made++
		id := fmt.Sprintf("signed_curve25519:AAAA%06d", i.made)
		keys[id] = i.sign(object{"key": random(32)}, i.user.device, i.device)
	}
	return keys
}

// crossSigning is the keys of the user, and uploads of them need no password while there are none.
func (i *identity) crossSigning() object {
	key := func(usage, public string) object {
		return object{"user_id": i.id, "usage": []string{usage}, "keys": object{"ed25519:" + public: public}}
	}
	master := public(i.master)
	return object{
		"master_key":       i.sign(key("master", master), i.user.device, i.device),
		"self_signing_key": i.sign(key("self_signing", public(i.self)), master, i.master),
		"user_signing_key": i.sign(key("user_signing", i.forUser), master, i.master),
	}
}

// signedDevice is the device's keys with the signature of its user.
func (i *identity) signedDevice() object {
	return object{i.id: object{i.user.device: i.sign(i.deviceKeys(), public(i.self), i.self)}}
}

func (u *user) post(path string, in, out any) error {
	_, err := u.t.call(context.Background(), "POST", "/_matrix/client/v3"+path, u.token, in, out)
	return err
}

// upload sends keys, and checks that the server counts as many one-time keys as it should have.
func (i *identity) upload(body any, want int) error {
	var r struct {
		Counts map[string]int `json:"one_time_key_counts"`
	}
	err := i.post("/keys/upload", body, &r)
	if got := r.Counts["signed_curve25519"]; err == nil && got != want {
		err = fmt.Errorf("the server counts %d one-time keys of %d", got, want)
	}
	return err
}

// publish uploads all that other users see.
func (i *identity) publish() error {
	if err := i.upload(object{"device_keys": i.deviceKeys()}, 0); err != nil {
		return err
	}
	if err := i.post("/keys/device_signing/upload", i.crossSigning(), nil); err != nil {
		return err
	}
	var r struct {
		Failures object `json:"failures"`
	}
	err := i.post("/keys/signatures/upload", i.signedDevice(), &r)
	if err == nil && len(r.Failures) > 0 {
		err = fmt.Errorf("signatures: %v", r.Failures)
	}
	return err
}
