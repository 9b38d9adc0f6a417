package blackbox

import (
	"cmp"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

const dehydratedPath = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"

// proof is the user's password as user-interactive authentication takes it.
func (c *client) proof() object {
	return object{"type": "m.login.password", "password": c.password,
		"identifier": object{"type": "m.id.user", "user": c.localpart}}
}

// crossSigned uploads cross-signing keys for the client's user.
func (c *client) crossSigned() *crossSigning {
	c.t.Helper()
	x := c.crossSigning()
	c.must("POST", at("keys", "device_signing", "upload"), x.upload())
	return x
}

// dry makes the body that dehydrates a new device, and its keys.
func (c *client) dry(x *crossSigning) (object, *cryptoDevice) {
	c.t.Helper()
	identity := unpadded(randomBytes(32))
	k := &cryptoDevice{signer: newSigner(c.t, c.userID, identity), deviceID: identity, identity: identity}
	keys := k.deviceKeys()
	delete(keys, "signatures")
	keys["dehydrated"] = true
	return object{"device_id": identity, "initial_device_display_name": "Dehydrated device",
		"device_data": object{"algorithm": "org.matrix.msc3814.v2", "device_pickle": "abc", "nonce": "def"},
		"device_keys": x.self.sign(k.sign(keys)), "one_time_keys": k.oneTimeKeys(3), "fallback_keys": k.fallbackKey()}, k
}

// dehydrates uploads a dehydrated device and returns its keys.
func (c *client) dehydrates(x *crossSigning) *cryptoDevice {
	c.t.Helper()
	body, k := c.dry(x)
	equal(c.t, "the answer", c.must("PUT", dehydratedPath, body).Get("device_id").Str, k.deviceID)
	return k
}

// dehydrated is the id of the user's dehydrated device; empty if there is none.
func (c *client) dehydrated() string {
	c.t.Helper()
	a := c.call("GET", dehydratedPath, nil)
	if a.status == 404 {
		equal(c.t, "the errcode", a.errcode(), "M_NOT_FOUND")
		return ""
	}
	return a.body.Get("device_id").Str
}

// keysOfDevices are the device_keys of a user, by device.
func (c *client) keysOfDevices(of *client) map[string]gjson.Result {
	c.t.Helper()
	return in(c.query(of.userID), "device_keys", of.userID).Map()
}

func TestADeviceIsDehydrated(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		bob.encrypted(1)
		equal(t, "at first", alice.dehydrated(), "")
		alice.refused(404, "M_NOT_FOUND", "DELETE", dehydratedPath, object{})
		x := alice.crossSigned()
		body, k := alice.dry(x)
		equal(t, "the answer", alice.must("PUT", dehydratedPath, body).Get("device_id").Str, k.deviceID)
		got := alice.must("GET", dehydratedPath, nil)
		equal(t, "its id", got.Get("device_id").Str, k.deviceID)
		equal(t, "its data", got.Get("device_data").Raw,
			`{"algorithm":"org.matrix.msc3814.v2","device_pickle":"abc","nonce":"def"}`)
		listed := alice.must("GET", at("devices", k.deviceID), nil)
		equal(t, "its name", listed.Get("display_name").Str, "Dehydrated device")

		// Others see what it is, who signed it, and can write to it.
		seen := bob.keysOfDevices(alice)[k.deviceID]
		if !seen.Get("dehydrated").Bool() || len(seen.Get("signatures").Map()[alice.userID].Map()) != 2 {
			t.Errorf("bob sees %s", seen.Raw)
		}
		given := make(map[string]bool)
		for range 4 {
			given[bob.claimed(k.userID, k.deviceID)] = true
		}
		equal(t, "keys that were given", len(given), 4)
		equal(t, "what is left to give is the fallback key", given[bob.claimed(k.userID, k.deviceID)], true)

		// What is sent twice changes nothing; data with the same keys is replaced.
		alice.must("PUT", dehydratedPath, body)
		body["device_data"] = object{"algorithm": "x"}
		alice.must("PUT", dehydratedPath, body)
		equal(t, "its data", alice.must("GET", dehydratedPath, nil).Get("device_data").Raw, `{"algorithm":"x"}`)
		equal(t, "what is given again", given[bob.claimed(k.userID, k.deviceID)], true)

		// A new one takes its place.
		next := alice.dehydrates(x).deviceID
		equal(t, "the new one", alice.dehydrated(), next)
		alice.refused(404, "M_NOT_FOUND", "GET", at("devices", k.deviceID), nil)
		if all := bob.keysOfDevices(alice); all[k.deviceID].Exists() || !all[next].Exists() {
			t.Errorf("bob sees %v", all)
		}
		equal(t, "a key of the old one", bob.claimed(k.userID, k.deviceID), "")

		equal(t, "what is deleted", alice.must("DELETE", dehydratedPath, object{}).Get("device_id").Str, next)
		equal(t, "after that", alice.dehydrated(), "")
		equal(t, "what bob sees", len(bob.keysOfDevices(alice)), 0)
		alice.refused(404, "M_NOT_FOUND", "DELETE", dehydratedPath, nil)
		equal(t, "nobody else's", bob.dehydrated(), "")
	})
}

