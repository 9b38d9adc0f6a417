package blackbox

import (
	"testing"
)

// What is redacted is gone from the caches of every replica: each request goes to another listener, and each call between components to
// the replica that it prefers.
func TestARedactionReachesAllReplicas(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for range 5 {
			secret := alice.say(room, "secret")
			for range d.urls { // into the caches of all
				alice.must("GET", at("rooms", room, "event", secret), nil)
			}
			alice.redact(room, secret)
			for range d.urls {
				if e := alice.must("GET", at("rooms", room, "event", secret), nil); e.Get("content.body").Exists() {
					t.Errorf("a replica still has %s", e.Raw)
				}
				if e := find(roomIn(alice.sync(""), "join", room).Get("timeline.events"), "m.room.message", ""); e.Get("content.body").Exists() {
					t.Errorf("a sync still has %s", e.Raw)
				}
			}
		}
	})
}
