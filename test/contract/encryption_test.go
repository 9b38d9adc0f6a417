package contract

import (
	"crypto/ed25519"
	"maps"

	"github.com/matrix-org/dendrite/test/keytest"
)

const (
	aliceID = "@alice:test.example"
	bobID   = "@bob:test.example"
)

var (
	alicePhone = keytest.Device(aliceID, "ALICE")
	bobPhone   = keytest.Device(bobID, "BOB")
	master     = keytest.Cross(aliceID, "master")
	self       = keytest.Cross(aliceID, "self_signing")
	toOthers   = keytest.Cross(aliceID, "user_signing")
	replaced   = keytest.Cross(aliceID, "another master")
	others     = keytest.Cross(bobID, "master")
	clash      = keytest.Cross(bobID, "named as a device")
	othersSelf = keytest.Cross(bobID, "self_signing")

	aliceKeys = alicePhone.Sign(alicePhone.DeviceKeys())
	crossKeys = object{"master_key": master.CrossKey("master"),
		"self_signing_key": master.Sign(self.CrossKey("self_signing")),
		"user_signing_key": master.Sign(toOthers.CrossKey("user_signing"))}
	// badlySigned has a signature that is none.
	badlySigned = with(self.Sign(alicePhone.DeviceKeys()), "signatures",
		object{aliceID: object{self.ID(): keytest.Unpadded(make([]byte, ed25519.SignatureSize))}})
	authData = object{"public_key": keytest.Curve("backup")}
)

// sessions are keys of a room that is backed up.
func sessions(all ...string) object {
	o := object{}
	for i, name := range all {
		o[name] = keytest.Session(i)
	}
	return object{"sessions": o}
}

// with adds a member to an object.
func with(o object, name string, value any) object {
	o = maps.Clone(o)
	o[name] = value
	return o
}

