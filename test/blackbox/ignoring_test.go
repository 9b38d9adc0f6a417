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

// An invite that clients are not shown hides nothing else: they are told what the user's membership was before it.
func TestAHiddenInviteHidesNothingElse(t *testing.T) {
	befores := map[string]struct { // by section
		membership string
		live       func(bob *client, room string)
	}{
		"leave": {"leave", func(bob *client, room string) {
			bob.must("POST", at("rooms", room, "leave"), object{})
		}},
		"knock": {"knock", func(bob *client, room string) {
			bob.must("POST", at("rooms", room, "leave"), object{})
			bob.must("POST", at("knock", room), object{})
		}},
	}
	hides := map[string]func(bob, noisy *client){
		"ignored": func(bob, noisy *client) {
			bob.must("PUT", at("user", bob.userID, "account_data", "m.ignored_user_list"),
				object{"ignored_users": object{noisy.userID: object{}}})
		},
		"blocked": func(bob, _ *client) {
			bob.must("PUT", at("user", bob.userID, "account_data", "m.invite_permission_config"),
				object{"default_action": "block"})
		},
	}
	archive := filtered(object{"room": object{"include_leave": true}})
	run(t, func(t *testing.T, d *deployment) {
		for section, before := range befores {
			for how, hide := range hides {
				t.Run(how+" after a "+section, func(t *testing.T) {
					bob, noisy := d.user(t, "bob"), d.user(t, "noisy")
					room := noisy.createRoom(object{"preset": "public_chat", "room_version": "11"})
					bob.join(room)
					noisy.setState(room, "m.room.join_rules", "", object{"join_rule": "knock"})
					since := bob.now()
					before.live(bob, room)
					noisy.invite(room, bob)
					hide(bob, noisy)
					for _, token := range []string{since, ""} {
						answer := bob.sync(token, archive...)
						said := roomIn(answer, section, room)
						own := find(said.Get("knock_state.events"), "m.room.member", bob.userID)
						if section == "leave" {
							own = stateIn(said, "m.room.member", bob.userID)
						}
						equal(t, "the membership", own.Get("content.membership").Str, before.membership)
						for _, other := range []string{"join", "invite"} {
							if roomIn(answer, other, room).Exists() {
								t.Errorf("since %q, the room is in %q: %s", token, other, answer.Get("rooms").Raw)
							}
						}
						since = answer.Get("next_batch").Str
					}
					if again := bob.sync(since).Get("rooms." + section); len(again.Map()) > 0 {
						t.Errorf("it is told twice: %s", again.Raw)
					}
				})
			}
		}
	})
}
