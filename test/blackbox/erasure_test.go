package blackbox

import (
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// TestAnErasedUserIsErased tells who still sees what a user said who wanted to be erased (Client-Server API, § POST /account/deactivate).
func TestAnErasedUserIsErased(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, gone, left, late := d.user(t, "alice"), d.user(t, "gone"), d.user(t, "left"), d.user(t, "late")
		room := alice.publicRoom()
		gone.join(room)
		word := "secret" + gone.localpart
		said := gone.say(room, word)
		root := alice.say(room, "root")
		reply := gone.relate(room, "m.room.message", "m.thread", root, object{"content": object{"body": word}})
		answer := alice.relate(room, "m.room.message", "m.thread", said, object{"content": object{"body": "an answer"}})
		left.join(room)
		left.must("POST", at("rooms", room, "leave"), object{})
		device := gone.login()
		gone.must("PUT", at("user", gone.userID, "account_data", "org.example.secret"), object{"a": 1})
		gone.must("POST", at("rooms", room, "receipt", "m.read", said), object{})
		equal(t, "search finds it before", alice.search(word).Get("count").Int(), 2)

		gone.confirmed("POST", at("account", "deactivate"), object{"erase": true})
		device.refused(401, "M_UNKNOWN_TOKEN", "GET", at("account", "whoami"), nil)
		late.refused(404, "M_NOT_FOUND", "GET", at("profile", gone.userID), nil)
		late.join(room)
		equal(t, "the membership of who is gone", alice.state(room, "m.room.member", gone.userID).Get("membership").Str, "leave")

		body := func(c *client, event string) string {
			return c.must("GET", at("rooms", room, "event", event), nil).Get("content.body").Str
		}
		for _, c := range []*client{alice, left} {
			equal(t, "seen by "+c.localpart, body(c, said), word)
		}
		for _, event := range []string{said, reply} {
			one := late.must("GET", at("rooms", room, "event", event), nil)
			equal(t, "seen by who came late", one.Get("content").Raw+one.Get("unsigned.redacted_because").Raw, "{}")
			equal(t, "its context", late.must("GET", at("rooms", room, "context", event), nil).Get("event.content").Raw, "{}")
		}
		equal(t, "what others said", body(late, answer), "an answer")
		history := func(c *client) (bodies int) {
			for _, e := range c.must("GET", at("rooms", room, "messages")+"?dir=b&limit=100", nil).Get("chunk").Array() {
				if e.Get("content.body").Str == word {
					bodies++
				}
			}
			return bodies
		}
		equal(t, "history of who was there", history(alice), 2)
		equal(t, "history of who came late", history(late), 0)
		equal(t, "search of who was there", alice.search(word).Get("count").Int(), 2)
		equal(t, "search of who came late", late.search(word).Get("results.#").Int(), 0)
		latest := func(c *client) string {
			return c.must("GET", at("rooms", room, "event", root), nil).Get(`unsigned.m\.relations.m\.thread.latest_event.content.body`).Str
		}
		equal(t, "the thread, for who was there", latest(alice), word)
		equal(t, "the thread, for who came late", latest(late), "")
		contains := func(answer gjson.Result) bool { return strings.Contains(roomIn(answer, "join", room).Raw, word) }
		equal(t, "sync of who was there", contains(alice.sync("")), true)
		equal(t, "sync of who came late", contains(late.sync("")), false)
		read := true
		for end := time.Now().Add(20 * time.Second); read && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			receipts := find(roomIn(alice.sync(""), "join", room).Get("ephemeral.events"), "m.receipt", "").Get("content")
			read = strings.Contains(receipts.Raw, gone.userID)
		}
		equal(t, "receipts of who is gone are there", read, false)
	})
}