// encryption drives what encrypted conversations need.
var encryption = []step{
	{as: "alice", endpoint: "POST /createRoom",
		body: object{"preset": "trusted_private_chat", "invite": []string{"{b}"}, "is_direct": true,
			"initial_state": []object{{"type": "m.room.encryption", "state_key": "",
				"content": object{"algorithm": keytest.Megolm}}}},
		keep: "encryptedId=room_id"},
	{as: "bob", endpoint: "GET /sync"},
	{as: "bob", endpoint: "POST /rooms/{roomId}/join", with: "roomId={encryptedId}", body: object{}},
	{as: "alice", endpoint: "GET /sync", keep: "from=next_batch"},
	{as: "bob", endpoint: "GET /sync", keep: "bobFrom=next_batch"},

	// Keys of devices.
	{as: "alice", endpoint: "POST /keys/upload",
		body: object{"device_keys": aliceKeys, "one_time_keys": alicePhone.OneTime(0, 2),
			"fallback_keys": alicePhone.Fallback(0)}},
	{as: "alice", endpoint: "POST /keys/upload",
		body: object{"device_keys": aliceKeys, "one_time_keys": alicePhone.OneTime(0, 2)}},
	{as: "bob", endpoint: "POST /keys/upload", body: object{"device_keys": bobPhone.Sign(bobPhone.DeviceKeys())}},
	{as: "bob", endpoint: "POST /keys/upload", body: object{}},
	{as: "bob", endpoint: "POST /keys/query",
		body: object{"device_keys": object{"{a}": []string{}, "{b}": []string{"BOB"}, "@none:test.example": []string{}},
			"timeout": 10000}},
	{as: "bob", endpoint: "POST /keys/claim",
		body: object{"one_time_keys": object{"{a}": object{"ALICE": "signed_curve25519", "NONE": "signed_curve25519"}},
			"timeout": 10000}},
	{as: "alice", endpoint: "GET /sync"},
	{as: "bob", endpoint: "GET /sync", query: "since={bobFrom}", keep: "to=next_batch"},
	{as: "bob", endpoint: "GET /keys/changes", query: "from={bobFrom}&to={to}"},

	// Cross-signing.
	{as: "alice", endpoint: "POST /keys/device_signing/upload",
		body:    with(crossKeys, "self_signing_key", toOthers.Sign(self.CrossKey("self_signing"))),
		refusal: "400 M_INVALID_SIGNATURE"},
	{as: "bob", endpoint: "POST /keys/device_signing/upload",
		body:    object{"self_signing_key": others.Sign(othersSelf.CrossKey("self_signing"))},
		refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: crossKeys},
	{as: "alice", endpoint: "POST /keys/device_signing/upload", body: crossKeys},
	{as: "alice", endpoint: "POST /keys/device_signing/upload",
		body: object{"master_key": replaced.CrossKey("master")}, refusal: "401 "},
	{endpoint: "POST /login", body: with(password("bob"), "device_id", clash.Public())},
	{as: "bob", endpoint: "POST /keys/device_signing/upload", body: object{"master_key": clash.CrossKey("master")},
		refusal: "403 M_FORBIDDEN"},
	{as: "bob", endpoint: "POST /keys/device_signing/upload", body: object{"master_key": others.CrossKey("master")}},
	{as: "alice", endpoint: "POST /keys/signatures/upload", body: object{
		"{a}": object{"ALICE": self.Sign(alicePhone.DeviceKeys()),
			master.Public(): alicePhone.Sign(master.CrossKey("master"))},
		"{b}": object{others.Public(): toOthers.Sign(others.CrossKey("master"))}}},
	{as: "alice", endpoint: "POST /keys/signatures/upload", body: object{"{a}": object{"ALICE": badlySigned}}},
	{as: "alice", endpoint: "POST /keys/query",
		body: object{"device_keys": object{"{a}": []string{}, "{b}": []string{}}}},
	{as: "bob", endpoint: "POST /keys/query", body: object{"device_keys": object{"{a}": []string{}}}},

	// Messages to devices.
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.room.encrypted txnId=d1",
		body: object{"messages": object{"{a}": object{"ALICE": object{"algorithm": keytest.Olm,
			"sender_key": keytest.Curve("BOB"), "ciphertext": object{}}, "*": object{"a": 1}}}}},
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.room.encrypted txnId=d1",
		body: object{"messages": object{"{a}": object{"ALICE": object{}}}}},
	{as: "bob", endpoint: "PUT /sendToDevice/{eventType}/{txnId}", with: "eventType=m.dummy txnId=d2",
		body: object{"messages": object{}}},
	{as: "alice", endpoint: "GET /sync", query: "since={from}", keep: "from=next_batch"},
	{as: "alice", endpoint: "GET /sync", query: "since={from}"},

	// Backups of keys.
	{as: "alice", endpoint: "GET /room_keys/version", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "POST /room_keys/version",
		body: object{"algorithm": keytest.Backup, "auth_data": alicePhone.Sign(authData)},
		keep: "old=version"},
	{as: "alice", endpoint: "POST /room_keys/version", body: object{"algorithm": keytest.Backup, "auth_data": authData},
		keep: "version=version"},
	{as: "alice", endpoint: "GET /room_keys/version"},
	{as: "alice", endpoint: "GET /room_keys/version/{version}", with: "version={old}"},
	{as: "alice", endpoint: "GET /room_keys/version/{version}", with: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}",
		body: object{"algorithm": keytest.Backup, "version": "{version}",
			"auth_data": alicePhone.Sign(authData)}},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}",
		body:    object{"algorithm": keytest.Backup, "version": "{old}", "auth_data": object{"public_key": "x"}},
		refusal: "400 M_INVALID_PARAM"},
	{as: "alice", endpoint: "PUT /room_keys/version/{version}", with: "version=999",
		body:    object{"algorithm": keytest.Backup, "auth_data": object{"public_key": "x"}},
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "PUT /room_keys/keys", query: "version={version}",
		body: object{"rooms": object{"{encryptedId}": sessions("one", "two"),
			"!other:test.example": sessions("three")}}},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}", with: "roomId={encryptedId}",
		query: "version={version}", body: sessions("one", "four")},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}/{sessionId}",
		with: "roomId={encryptedId} sessionId=five", query: "version={version}", body: keytest.Session(5)},
	{as: "alice", endpoint: "PUT /room_keys/keys", query: "version={old}", body: object{"rooms": object{}},
		refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}", query: "version={old}", body: sessions("one"),
		refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "alice", endpoint: "PUT /room_keys/keys/{roomId}/{sessionId}", with: "sessionId=one",
		query: "version={old}", body: keytest.Session(0),
		refusal: "403 M_WRONG_ROOM_KEYS_VERSION"},
	{as: "bob", endpoint: "PUT /room_keys/keys", query: "version=1", body: object{"rooms": object{}},
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys", refusal: "400 M_MISSING_PARAM"},
	{as: "alice", endpoint: "GET /room_keys/keys", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", with: "roomId={encryptedId}", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", with: "roomId=!none:test.example",
		query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}/{sessionId}",
		with: "roomId={encryptedId} sessionId=one", query: "version={version}"},
	{as: "alice", endpoint: "GET /room_keys/keys/{roomId}/{sessionId}",
		with: "roomId={encryptedId} sessionId=none", query: "version={version}",
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}/{sessionId}",
		with: "roomId={encryptedId} sessionId=one", query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}/{sessionId}", with: "sessionId=one",
		query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}", with: "roomId={encryptedId}",
		query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys/{roomId}", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/keys", query: "version={version}"},
	{as: "alice", endpoint: "DELETE /room_keys/keys", query: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}"},
	{as: "alice", endpoint: "DELETE /room_keys/version/{version}", with: "version=999", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /room_keys/version"},

	// Devices that have keys, and end.
	{as: "alice", endpoint: "PUT /devices/{deviceId}", with: "deviceId=ALICE",
		body: object{"display_name": "A renamed phone"}},
	{as: "alice", endpoint: "PUT /devices/{deviceId}", with: "deviceId=NONE", body: object{},
		refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "GET /devices/{deviceId}", with: "deviceId=NONE", refusal: "404 M_NOT_FOUND"},
	{as: "alice", endpoint: "DELETE /devices/{deviceId}", with: "deviceId=ALICE", body: object{}, refusal: "401 "},
	{as: "alice", endpoint: "POST /delete_devices", body: object{"devices": []string{"ALICE"}}, refusal: "401 "},
	{as: "bob", endpoint: "GET /sync", query: "since={to}"},
}
