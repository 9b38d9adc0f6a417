package blackbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// canonical is JSON in one spelling.
func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// query asks for the keys of users.
func (c *client) query(users ...string) gjson.Result {
	c.t.Helper()
	asked := object{}
	for _, user := range users {
		asked[user] = []string{}
	}
	return c.must("POST", at("keys", "query"), object{"device_keys": asked})
}

// in finds a member by names that are not escaped.
func in(r gjson.Result, names ...string) gjson.Result {
	for _, name := range names {
		r = r.Get(gjson.Escape(name))
	}
	return r
}

// left is how many one-time keys the device has.
func (c *client) left() int64 {
	c.t.Helper()
	return c.must("POST", at("keys", "upload"), object{}).Get("one_time_key_counts.signed_curve25519").Int()
}

func TestKeysOfADeviceAreSeenAsTheyWereUploaded(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		empty := alice.query(alice.userID, "@nobody:test.example", "@x:elsewhere.example")
		equal(t, "devices of a user without keys", in(empty, "device_keys", alice.userID).Raw, "{}")
		equal(t, "unknown users", len(empty.Get("device_keys").Map()), 1)
		equal(t, "servers that are not reached", slices.Collect(maps.Keys(empty.Get("failures").Map()))[0],
			"elsewhere.example")
		equal(t, "why they are not", in(empty, "failures", "elsewhere.example", "errcode").Str != "", true)

		counts := alice.must("POST", at("keys", "upload"), object{"device_keys": nil, "one_time_keys": nil,
			"fallback_keys": nil})
		equal(t, "counts of a device without keys", counts.Get("one_time_key_counts").Raw, `{"signed_curve25519":0}`)

		k := alice.encrypted(3)
		equal(t, "one-time keys", alice.left(), 3)
		alice.must("PUT", at("devices", alice.deviceID), object{"display_name": `Alice's "phone"`})
		for _, viewer := range []*client{alice, bob} {
			got := in(viewer.query(alice.userID), "device_keys", alice.userID, alice.deviceID)
			sent := k.deviceKeys()
			for name := range sent {
				equal(t, name, canonical(t, got.Get(name).Value()), canonical(t, sent[name]))
			}
			equal(t, "the name", got.Get("unsigned.device_display_name").Str, `Alice's "phone"`)
		}
		second := alice.login()
		second.encrypted(0)
		equal(t, "all devices", len(in(bob.query(alice.userID), "device_keys", alice.userID).Map()), 2)
		one := bob.must("POST", at("keys", "query"),
			object{"device_keys": object{alice.userID: []string{second.deviceID, "NONE"}}, "timeout": 0})
		equal(t, "devices that were named", in(one, "device_keys", alice.userID, second.deviceID).Exists(), true)
		equal(t, "how many", len(in(one, "device_keys", alice.userID).Map()), 1)

		second.must("POST", at("logout"), object{})
		equal(t, "devices after a logout", len(in(bob.query(alice.userID), "device_keys", alice.userID).Map()), 1)
		alice.must("POST", "/_matrix/client/r0/keys/query", object{"device_keys": object{}})
		alice.must("POST", "/_matrix/client/r0/keys/upload/"+alice.deviceID, object{})
		alice.refused(400, "M_INVALID_PARAM", "POST", "/_matrix/client/r0/keys/upload/OTHER", object{})
	})
}

func TestIdentityKeysOfADeviceNeverChange(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		k := alice.encrypted(1)
		before := alice.query(alice.userID).Raw
		alice.must("POST", at("keys", "upload"), object{"device_keys": k.deviceKeys()})
		alice.refused(400, "M_INVALID_PARAM", "POST", at("keys", "upload"),
			object{"device_keys": alice.crypto().deviceKeys()})
		k.identity = unpadded(randomBytes(32))
		alice.refused(400, "M_INVALID_PARAM", "POST", at("keys", "upload"), object{"device_keys": k.deviceKeys(),
			"one_time_keys": k.oneTimeKeys(2)})
		equal(t, "the keys", alice.query(alice.userID).Raw, before)
		equal(t, "one-time keys", alice.left(), 1)
	})
}

