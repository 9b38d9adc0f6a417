package blackbox

import (
	"testing"
	"time"
)

// Users of this server write nothing into rooms that they are not in, whatever the authorization rules of the room's
// version let pass.
func TestOnlyMembersWriteIntoARoom(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		for _, version := range []string{"1", "2", "3", "4", "5", "6", "10", "12"} {
			alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
			room := alice.createRoom(object{"room_version": version, "preset": "public_chat"})
			aliases := object{"aliases": []string{"#evil:test.example"}}
			path := at("rooms", room, "state", "m.room.aliases", "test.example")
			signed := object{"membership": "invite", "third_party_invite": object{"display_name": "c",
				"signed": object{"mxid": carol.userID, "token": "t",
					"signatures": object{"test.example": object{"ed25519:1": "x"}}}}}
			never := func(who *client) {
				t.Helper()
				who.refused(403, "M_FORBIDDEN", "PUT", path, aliases)
				who.refused(403, "M_FORBIDDEN", "PUT", delaying(path, 0), aliases)
				who.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "send", "m.room.aliases", who.txn()), aliases)
				who.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "state", "m.room.member", carol.userID),
					signed)
				for _, membership := range []string{"invite", "leave", "ban", "join", "knock"} {
					who.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "state", "m.room.member", carol.userID),
						object{"membership": membership})
				}
				who.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "state", "m.room.create", ""),
					object{"creator": who.userID})
				who.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "redact", alice.say(room, "x"), who.txn()),
					object{})
			}
			never(bob)
			bob.join(room)
			bob.refused(403, "M_FORBIDDEN", "PUT", path, aliases) // without a power level
			delayedID := bob.must("PUT", delaying(path, time.Hour), aliases).Get("delay_id").Str
			bob.must("POST", at("rooms", room, "leave"), object{})
			bob.refused(403, "M_FORBIDDEN", "POST", delayedPath+"/"+delayedID+"/send", object{})
			never(bob)
			for _, event := range alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=100",
				nil).Get("chunk").Array() {
				if event.Get("sender").Str == bob.userID && event.Get("type").Str != "m.room.member" {
					t.Errorf("version %s: bob has sent %s", version, event.Raw)
				}
			}
			alice.must("PUT", path, aliases)
		}
	})
}
