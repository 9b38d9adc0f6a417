package blackbox

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// A person registers, creates a room, invites a friend, both talk, both sync. What a 200 promised is read back at once.
func TestTheMainJob(t *testing.T) { run(t, mainJob) }

func mainJob(t *testing.T, d *deployment) {
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	aliceSince, bobSince := alice.sync("").Get("next_batch").Str, bob.sync("").Get("next_batch").Str

	room := alice.createRoom(object{"name": "Tea", "topic": "and cake", "preset": "private_chat"})
	first := alice.sync(aliceSince)
	aliceSince = first.Get("next_batch").Str
	if !roomIn(first, "join", room).Exists() {
		t.Fatalf("the new room is not in the sync after it: %s", first.Raw)
	}
	alice.invite(room, bob)
	invited := bob.sync(bobSince)
	bobSince = invited.Get("next_batch").Str
	stripped := roomIn(invited, "invite", room).Get("invite_state.events")
	equal(t, "the invite's name", find(stripped, "m.room.name", "").Get("content.name").Str, "Tea")
	equal(t, "who invites", find(stripped, "m.room.member", alice.userID).Get("content.membership").Str, "join")
	equal(t, "the invite", find(stripped, "m.room.member", bob.userID).Get("content.membership").Str, "invite")
	bob.refused(403, "M_FORBIDDEN", "GET", at("rooms", room, "messages")+"?dir=b", nil)

	bob.join(room)
	joined := bob.sync(bobSince)
	bobSince = joined.Get("next_batch").Str
	now := roomIn(joined, "join", room)
	equal(t, "the room's name in the first sync", stateIn(now, "m.room.name", "").Get("content.name").Str, "Tea")
	if roomIn(joined, "invite", room).Exists() {
		t.Error("the room is still an invite")
	}

	hello := alice.say(room, "hello")
	reply := bob.say(room, "hi")
	for _, c := range []*client{alice, bob} {
		since := map[*client]string{alice: aliceSince, bob: bobSince}[c]
		timeline := roomIn(c.sync(since), "join", room).Get("timeline")
		if got := bodies(timeline.Get("events")); !slices.Equal(got, []string{"hello", "hi"}) {
			t.Errorf("%s sees %v", c.userID, got)
		}
	}
	equal(t, "an event by its id", bob.must("GET", at("rooms", room, "event", hello), nil).Get("content.body").Str, "hello")
	page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=2", nil)
	if got := ids(page.Get("chunk")); !slices.Equal(got, []string{reply, hello}) {
		t.Errorf("/messages gives %v", got)
	}
}

// Many send into one room at once, through all listeners: everybody sees the same events, each once, in the same order.
func TestEverybodySeesTheSameOrder(t *testing.T) { run(t, sameOrder) }

func sameOrder(t *testing.T, d *deployment) {
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	room := alice.publicRoom()
	bob.join(room)
	since := map[*client]string{alice: alice.sync("").Get("next_batch").Str, bob: bob.sync("").Get("next_batch").Str}
	const writers, each = 8, 10
	var all sync.WaitGroup
	for w := range writers {
		c := *alice
		if w%2 == 1 {
			c = *bob
		}
		all.Go(func() {
			for n := range each {
				a := c.call("PUT", at("rooms", room, "send", "m.room.message", fmt.Sprint("w", w, "-", n)), object{"msgtype": "m.text", "body": fmt.Sprint(w, "-", n)})
				if a.status != 200 {
					t.Errorf("a send: %d %s", a.status, a.body.Raw)
				}
			}
		})
	}
	all.Wait()
	orders := map[*client][]string{}
	for _, c := range []*client{alice, bob} {
		answer := roomIn(c.sync(since[c], "filter", `{"room":{"timeline":{"limit":500}}}`), "join", room)
		orders[c] = bodies(answer.Get("timeline.events"))
		if len(orders[c]) != writers*each {
			t.Fatalf("%s sees %d messages, want %d", c.userID, len(orders[c]), writers*each)
		}
	}
	if !slices.Equal(orders[alice], orders[bob]) {
		t.Errorf("two orders:\n%v\n%v", orders[alice], orders[bob])
	}
	for w := range writers {
		var own []string
		for _, body := range orders[alice] {
			if body[0] == byte('0'+w) {
				own = append(own, body)
			}
		}
		for n, body := range own {
			equal(t, "a sender's own order", body, fmt.Sprint(w, "-", n))
		}
	}
	page := alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=80", nil)
	got := bodies(page.Get("chunk"))
	slices.Reverse(got)
	if !slices.Equal(got, orders[alice]) {
		t.Errorf("/messages has another order than /sync")
	}
}