func TestOneTimeKeysComeInTheirOrderAndThenTheFallbackKey(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		k := alice.encrypted(0)
		// E6: the order of ids is not that of uploads.
		ids := []string{"signed_curve25519:AAAAAAAAAB0", "signed_curve25519:AAAAAAAAAA8", "signed_curve25519:ZZZ",
			"signed_curve25519:A"}
		signed := object{}
		for _, name := range ids {
			signed[name] = k.sign(object{"key": unpadded(randomBytes(32))})
			alice.must("POST", at("keys", "upload"), object{"one_time_keys": object{name: signed[name]}})
		}
		for i, name := range ids {
			got, key := bob.claim(k.userID, k.deviceID)
			equal(t, "the key", got, name)
			equal(t, "its value", canonical(t, key.Value()), canonical(t, signed[name]))
			equal(t, "keys that are left", alice.left(), int64(len(ids)-1-i))
		}
		// E2: what was given already is not given again, whoever uploads it once more.
		alice.must("POST", at("keys", "upload"), object{"one_time_keys": signed})
		equal(t, "keys that are left", alice.left(), int64(0))
		if got, _ := bob.claim(k.userID, k.deviceID); got != "" {
			t.Errorf("%s is given twice", got)
		}
		// E9.
		fallback := k.fallbackKey()
		alice.must("POST", at("keys", "upload"), object{"fallback_keys": fallback})
		for range 2 {
			got, _ := bob.claim(k.userID, k.deviceID)
			equal(t, "a key that is there is the fallback key", fallback[got] != nil, true)
		}
		another := k.fallbackKey()
		alice.must("POST", at("keys", "upload"), object{"fallback_keys": another, "one_time_keys": k.oneTimeKeys(1)})
		first, _ := bob.claim(k.userID, k.deviceID)
		second, _ := bob.claim(k.userID, k.deviceID)
		equal(t, "the one-time key comes first", another[first] == nil && another[second] != nil, true)

		missing := bob.must("POST", at("keys", "claim"), object{"timeout": 10000,
			"one_time_keys": object{alice.userID: object{alice.deviceID: "unknown", "NONE": "signed_curve25519"},
				"@nobody:test.example": object{"X": "signed_curve25519"},
				"@x:elsewhere.example": object{"X": "signed_curve25519"}}})
		equal(t, "keys of nobody", missing.Get("one_time_keys").Raw, "{}")
		equal(t, "servers that are not reached", in(missing, "failures", "elsewhere.example").IsObject(), true)
	})
}

func TestKeysOfGuests(t *testing.T) {
	oneOf(t, switched, func(t *testing.T, d *deployment) {
		guest := d.anybody(t)
		guest.took(guest.must("POST", at("register")+"?kind=guest", object{}))
		k := guest.encrypted(1)
		got, _ := guest.claim(k.userID, k.deviceID)
		equal(t, "a guest claims", got != "", true)
		equal(t, "a guest asks", in(guest.query(guest.userID), "device_keys", guest.userID, guest.deviceID).Exists(), true)
		guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("keys", "device_signing", "upload"), object{})
		guest.refused(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", at("keys", "signatures", "upload"), object{})
	})
}

// with is an object with another member, which nil removes.
func with(o object, name string, value any) object {
	c := maps.Clone(o)
	c[name] = value
	if value == nil {
		delete(c, name)
	}
	return c
}

