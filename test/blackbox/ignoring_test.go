package blackbox

import (
	"slices"
	"testing"
)

// Whom a user ignores, they do not hear: neither messages nor invites, while state changes as ever (§ Ignoring Users).
func TestIgnoring(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, noisy := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "noisy")
		room := alice.publicRoom()
		bob.join(room)
		noisy.join(room)
		ignore := func(users ...string) {
			t.Helper()
			all := object{}
			for _, user := range users {
				all[user] = object{}
			}
			bob.must("PUT", at("user", bob.userID, "account_data", "m.ignored_user_list"), object{"ignored_users": all})
		}
		bob.read(room, "m.read", alice.say(room, "before"))
		ignore(noisy.userID)
		since := bob.now()
		noisy.say(room, "noise")
		alice.say(room, "words")
		noisy.must("PUT", at("profile", noisy.userID, "displayname"), object{"displayname": "Noisy"})
		invited := noisy.createRoom(object{"invite": []string{bob.userID}})
		for _, token := range []string{since, ""} {
			answer := bob.sync(token)
			got := bodies(roomIn(answer, "join", room).Get("timeline.events"))
			if slices.Contains(got, "noise") || !slices.Contains(got, "words") {
				t.Errorf("one who ignores sees %v", got)
			}
			if roomIn(answer, "invite", invited).Exists() {
				t.Error("an invite of somebody who is ignored")
			}
		}
		equal(t, "unread", bob.counts(room), [2]int64{1, 0})
		if got := bodies(roomIn(alice.sync(""), "join", room).Get("timeline.events")); !slices.Contains(got, "noise") {
			t.Errorf("others see %v", got)
		}
		ignore()
		if got := bodies(roomIn(bob.sync(""), "join", room).Get("timeline.events")); !slices.Contains(got, "noise") {
			t.Errorf("one who ignores no more sees %v", got)
		}
		if !roomIn(bob.sync(""), "invite", invited).Exists() {
			t.Error("the invite is lost")
		}
	})
}
