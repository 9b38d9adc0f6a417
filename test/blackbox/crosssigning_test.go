package blackbox

import (
	"testing"

	"github.com/tidwall/gjson"
)

// signed tells whether a key in the answer of a query has a signature.
func signed(key gjson.Result, by *signer) bool {
	return in(key, "signatures", by.userID, by.keyID).Str != ""
}

func TestCrossSigningKeysAreReplacedWithThePassword(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		k := alice.encrypted(0)
		upload := at("keys", "device_signing", "upload")
		alice.refused(400, "M_MISSING_PARAM", "POST", upload, object{})
		x := alice.crossSigning()
		first := x.upload()
		alice.refused(400, "M_MISSING_PARAM", "POST", upload, with(first, "master_key", nil))
		first["master_key"] = k.sign(x.master.object("master"))
		alice.must("POST", upload, first)
		alice.must("POST", upload, first)
		alice.must("POST", upload, object{"self_signing_key": first["self_signing_key"], "user_signing_key": nil})
		alice.must("POST", upload, object{})

		own, others := alice.query(alice.userID), bob.query(alice.userID)
		for name, key := range map[string]*signer{"master_keys": x.master, "self_signing_keys": x.self,
			"user_signing_keys": x.user} {
			equal(t, name+" for their user", in(own, name, alice.userID, "keys", key.keyID).Str, key.public())
			equal(t, name+" for others", in(others, name, alice.userID, "keys", key.keyID).Str != "",
				name != "user_signing_keys")
		}
		equal(t, "the device has signed the master key", signed(in(others, "master_keys", alice.userID), k.signer), true)
		equal(t, "the master key has signed the other", signed(in(others, "self_signing_keys", alice.userID), x.master), true)

		y := alice.crossSigning()
		second := y.upload()
		challenge := alice.call("POST", upload, second)
		equal(t, "another master key", challenge.status, 401)
		equal(t, "how it is confirmed", challenge.body.Get("flows.0.stages.0").Str, "m.login.password")
		alice.refused(401, "", "POST", upload, object{"self_signing_key": x.master.sign(y.self.object("self_signing"))})
		equal(t, "nothing has changed", alice.query(alice.userID).Raw, own.Raw)
		wrong := alice.auth("")
		wrong["password"] = "wrong"
		alice.refused(401, "M_FORBIDDEN", "POST", upload, with(second, "auth", wrong))
		equal(t, "nothing has changed", alice.query(alice.userID).Raw, own.Raw)

		alice.must("POST", at("keys", "signatures", "upload"),
			object{alice.userID: object{alice.deviceID: x.self.sign(k.deviceKeys())}})
		equal(t, "the self-signing key has signed the device", signed(in(bob.query(alice.userID), "device_keys",
			alice.userID, alice.deviceID), x.self), true)
		auth := alice.auth(challenge.body.Get("session").Str)
		alice.must("POST", upload, object{"master_key": second["master_key"], "auth": auth})
		own = alice.query(alice.userID)
		equal(t, "the new master key", in(own, "master_keys", alice.userID, "keys", y.master.keyID).Exists(), true)
		equal(t, "the self-signing key of the old one", in(own, "self_signing_keys", alice.userID).Exists(), false)
		equal(t, "the user-signing key of the old one", in(own, "user_signing_keys", alice.userID).Exists(), false)
		equal(t, "the signature of the old key", signed(in(own, "device_keys", alice.userID, alice.deviceID), x.self), false)
		equal(t, "the device's own signature", signed(in(own, "device_keys", alice.userID, alice.deviceID), k.signer), true)
		alice.must("POST", upload, with(second, "auth", alice.auth("")))
		equal(t, "the new self-signing key", in(alice.query(alice.userID), "self_signing_keys", alice.userID, "keys",
			y.self.keyID).Exists(), true)
	})
}