func TestBadKeys(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, mallory := d.user(t, "alice"), d.user(t, "mallory")
		k := alice.encrypted(2)
		before := alice.query(alice.userID).Raw
		fresh := alice.login()
		f := fresh.crypto()
		good := f.deviceKeys()
		unsigned := with(good, "signatures", nil)
		name := "signed_curve25519:X"
		oneTime := func(key any) object { return object{"one_time_keys": object{name: key}} }
		key := f.sign(object{"key": unpadded(randomBytes(32))})
		long := strings.Repeat("x", 300)
		for what, bad := range map[string]struct {
			errcode string
			body    any
		}{
			"keys of another user":   {"M_INVALID_PARAM", object{"device_keys": mallory.crypto().deviceKeys()}},
			"keys of another device": {"M_INVALID_PARAM", object{"device_keys": k.deviceKeys()}},
			"keys of no device": {"M_BAD_JSON", object{"device_keys": f.sign(with(unsigned, "device_id",
				nil))}},
			"no user": {"M_BAD_JSON", object{"device_keys": f.sign(with(unsigned, "user_id", nil))}},
			"no algorithms": {"M_BAD_JSON", object{"device_keys": f.sign(with(unsigned, "algorithms",
				nil))}},
			"no keys":       {"M_BAD_JSON", object{"device_keys": f.sign(with(unsigned, "keys", nil))}},
			"no signatures": {"M_BAD_JSON", object{"device_keys": unsigned}},
			"signatures that are null": {"M_BAD_JSON",
				[]byte(`{"device_keys":{"user_id":"` + fresh.userID + `","device_id":"` + fresh.deviceID +
					`","algorithms":[],"keys":{},"signatures":null}}`)},
			"empty signatures": {"M_INVALID_SIGNATURE", object{"device_keys": with(good, "signatures",
				object{})}},
			"the signature of another key":       {"M_INVALID_SIGNATURE", object{"device_keys": fresh.crypto().sign(unsigned)}},
			"what was changed after its signing": {"M_INVALID_SIGNATURE", object{"device_keys": with(good, "more", 1)}},
			"a wrong type of user":               {"M_BAD_JSON", object{"device_keys": with(good, "user_id", 1)}},
			"a wrong type of keys":               {"M_BAD_JSON", object{"device_keys": with(good, "keys", []string{"x"})}},
			"a key that is no string":            {"M_BAD_JSON", object{"device_keys": with(good, "keys", object{f.keyID: 1})}},
			"no ed25519 key": {"M_INVALID_PARAM", object{"device_keys": f.sign(with(unsigned, "keys",
				object{"curve25519:" + f.deviceID: f.identity}))}},
			"a key of another name": {"M_INVALID_PARAM", object{"device_keys": f.sign(with(unsigned, "keys",
				object{f.keyID: f.public(), "curve25519:OTHER": f.identity}))}},
			"a key without a name": {"M_INVALID_PARAM", object{"device_keys": f.sign(with(unsigned, "keys",
				object{f.keyID: f.public(), "curve25519": f.identity}))}},
			"a short key": {"M_INVALID_PARAM", object{"device_keys": f.sign(with(unsigned, "keys",
				object{f.keyID: f.public(), "curve25519:" + f.deviceID: "short"}))}},
			"an odd number":                     {"M_BAD_JSON", object{"device_keys": with(good, "more", 1.5)}},
			"keys that are a list":              {"M_BAD_JSON", object{"device_keys": []string{}}},
			"keys that are text":                {"M_BAD_JSON", object{"device_keys": "x"}},
			"one-time keys that are a list":     {"M_BAD_JSON", object{"one_time_keys": []string{}}},
			"a one-time key that is null":       {"M_BAD_JSON", oneTime(nil)},
			"a one-time key that is text":       {"M_BAD_JSON", oneTime("text")},
			"a one-time key that is a number":   {"M_BAD_JSON", oneTime(1)},
			"a one-time key without a key":      {"M_BAD_JSON", oneTime(object{"signatures": object{}})},
			"a one-time key that is not signed": {"M_INVALID_SIGNATURE", oneTime(object{"key": key["key"]})},
			"a one-time key of another user": {"M_INVALID_SIGNATURE",
				oneTime(mallory.crypto().sign(object{"key": key["key"]}))},
			"a one-time key that is short":     {"M_INVALID_PARAM", oneTime(f.sign(object{"key": "short"}))},
			"a one-time key of another device": {"M_INVALID_SIGNATURE", oneTime(k.sign(object{"key": key["key"]}))},
			"a wrong signature": {"M_INVALID_SIGNATURE", object{"device_keys": good,
				"one_time_keys": object{name: fresh.crypto().sign(object{"key": key["key"]})}}},
			"a name without an algorithm": {"M_INVALID_PARAM", object{"one_time_keys": object{"X": key}}},
			"a name without an id": {"M_INVALID_PARAM",
				object{"one_time_keys": object{"signed_curve25519:": key}}},
			"a name with a NUL": {"M_INVALID_PARAM",
				object{"one_time_keys": object{"signed_curve25519:\x00": key}}},
			"a long name": {"M_INVALID_PARAM",
				object{"one_time_keys": object{"signed_curve25519:" + long: key}}},
			"two fallback keys": {"M_INVALID_PARAM", object{"fallback_keys": object{name: key,
				name + "Y": key}}},
			"a fallback key that is not signed": {"M_INVALID_SIGNATURE",
				object{"fallback_keys": object{name: object{"key": key["key"], "fallback": true}}}},
			"a good key and a bad one": {"M_INVALID_SIGNATURE", object{"one_time_keys": object{name: key,
				name + "Y": object{"key": key["key"]}}}},
			"many algorithms": {"M_INVALID_PARAM", object{"one_time_keys": manyAlgorithms(11)}},
		} {
			a := fresh.call("POST", at("keys", "upload"), bad.body)
			if a.status != 400 || a.errcode() != bad.errcode {
				t.Errorf("%s: %d %s, want %s", what, a.status, a.body.Raw, bad.errcode)
			}
		}
		fresh.refused(413, "M_TOO_LARGE", "POST", at("keys", "upload"), oneTime(f.sign(object{"key": key["key"],
			"more": strings.Repeat("x", 9000)})))
		fresh.refused(413, "M_TOO_LARGE", "POST", at("keys", "upload"), object{"device_keys": f.sign(with(unsigned,
			"more", strings.Repeat("x", 20000)))})
		for what, bad := range map[string]struct{ errcode, path, body string }{
			"no devices to ask for":       {"M_MISSING_PARAM", "query", `{}`},
			"devices that are null":       {"M_MISSING_PARAM", "query", `{"device_keys":null}`},
			"a list of users":             {"M_BAD_JSON", "query", `{"device_keys":["@x:y"]}`},
			"devices of a user, null":     {"M_BAD_JSON", "query", `{"device_keys":{"@x:y":null}}`},
			"devices of a user, a string": {"M_BAD_JSON", "query", `{"device_keys":{"@x:y":"X"}}`},
			"no user":                     {"M_INVALID_PARAM", "query", `{"device_keys":{"x":[]}}`},
			"a user with a NUL":           {"M_INVALID_PARAM", "query", `{"device_keys":{"@x\u0000:y":[]}}`},
			"a time that is text":         {"M_BAD_JSON", "query", `{"device_keys":{},"timeout":"x"}`},
			"a time before now":           {"M_INVALID_PARAM", "query", `{"device_keys":{},"timeout":-1}`},
			"no keys to claim":            {"M_MISSING_PARAM", "claim", `{}`},
			"keys that are null":          {"M_MISSING_PARAM", "claim", `{"one_time_keys":null}`},
			"keys of a user, null":        {"M_BAD_JSON", "claim", `{"one_time_keys":{"@x:y":null}}`},
			"an algorithm that is null":   {"M_BAD_JSON", "claim", `{"one_time_keys":{"@x:y":{"X":null}}}`},
			"many algorithms of a device": {"M_BAD_JSON", "claim", `{"one_time_keys":{"@x:y":{"X":["a"]}}}`},
			"a name that is none":         {"M_INVALID_PARAM", "claim", `{"one_time_keys":{"x":{"X":"a"}}}`},
		} {
			a := fresh.call("POST", at("keys", bad.path), []byte(bad.body))
			if a.status != 400 || a.errcode() != bad.errcode {
				t.Errorf("%s: %d %s, want %s", what, a.status, a.body.Raw, bad.errcode)
			}
		}
		users := object{}
		for n := range 5001 {
			users[fmt.Sprintf("@u%d:test.example", n)] = []string{}
		}
		fresh.refused(400, "M_INVALID_PARAM", "POST", at("keys", "query"), object{"device_keys": users})
		equal(t, "keys after all that", alice.query(alice.userID).Raw, before)
		equal(t, "one-time keys", fresh.left(), int64(0))
		fresh.must("POST", at("keys", "upload"), object{"device_keys": good, "one_time_keys": object{name: key}})
	})
}

func manyAlgorithms(n int) object {
	keys := object{}
	for i := range n {
		keys[fmt.Sprintf("x%d:1", i)] = "key"
	}
	return keys
}