func TestADehydratedDeviceStaysAndGoes(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		x := alice.crossSigned()
		device := alice.dehydrates(x).deviceID
		alice.must("POST", at("logout"), object{})
		alice = alice.login()
		equal(t, "after logging the last device out", alice.dehydrated(), device)
		alice.must("POST", at("account", "password"),
			object{"new_password": alice.password, "logout_devices": true, "auth": alice.proof()})
		equal(t, "after a new password", alice.dehydrated(), device)

		alice.must("DELETE", at("devices", device), object{"auth": alice.proof()})
		equal(t, "after deleting it", alice.dehydrated(), "")
		device = alice.dehydrates(x).deviceID
		alice.must("POST", at("delete_devices"), object{"devices": []string{device}, "auth": alice.proof()})
		equal(t, "after deleting it with others", alice.dehydrated(), "")
		alice.dehydrates(x)
		alice.must("POST", at("logout", "all"), object{})
		alice = alice.login()
		equal(t, "after logging out everywhere", alice.dehydrated(), "")
		equal(t, "devices with keys", len(alice.keysOfDevices(alice)), 0)
		alice.dehydrates(x)
		alice.must("POST", at("account", "deactivate"), object{"auth": alice.proof()})
		equal(t, "of a deactivated user", len(d.user(t, "bob").keysOfDevices(alice)), 0)
	})
}

// Of two that are dehydrated at the same moment one is there in the end, with all its keys, and nothing of the other.
func TestDehydratingTwoAtOnce(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		x := alice.crossSigned()
		for range 5 {
			var group sync.WaitGroup
			var made []*cryptoDevice
			for range 4 {
				body, k := alice.dry(x)
				made = append(made, k)
				other := *alice
				group.Go(func() {
					if a := other.call("PUT", dehydratedPath, body); a.status != 200 {
						t.Errorf("%d %s", a.status, a.body.Raw)
					}
				})
			}
			group.Wait()
			device := alice.dehydrated()
			if all := bob.keysOfDevices(alice); len(all) != 1 || !all[device].Exists() {
				t.Errorf("the device is %s, and bob sees %v", device, all)
			}
			equal(t, "devices", len(alice.must("GET", at("devices"), nil).Get("devices").Array()), 2)
			for _, k := range made {
				if has := bob.claimed(k.userID, k.deviceID) != ""; has != (k.deviceID == device) {
					t.Errorf("%s is there, and it is %t that %s has keys", device, has, k.deviceID)
				}
			}
		}
	})
}

