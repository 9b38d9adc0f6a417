package blackbox

import (
	"fmt"
	"strings"
	"testing"
)

// found are the names of users that a search finds, those of this test only.
func (c *client) found(term string, limit int) string {
	c.t.Helper()
	var names []string
	for _, r := range c.must("POST", at("user_directory", "search"), object{"search_term": term, "limit": limit}).Get("results").Array() {
		names = append(names, r.Get("display_name").Str)
	}
	return strings.Join(names, " ")
}

func TestTheUserDirectoryHasWhoMayBeSeen(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		word := "w" + strings.ToLower(d.user(t, "unique").localpart)
		user := func(name string) *client {
			c := d.user(t, name)
			c.must("PUT", at("profile", c.userID, "displayname"), object{"displayname": name + "-" + word})
			return c
		}
		searcher, friend, stranger, left, invited := user("1-searcher"), user("2-friend"), user("3-stranger"), user("4-left"), user("5-invited")
		public, readable, hidden := user("6-public"), user("7-readable"), user("8-hidden")
		named := func(names ...string) string {
			for i := range names {
				names[i] += "-" + word
			}
			return strings.Join(names, " ")
		}
		equal(t, "found by a user in no room", searcher.found(word, 50), named("1-searcher"))

		room := friend.createRoom(object{})
		for _, c := range []*client{searcher, left, invited} {
			friend.invite(room, c)
		}
		searcher.join(room)
		left.join(room)
		left.must("POST", at("rooms", room, "leave"), object{})
		stranger.createRoom(object{})
		hidden.createRoom(object{"visibility": "public", "initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		open := public.publicRoom()
		readable.createRoom(object{"initial_state": []object{{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}}}})
		equal(t, "found", searcher.found(strings.ToUpper(word), 50), named("1-searcher", "2-friend", "6-public", "7-readable"))
		equal(t, "found by id", searcher.found(friend.userID, 50), named("2-friend"))
		equal(t, "a stranger by id", searcher.found(stranger.userID, 50), "")

		answer := searcher.must("POST", at("user_directory", "search"), object{"search_term": word, "limit": 2})
		equal(t, "limited", answer.Get("limited").Raw+answer.Get("results.#").Raw, "true2")
		answer = searcher.must("POST", at("user_directory", "search"), object{"search_term": word, "limit": 4})
		equal(t, "not limited", answer.Get("limited").Raw+answer.Get("results.#").Raw, "false4")

		// Who was seen is not seen any more.
		public.setState(open, "m.room.join_rules", "", object{"join_rule": "invite"})
		searcher.must("POST", at("rooms", room, "leave"), object{})
		equal(t, "found after all doors have closed", searcher.found(word, 50), named("1-searcher", "7-readable"))

		// Many who match first, and may not be seen, do not hide those who may.
		for i := range 25 {
			user(fmt.Sprintf("0-%02d", i))
		}
		equal(t, "found behind many", searcher.found(word, 5), named("1-searcher", "7-readable"))
	})
}

func TestTheUserDirectoryMayHaveAllUsers(t *testing.T) {
	runOn(t, switched, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		bob.must("PUT", at("profile", bob.userID, "displayname"), object{"displayname": "Bobby"})
		equal(t, "found", alice.found("bobb", 10), "Bobby")
	})
}