func TestBadCrossSigningKeys(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, mallory := d.user(t, "alice"), d.user(t, "mallory")
		x := alice.crossSigning()
		good := x.upload()
		empty := alice.query(alice.userID).Raw
		master := x.master.object("master")
		for what, bad := range map[string]struct {
			errcode string
			body    object
		}{
			"a master key of another user": {"M_INVALID_PARAM", with(good, "master_key",
				mallory.crossSigning().master.object("master"))},
			"a wrong usage": {"M_INVALID_PARAM", with(good, "master_key",
				x.master.object("self_signing"))},
			"two usages": {"M_INVALID_PARAM", with(good, "master_key", with(master, "usage",
				[]string{"master", "self_signing"}))},
			"no usage": {"M_BAD_JSON", with(good, "master_key", with(master, "usage", nil))},
			"no user":  {"M_BAD_JSON", with(good, "master_key", with(master, "user_id", nil))},
			"no keys":  {"M_BAD_JSON", with(good, "master_key", with(master, "keys", nil))},
			"keys, but none": {"M_INVALID_PARAM", with(good, "master_key", with(master, "keys",
				object{}))},
			"two keys": {"M_INVALID_PARAM", with(good, "master_key", with(master, "keys",
				object{x.master.keyID: x.master.public(), x.self.keyID: x.self.public()}))},
			"a key of another name": {"M_INVALID_PARAM", with(good, "master_key", with(master, "keys",
				object{x.self.keyID: x.master.public()}))},
			"a key that is none": {"M_INVALID_PARAM", with(good, "master_key", with(master, "keys",
				object{"ed25519:x": "x"}))},
			"a key of another algorithm": {"M_INVALID_PARAM", with(good, "master_key", with(master, "keys",
				object{"curve25519:" + x.master.public(): x.master.public()}))},
			"a list": {"M_BAD_JSON", with(good, "master_key", []string{})},
			"a text": {"M_BAD_JSON", with(good, "self_signing_key", "x")},
			"a self-signing key without signature": {"M_INVALID_SIGNATURE", with(good, "self_signing_key",
				x.self.object("self_signing"))},
			"a signature of itself": {"M_INVALID_SIGNATURE", with(good, "user_signing_key",
				x.user.sign(x.user.object("user_signing")))},
			"a signature of something else": {"M_INVALID_SIGNATURE", with(good, "self_signing_key",
				with(good["self_signing_key"].(object), "more", 1))},
			"one key for two usages": {"M_INVALID_PARAM", with(good, "user_signing_key",
				x.master.sign(x.self.object("user_signing")))},
		} {
			a := alice.call("POST", at("keys", "device_signing", "upload"), bad.body)
			if a.status != 400 || a.errcode() != bad.errcode {
				t.Errorf("%s: %d %s, want %s", what, a.status, a.body.Raw, bad.errcode)
			}
		}
		equal(t, "what is there", alice.query(alice.userID).Raw, empty)

		// A device and a cross-signing key never have the same id.
		named := d.anybody(t)
		login := object{"type": "m.login.password", "password": alice.password,
			"identifier": object{"type": "m.id.user", "user": alice.localpart}, "device_id": x.self.public()}
		named.took(named.must("POST", at("login"), login))
		alice.refused(403, "M_FORBIDDEN", "POST", at("keys", "device_signing", "upload"), good)
		equal(t, "what is there", in(alice.query(alice.userID), "master_keys").Raw, "{}")
		named.must("POST", at("logout"), object{})
		alice.must("POST", at("keys", "device_signing", "upload"), good)
		named.refused(403, "M_FORBIDDEN", "POST", at("login"), login)
	})
}