func TestBadDehydratedDevices(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		stranger := alice.crossSigning()
		early, _ := alice.dry(stranger)
		alice.refused(400, "M_INVALID_PARAM", "PUT", dehydratedPath, early) // nobody knows the self-signing key
		x := alice.crossSigned()
		device := alice.dehydrates(x).deviceID
		before := alice.must("GET", dehydratedPath, nil).Raw + alice.must("GET", at("devices"), nil).Raw
		since := bob.keysOfDevices(alice)[device].Raw

		good, k := alice.dry(x)
		plain := maps.Clone(good["device_keys"].(object))
		delete(plain, "signatures")
		keys := func(change func(o object)) object {
			o := maps.Clone(plain)
			change(o)
			return x.self.sign(k.sign(o))
		}
		deep := gjson.Parse(strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)).Value()
		type bad struct {
			status  int
			errcode string
			member  string
			value   any
		}
		for what, b := range map[string]bad{
			"no id":                     {400, "M_BAD_JSON", "device_id", nil},
			"an id that is a number":    {400, "M_BAD_JSON", "device_id", 1},
			"an empty id":               {400, "M_INVALID_PARAM", "device_id", ""},
			"a long id":                 {400, "M_INVALID_PARAM", "device_id", strings.Repeat("x", 256)},
			"a NUL in the id":           {400, "M_INVALID_PARAM", "device_id", "\x00"},
			"another id":                {400, "M_INVALID_PARAM", "device_id", unpadded(randomBytes(32))},
			"no data":                   {400, "M_BAD_JSON", "device_data", nil},
			"data that is a string":     {400, "M_BAD_JSON", "device_data", "x"},
			"data of no algorithm":      {400, "M_BAD_JSON", "device_data", object{}},
			"data of a wrong algorithm": {400, "M_BAD_JSON", "device_data", object{"algorithm": nil}},
			"large data": {413, "M_TOO_LARGE", "device_data",
				object{"algorithm": "x", "a": strings.Repeat("x", 70_000)}},
			"deep data":                {400, "M_BAD_JSON", "device_data", object{"algorithm": "x", "a": deep}},
			"a long name":              {400, "M_INVALID_PARAM", "initial_device_display_name", strings.Repeat("x", 300)},
			"a NUL in the name":        {400, "M_INVALID_PARAM", "initial_device_display_name", "\x00"},
			"no keys":                  {400, "M_BAD_JSON", "device_keys", nil},
			"keys that are a list":     {400, "M_BAD_JSON", "device_keys", []string{}},
			"no signature of the user": {400, "M_INVALID_PARAM", "device_keys", k.sign(plain)},
			"a stranger's signature":   {400, "M_INVALID_PARAM", "device_keys", stranger.self.sign(k.sign(plain))},
			"a wrong signature":        {400, "M_INVALID_SIGNATURE", "device_keys", with(keys(func(object) {}), "x", 1)},
			"keys of a device in use": {400, "M_INVALID_PARAM", "device_keys",
				keys(func(o object) { delete(o, "dehydrated") })},
			"no word that it is dry": {400, "M_INVALID_PARAM", "device_keys",
				keys(func(o object) { o["dehydrated"] = false })},
			"keys of another user": {400, "M_INVALID_PARAM", "device_keys",
				keys(func(o object) { o["user_id"] = bob.userID })},
			"another curve25519 key": {400, "M_INVALID_PARAM", "device_keys", keys(func(o object) {
				o["keys"] = object{"curve25519:" + k.deviceID: unpadded(randomBytes(32)), k.keyID: k.public()}
			})},
			"no fallback key":           {400, "M_INVALID_PARAM", "fallback_keys", nil},
			"an empty set of them":      {400, "M_INVALID_PARAM", "fallback_keys", object{}},
			"one-time keys in a string": {400, "M_BAD_JSON", "one_time_keys", "x"},
		} {
			body := maps.Clone(good)
			body[b.member] = b.value
			if a := alice.call("PUT", dehydratedPath, body); a.status != b.status || a.errcode() != b.errcode {
				t.Errorf("%s: %d %s, want %d %s", what, a.status, a.body.Raw, b.status, b.errcode)
			}
			if b.value == nil {
				delete(body, b.member)
				absent := map[string]string{"fallback_keys": "M_INVALID_PARAM"}[b.member]
				alice.refused(400, cmp.Or(absent, "M_MISSING_PARAM"), "PUT", dehydratedPath, body)
			}
		}
		for _, body := range []string{"", "{}", "null", "[]", "nonsense"} {
			if a := alice.call("PUT", dehydratedPath, []byte(body)); a.status != 400 {
				t.Errorf("%q: %d %s", body, a.status, a.body.Raw)
			}
		}
		if after := alice.must("GET", dehydratedPath, nil).Raw + alice.must("GET", at("devices"), nil).Raw; after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
		equal(t, "what bob sees", bob.keysOfDevices(alice)[device].Raw, since)

		// A device in use is not dehydrated.
		inUse := d.anybody(t)
		session := alice.must("POST", at("login"), with(alice.proof(), "device_id", k.deviceID))
		alice.refused(400, "M_INVALID_PARAM", "PUT", dehydratedPath, good)
		inUse.took(session)
		inUse.must("POST", at("logout"), object{})
		alice.must("PUT", dehydratedPath, good)
		if alice.dehydrated() != k.deviceID {
			t.Error("it is not there after the device in use has gone")
		}
	})
}
