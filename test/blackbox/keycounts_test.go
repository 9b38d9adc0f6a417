package blackbox

import (
	"testing"

	"github.com/tidwall/gjson"
)

// left is how many one-time keys an answer says that the device has, and whether its fallback key is unused.
func left(answer gjson.Result) (n int64, unused string) {
	return answer.Get("device_one_time_keys_count.signed_curve25519").Int(),
		answer.Get("device_unused_fallback_key_types").Raw
}

func (c *client) hasKeys(when string, answer gjson.Result, n int64, unused string) {
	c.t.Helper()
	if !answer.Get("device_one_time_keys_count.signed_curve25519").Exists() {
		c.t.Errorf("%s: no count: %s", when, answer.Raw)
	}
	if gotN, gotUnused := left(answer); gotN != n || gotUnused != unused {
		c.t.Errorf("%s: %d keys, unused fallback keys %s, want %d and %s", when, gotN, gotUnused, n, unused)
	}
}

func TestEverySyncHasTheCountsOfKeys(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		first := bob.sync("")
		bob.hasKeys("before any upload", first, 0, `[]`)
		phone := bob.login()
		keys := bob.crypto()
		const quiet = `{"presence":{"not_types":["*"]}}`
		bob.must("POST", at("keys", "upload"), object{"device_keys": keys.deviceKeys()})
		bob.hasKeys("keys of the device alone", bob.sync(""), 0, `[]`)
		poll := bob.poll(bob.now(), "filter", quiet)
		bob.must("POST", at("keys", "upload"),
			object{"one_time_keys": keys.oneTimeKeys(2), "fallback_keys": keys.fallbackKey()})
		answer := poll()
		bob.hasKeys("after the upload", answer, 2, `["signed_curve25519"]`)
		for _, want := range []struct {
			n      int64
			unused string
		}{{1, `["signed_curve25519"]`}, {0, `["signed_curve25519"]`}, {0, `[]`}} {
			poll := bob.poll(bob.now(), "filter", quiet)
			alice.claim(bob.userID, bob.deviceID)
			answer = poll()
			bob.hasKeys("a claim", answer, want.n, want.unused)
			since := answer.Get("next_batch").Str
			for range d.urls {
				bob.hasKeys("nothing new", bob.sync(since), want.n, want.unused)
				bob.hasKeys("a timeout", bob.sync(since, "timeout", "10"), want.n, want.unused)
				bob.hasKeys("initial", bob.sync(""), want.n, want.unused)
				said := bob.must("POST", at("keys", "upload"), object{})
				equal(t, "the count of an empty upload", said.Get("one_time_key_counts.signed_curve25519").Int(), want.n)
			}
			phone.hasKeys("another device", phone.sync(""), 0, `[]`)
		}
		for n := range int64(5) { // what is acknowledged is seen at once, by every listener
			bob.must("POST", at("keys", "upload"), object{"one_time_keys": keys.oneTimeKeys(1)})
			bob.hasKeys("an upload", bob.sync(first.Get("next_batch").Str), n+1, `[]`)
		}
		bob.must("POST", at("keys", "upload"), object{"fallback_keys": keys.fallbackKey()})
		bob.hasKeys("a new fallback key", bob.sync(first.Get("next_batch").Str), 5, `["signed_curve25519"]`)
		bob.must("POST", at("logout"), object{})
		again := d.anybody(t)
		again.took(again.must("POST", at("login"), object{"type": "m.login.password", "password": bob.password,
			"device_id": bob.deviceID, "identifier": object{"type": "m.id.user", "user": bob.localpart}}))
		again.hasKeys("a device with the old name", again.sync(""), 0, `[]`)
	})
}
