package blackbox

import (
	"maps"
	"slices"
	"testing"
)

// A receipt stands at an event that its user sees in that room, and in the thread that it names (Client-Server API, §
// Receipts).
func TestReceiptsForWhatIsNotThereAreRefused(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.publicRoom(), alice.publicRoom()
		alice.setState(room, "m.room.history_visibility", "", object{"history_visibility": "joined"})
		before := alice.say(room, "before bob came")
		bob.join(room)
		bob.join(other)
		elsewhere := alice.say(other, "elsewhere")
		root := alice.say(room, "root")
		reply := alice.relate(room, "m.room.message", "m.thread", root)
		plain := alice.say(room, "plain")
		bob.read(room, "m.read", root)
		bob.must("POST", at("rooms", room, "read_markers"), object{"m.fully_read": root})
		receipts := func() []string {
			return slices.Sorted(maps.Keys(receiptsIn(roomIn(alice.sync(""), "join", room))))
		}
		marker := at("user", bob.userID, "rooms", room, "account_data", "m.fully_read")

		for what, event := range map[string]string{"no event": "$bogus", "another room's": elsewhere,
			"one from before": before} {
			t.Log(what)
			for _, receiptType := range []string{"m.read", "m.read.private", "m.fully_read"} {
				bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "receipt", receiptType, event), object{})
				bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "read_markers"), object{receiptType: event})
			}
			for _, thread := range []string{"main", root, "$bogus"} {
				bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "receipt", "m.read", event),
					object{"thread_id": thread})
			}
			bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "read_markers"),
				object{"m.fully_read": plain, "m.read": plain, "m.read.private": event})
		}
		for _, wrong := range [][2]string{{plain, "$bogus"}, {plain, plain}, {plain, root}, {plain, elsewhere},
			{reply, "main"}, {reply, "$bogus"}, {reply, reply}} {
			bob.refused(400, "M_INVALID_PARAM", "POST", at("rooms", room, "receipt", "m.read", wrong[0]),
				object{"thread_id": wrong[1]})
		}
		same(t, "the receipts after all that was refused", receipts(), []string{root + " m.read"})
		equal(t, "the marker after all that was refused", bob.must("GET", marker, nil).Get("event_id").Str, root)

		bob.read(room, "m.read", reply, root)
		bob.read(room, "m.read.private", root, root) // is the thread's first
		bob.read(room, "m.read", plain, "main")
		want := []string{root + " m.read", reply + " m.read " + root, plain + " m.read main"}
		slices.Sort(want)
		same(t, "the receipts", receipts(), want)
	})
}

// Whoever got an event's id may mark it at once, on any replica.
func TestWhatIsAcknowledgedCanBeMarkedAtOnce(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		for range 10 {
			root := alice.say(room, "root")
			bob.read(room, "m.read", root, "main")
			reply := alice.relate(room, "m.room.message", "m.thread", root)
			bob.read(room, "m.read", root, root)
			bob.read(room, "m.read.private", reply, root)
			last := alice.say(room, "last")
			bob.must("POST", at("rooms", room, "read_markers"), object{"m.fully_read": last, "m.read": last})
			equal(t, "unread", bob.counts(room), [2]int64{})
		}
		next := alice.publicRoom()
		bob.join(next)
		bob.read(next, "m.read", alice.say(next, "in a room just joined"))
	})
}
