package contract

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
)

// signer is an ed25519 key of a user. It is made of its name, so that runs are alike.
type signer struct {
	user, id string
	private  ed25519.PrivateKey
}

// newSigner makes the key of a device, or a cross-signing key, which is named by itself.
func newSigner(user, name string, device bool) signer {
	seed := sha256.Sum256([]byte(user + name))
	s := signer{user, "ed25519:" + name, ed25519.NewKeyFromSeed(seed[:])}
	if !device {
		s.id = "ed25519:" + s.public()
	}
	return s
}

func unpadded(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

func (s signer) public() string { return unpadded(s.private.Public().(ed25519.PublicKey)) }

// sign gives an object the signature of a key (Appendices, § Signing JSON). JSON of maps has its members in order.
func (s signer) sign(o object) object {
	signed := maps.Clone(o)
	signed["signatures"] = object{s.user: object{s.id: unpadded(ed25519.Sign(s.private, []byte(text(o))))}}
	return signed
}

// cross is a cross-signing key.
func (s signer) cross(usage string) object {
	return object{"user_id": s.user, "usage": []string{usage}, "keys": object{s.id: s.public()}}
}

// device are the keys of a device of a name.
func (s signer) device(name string) object {
	return object{"user_id": s.user, "device_id": name, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", megolm},
		"keys": object{s.id: s.public(), "curve25519:" + name: curve(name)}}
}

// curve is a curve25519 key, or at least as long as one.
func curve(name string) string { seed := sha256.Sum256([]byte(name)); return unpadded(seed[:]) }

// oneTime are so many keys to claim, from a number on.
func (s signer) oneTime(from, n int) object {
	all := object{}
	for i := from; i < from+n; i++ {
		name := fmt.Sprintf("signed_curve25519:AAAA%d", i)
		all[name] = s.sign(object{"key": curve(name)})
	}
	return all
}

const (
	megolm = "m.megolm.v1.aes-sha2"
	olm    = "m.olm.v1.curve25519-aes-sha2"
	backup = "m.megolm_backup.v1.curve25519-aes-sha2"

	aliceID = "@alice:test.example"
	bobID   = "@bob:test.example"
)

var (
	alicePhone = newSigner(aliceID, "ALICE", true)
	bobPhone   = newSigner(bobID, "BOB", true)
	master     = newSigner(aliceID, "master", false)
	self       = newSigner(aliceID, "self_signing", false)
	toOthers   = newSigner(aliceID, "user_signing", false)
	others     = newSigner(bobID, "master", false)

	aliceKeys = alicePhone.sign(alicePhone.device("ALICE"))
	crossKeys = object{"master_key": master.cross("master"), "self_signing_key": master.sign(self.cross("self_signing")),
		"user_signing_key": master.sign(toOthers.cross("user_signing"))}
	replaced = newSigner(aliceID, "another master", false)
)

// session is a key of a room that is backed up.
func session(index int) object {
	return object{"first_message_index": index, "forwarded_count": 0, "is_verified": true,
		"session_data": object{"ephemeral": curve("e"), "ciphertext": "secret", "mac": "mac"}}
}

func sessions(all ...string) object {
	o := object{}
	for i, name := range all {
		o[name] = session(i)
	}
	return object{"sessions": o}
}

// with adds a member to an object.
func with(o object, name string, value any) object {
	o = maps.Clone(o)
	o[name] = value
	return o
}

// changed is a deep copy of an object, in which one text stands for another.
func changed(o object, change func(o object)) object {
	var other object
	if err := json.Unmarshal([]byte(text(o)), &other); err != nil {
		panic(err) // not reached: the text of an object is one
	}
	change(other)
	return other
}

// encryption drives what encrypted conversations need.
var encryption = []step{
	{as: "alice", endpoint: "POST /createRoom", body: object{"preset": "trusted_private_chat", "invite": []string{"{b}"}, "is_direct": true,
		"initial_state": []object{{"type": "m.room.encryption", "state_key": "", "content": object{"algorithm": megolm}}}},
		keep: "encryptedId=room_id"},
	{as: "bob", endpoint: "GET /sync"},
	{as: "bob", endpoint: "POST /rooms/{roomId}/join", with: "roomId={encryptedId}", body: object{}},
	{as: "alice", endpoint: "GET /sync", keep: "from=next_batch"},
	{as: "bob", endpoint: "GET /sync", keep: "bobFrom=next_batch"},

	// Keys of devices.
	{as: "alice", endpoint: "POST /keys/upload", body: object{"device_keys": aliceKeys, "one_time_keys": alicePhone.oneTime(0, 2),
		"fallback_keys": object{"signed_curve25519:AAAF": alicePhone.sign(object{"key": curve("fallback"), "fallback": true})}}},
	{as: "alice", endpoint: "POST /keys/upload", body: object{"device_keys": aliceKeys, "one_time_keys": alicePhone.oneTime(0, 2)}},
	{as: "bob", endpoint: "POST /keys/upload", body: object{"device_keys": bobPhone.sign(bobPhone.device("BOB"))}},
	{as: "bob", endpoint: "POST /keys/upload", body: object{}},
	{as: "bob", endpoint: "POST /keys/query", body: object{"device_keys": object{"{a}": []string{}, "{b}": []string{"BOB"}, "@none:test.example": []string{}},
		"timeout": 10000}},
	{as: "bob", endpoint: "POST /keys/claim", body: object{"one_time_keys": object{"{a}": object{"ALICE": "signed_curve25519", "NONE": "signed_curve25519"}},
		"timeout": 10000}},
	{as: "alice", endpoint: "GET /sync"},
	{as: "bob", endpoint: "GET /sync", query: "since={bobFrom}", keep: "to=next_batch"},
	{as: "bob", endpoint: "GET /keys/changes", query: "from={bobFrom}&to={to}"},

	// Cross-signing.
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: with(crossKeys, "self_signing_key", toOthers.sign(self.cross("self_signing"))),
		refusal: "400 M_INVALID_SIGNATURE"},
	{as: "bob", endpoint: "POST /keys/device_signing/upload", body: object{"self_signing_key": others.sign(newSigner(bobID, "self", false).cross("self_signing"))},
		refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: crossKeys},
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: crossKeys},
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: object{"master_key": replaced.cross("master")}, refusal: "401 "},
	{as: "bob", endpoint: "POST /keys/device_signing/upload", body: object{"master_key": others.cross("master")}},
	{as: "alice", endpoint: "POST /keys/signatures/upload", body: object{
		"{a}": object{"ALICE": self.sign(alicePhone.device("ALICE")), master.public(): alicePhone.sign(master.cross("master"))},
		"{b}": object{others.public(): toOthers.sign(others.cross("master"))}}},
	{as: "alice", endpoint: "POST /keys/signatures/upload", body: object{"{a}": object{"ALICE": changed(self.sign(alicePhone.device("ALICE")),
		func(o object) {
			o["signatures"] = object{aliceID: object{self.id: unpadded(make([]byte, ed25519.SignatureSize))}}
		})}}},
	{as: "alice", endpoint: "POST /keys/query", body: object{"device_keys": object{"{a}": []string{}, "{b}": []string{}}}},
	{as: "bob", endpoint: "POST /keys/query", body: object{"device_keys": object{"{a}": []string{}}}},

	// Messages to devices.
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.room.encrypted txnId=d1",
		body: object{"messages": object{"{a}": object{"ALICE": object{"algorithm": olm, "sender_key": curve("BOB"), "ciphertext": object{}}, "*": object{"a": 1}}}}},
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.room.encrypted txnId=d1",
		body: object{"messages": object{"{a}": object{"ALICE": object{}}}}},
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.dummy txnId=d2", body: object{"messages": object{}}},
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.dummy txnId=d3", body: object{}, refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "GET /sync", query: "since={from}", keep: "from=next_batch"},
	{as: "alice", endpoint: "GET /sync", query: "since={from}"},

	// Backups of keys.
	{as: "alice", endpoint: "GET /room_keys/version", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "POST /room_keys/version", body: object{"algorithm": backup, "auth_data": alicePhone.sign(object{"public_key": curve("backup")})},
		keep: "old=version"},
	{as: "alice", endpoint: "POST /room_keys/version", body: object{"algorithm": backup, "auth_data": object{"public_key": curve("backup")}},
		keep: "version=version"},
	{as: "alice", endpoint: "GET /room_keys/version"},
	{as: "alice", endpoint: "GET /room_keys/version/{version}", with: "version={old}"},
	{as: "alice", endpoint: "GET /room_keys/version/{version}", with: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}", body: object{"algorithm": backup, "version": "{version}",
		"auth_data": alicePhone.sign(object{"public_key": curve("backup")})}},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}", body: object{"algorithm": backup, "version": "{old}", "auth_data": object{"public_key": "x"}},
		refusal: "400 M_INVALID_PARAM"},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}", with: "version=999", body: object{"algorithm": backup, "auth_data": object{"public_key": "x"}},
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "PUT /room_keys/keys", query: "version={version}",
		body: object{"rooms": object{"{encryptedId}": sessions("one", "two"), "!other:test.example": sessions("three")}}},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}", with: "roomId={encryptedId}", query: "version={version}", body: sessions("one", "four")},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}/{sessionId}", with: "roomId={encryptedId} sessionId=five", query: "version={version}", body: session(5)},
	{as: "alice", endpoint: "PUT /room_keys/keys", query: "version={old}", body: object{"rooms": object{}}, refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}", query: "version={old}", body: sessions("one"), refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}/{sessionId}", with: "sessionId=one", query: "version={old}", body: session(0),
		refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "bob", endpoint: "PUT /room_keys/keys", query: "version=1", body: object{"rooms": object{}}, refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys", refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "GET /room_keys/keys", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", with: "roomId={encryptedId}", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", with: "roomId=!none:test.example", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}/{sessionId}", with: "roomId={encryptedId} sessionId=one", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}/{sessionId}", with: "roomId={encryptedId} sessionId=none", query: "version={version}",
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}/{sessionId}", with: "roomId={encryptedId} sessionId=one", query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}/{sessionId}", with: "sessionId=one", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}", with: "roomId={encryptedId}", query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys", query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}", with: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/version"},

	// Devices that have keys, and end.
	{as: "alice", endpoint: "PUT /devices/{deviceId}", with: "deviceId=ALICE", body: object{"display_name": "A renamed phone"}},
	{as: "alice", endpoint: "PUT /devices/{deviceId}", with: "deviceId=NONE", body: object{}, refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /devices/{deviceId}", with: "deviceId=NONE", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /devices/{deviceId}", with: "deviceId=ALICE", body: object{}, refusal: "401 "},
	{as: "alice", endpoint: "POST /delete_devices", body: object{"devices": []string{"ALICE"}}, refusal: "401 "},
	{as: "bob", endpoint: "GET /sync", query: "since={to}"},
}
