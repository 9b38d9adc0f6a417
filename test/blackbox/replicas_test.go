package blackbox

import (
	"testing"
)

// What a 200 promised is read back at once on any replica: each request goes to another listener, and each call between components to
// the replica that it prefers.
func TestTwoReplicasOfEachComponent(t *testing.T) {
	d := replicated(t, "clientapi", "roomserver", "syncapi")
	t.Run("main job", func(t *testing.T) {
		for range 5 {
			mainJob(t, d)
		}
	})
	t.Run("order", func(t *testing.T) { sameOrder(t, d) })
	t.Run("redaction", func(t *testing.T) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		for range 5 {
			secret := alice.say(room, "secret")
			for range d.urls { // into the caches of all
				alice.must("GET", at("rooms", room, "event", secret), nil)
			}
			alice.must("PUT", at("rooms", room, "redact", secret, alice.txn()), object{})
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