func TestSignaturesAreCheckedAndShownToWhoMaySeeThem(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		k, x := alice.encrypted(0), alice.crossSigning()
		b, y := bob.encrypted(0), bob.crossSigning()
		alice.must("POST", at("keys", "device_signing", "upload"), x.upload())
		bob.must("POST", at("keys", "device_signing", "upload"), y.upload())
		second := alice.login()
		s := second.encrypted(0)

		upload := at("keys", "signatures", "upload")
		bobs := x.user.sign(y.master.object("master"))
		a := alice.must("POST", upload, object{
			alice.userID: object{alice.deviceID: x.self.sign(k.deviceKeys()), second.deviceID: x.user.sign(s.deviceKeys()),
				x.master.public(): k.sign(x.master.object("master")), "NONE": x.self.sign(k.deviceKeys()),
				x.self.public(): x.master.sign(x.self.object("self_signing"))},
			bob.userID: object{y.master.public(): bobs, b.deviceID: x.user.sign(b.deviceKeys()),
				y.self.public(): x.user.sign(y.self.object("self_signing"))},
			"@x:elsewhere.example": object{"X": x.user.sign(object{"user_id": "@x:elsewhere.example"})}})
		for place, errcode := range map[[2]string]string{
			{alice.userID, second.deviceID}: "M_FORBIDDEN", {alice.userID, "NONE"}: "M_NOT_FOUND", {bob.userID,
				b.deviceID}: "M_NOT_FOUND",
			{bob.userID, y.self.public()}: "M_FORBIDDEN", {"@x:elsewhere.example", "X"}: "M_NOT_FOUND"} {
			equal(t, "failure of "+place[1], in(a, "failures", place[0], place[1], "errcode").Str, errcode)
		}
		equal(t, "failures of alice", len(in(a, "failures", alice.userID).Map()), 2)
		equal(t, "failures of bob", len(in(a, "failures", bob.userID).Map()), 2)

		for _, viewer := range []*client{alice, second, bob, carol} {
			all := viewer.query(alice.userID, bob.userID)
			equal(t, "the device is signed", signed(in(all, "device_keys", alice.userID, alice.deviceID), x.self), true)
			equal(t, "the device signs itself", signed(in(all, "device_keys", alice.userID, alice.deviceID), k.signer), true)
			equal(t, "the other device is not", signed(in(all, "device_keys", alice.userID, second.deviceID), x.self), false)
			equal(t, "the master key is signed", signed(in(all, "master_keys", alice.userID), k.signer), true)
			equal(t, "who trusts bob", signed(in(all, "master_keys", bob.userID), x.user), viewer.userID == alice.userID)
		}

		// A wrong signature beside a good one is told, and the good one kept.
		both := x.self.sign(x.master.sign(s.deviceKeys()))
		both["signatures"].(object)[alice.userID].(object)[x.master.keyID] = unpadded(randomBytes(64))
		a = second.must("POST", upload, object{alice.userID: object{second.deviceID: both}})
		equal(t, "the wrong one", in(a, "failures", alice.userID, second.deviceID, "errcode").Str, "M_INVALID_SIGNATURE")
		equal(t, "the good one", signed(in(carol.query(alice.userID), "device_keys", alice.userID, second.deviceID),
			x.self), true)

		before := alice.query(alice.userID, bob.userID).Raw
		changed := with(k.deviceKeys(), "algorithms", []string{"x"})
		for what, bad := range map[string]struct {
			errcode string
			key     object
		}{
			"another object":               {"M_INVALID_PARAM", x.self.sign(changed)},
			"no signature":                 {"M_INVALID_SIGNATURE", with(k.deviceKeys(), "signatures", nil)},
			"a signature of somebody else": {"M_INVALID_SIGNATURE", y.self.sign(with(k.deviceKeys(), "signatures", nil))},
			"a key that is not there": {"M_NOT_FOUND", newSigner(t, alice.userID, "").sign(with(k.deviceKeys(),
				"signatures", nil))},
		} {
			a := alice.must("POST", upload, object{alice.userID: object{alice.deviceID: bad.key}})
			equal(t, what, in(a, "failures", alice.userID, alice.deviceID, "errcode").Str, bad.errcode)
		}
		alice.refused(400, "M_BAD_JSON", "POST", upload, []byte(`{"`+alice.userID+`":null,"@b:c":{"X":null}}`))
		alice.refused(400, "M_BAD_JSON", "POST", upload, []byte(`{"`+alice.userID+`":["x"]}`))
		equal(t, "what is there", alice.query(alice.userID, bob.userID).Raw, before)

		// Keys that were replaced have signed nothing any more.
		z := alice.crossSigning()
		alice.must("POST", at("keys", "device_signing", "upload"),
			object{"user_signing_key": x.master.sign(z.user.object("user_signing")), "auth": alice.auth("")})
		equal(t, "a user-signing key that was replaced", signed(in(alice.query(bob.userID), "master_keys", bob.userID),
			x.user), false)
		equal(t, "what other keys have signed", signed(in(carol.query(alice.userID), "device_keys", alice.userID,
			alice.deviceID), x.self), true)
		second.must("DELETE", at("devices", alice.deviceID), object{"auth": alice.auth("")})
		equal(t, "a device that ended", signed(in(carol.query(alice.userID), "master_keys", alice.userID), k.signer), false)
	})
}
