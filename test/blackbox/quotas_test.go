package blackbox

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

// entry is content of about so many bytes.
func entry(bytes int) object { return object{"x": strings.Repeat("x", bytes)} }

// What a user keeps has a bound, however many write at once, and whatever makes it smaller is always allowed.
func TestAccountDataHasAQuota(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		path := func(name string) string { return at("user", alice.userID, "account_data", name) }
		inRoom := at("user", alice.userID, "rooms", room, "account_data", "x.large")
		const large, small, most = 1_000_000, 50_000, 8 << 20
		kept := 0
		for ; kept <= most/large; kept++ {
			a := alice.call("PUT", path(fmt.Sprint("x.large", kept)), entry(large))
			if a.status == http.StatusOK {
				continue
			}
			equal(t, "beyond the quota", fmt.Sprintf("%d %s", a.status, a.errcode()), "413 M_TOO_LARGE")
			break
		}
		equal(t, "large entries are kept", kept, most/large)
		alice.refused(413, "M_TOO_LARGE", "PUT", inRoom, entry(large))

		// What is left is given out once.
		answers := make([]answer, 20)
		var all sync.WaitGroup
		for i := range answers {
			writer := *alice // each is a client of its own
			all.Go(func() { answers[i] = writer.call("PUT", path(fmt.Sprint("x.small", i)), entry(small)) })
		}
		all.Wait()
		data := alice.sync("").Get("account_data.events")
		total := 0
		for i, a := range answers {
			event := find(data, fmt.Sprint("x.small", i), "")
			equal(t, fmt.Sprintf("entry %d was acknowledged", i), a.status == http.StatusOK, event.Exists())
			if !event.Exists() {
				equal(t, "beyond the quota", fmt.Sprintf("%d %s", a.status, a.errcode()), "413 M_TOO_LARGE")
			}
		}
		data.ForEach(func(_, event gjson.Result) bool {
			if event.Get("type").Str != "m.push_rules" {
				total += len(event.Get("content").Raw)
			}
			return true
		})
		if total > most || total < most-small-10_000 {
			t.Errorf("%d bytes are kept, of %d", total, most)
		}

		// Others have theirs, and the user's own markers and rules are not in the way.
		bob.must("PUT", at("user", bob.userID, "account_data", "x.large"), entry(large))
		alice.must("POST", at("rooms", room, "read_markers"), object{"m.fully_read": alice.say(room, "read")})
		alice.must("PUT", at("pushrules", "global", "content", "cake"),
			object{"pattern": "cake", "actions": []string{"notify"}})

		alice.must("PUT", path("x.large0"), entry(large-1)) // smaller
		alice.refused(413, "M_TOO_LARGE", "PUT", path("x.large0"), entry(2*small+large))
		alice.must("PUT", path("x.large0"), object{})
		equal(t, "emptied", alice.must("GET", path("x.large0"), nil).Raw, `{}`)
		alice.must("PUT", inRoom, entry(large-small))
		alice.must("PUT", at("user", alice.userID, "rooms", room, "tags", "u.work"), object{})
	})
}

// Account data of rooms is for rooms in which the user is, or was, something. No answer tells whether another room
// exists.
func TestAccountDataOfRoomsThatAreNotTheUsers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "private_chat"})
		paths := func(room string) []string {
			return []string{at("user", bob.userID, "rooms", room, "account_data", "x.test"),
				at("user", bob.userID, "rooms", room, "tags", "u.work")}
		}
		refusals := make(map[string]bool)
		for _, r := range []string{room, "!nosuch:room"} {
			for _, path := range paths(r) {
				a := bob.refused(403, "M_FORBIDDEN", "PUT", path, object{})
				refusals[strings.ReplaceAll(a.body.Get("error").Str, r, "ROOM")] = true
			}
			bob.refused(404, "M_NOT_FOUND", "GET", paths(r)[0], nil)
		}
		equal(t, "ways of saying no", len(refusals), 1)
		put := func() {
			t.Helper()
			for _, path := range paths(room) {
				bob.must("PUT", path, object{})
			}
		}
		alice.invite(room, bob)
		put() // a client may tag an invite
		bob.join(room)
		put()
		bob.must("POST", at("rooms", room, "leave"), object{})
		put()
		bob.must("DELETE", paths(room)[1], nil)
	})
}

// Each change of a tag writes all tags of the room: they have a bound, in whatever way they are set.
func TestTheTagsOfARoomHaveABound(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.publicRoom()
		tag := func(name string) string { return at("user", alice.userID, "rooms", room, "tags", name) }
		whole := at("user", alice.userID, "rooms", room, "account_data", "m.tag")
		const most = 100
		all := make(object)
		for i := range most {
			all[fmt.Sprintf("u.%d", i)] = object{"order": 0.5}
		}
		all["u.one too many"] = object{}
		alice.refused(413, "M_TOO_LARGE", "PUT", whole, object{"tags": all})
		delete(all, "u.one too many")
		alice.must("PUT", whole, object{"tags": all})
		alice.refused(413, "M_TOO_LARGE", "PUT", tag("u.one too many"), object{})
		alice.must("PUT", tag("u.1"), object{"order": 0.75})
		alice.must("DELETE", tag("u.2"), nil)
		alice.must("PUT", tag("u.other"), object{})
		alice.refused(413, "M_TOO_LARGE", "PUT", tag("u.3"), entry(2000))
		alice.refused(413, "M_TOO_LARGE", "PUT", whole, object{"tags": object{}, "x": entry(100_000)})
		alice.refused(400, "M_INVALID_PARAM", "PUT", tag(strings.Repeat("x", 256)), object{})
		alice.refused(400, "M_INVALID_PARAM", "PUT", whole,
			object{"tags": object{strings.Repeat("x", 256): object{"order": 0.5, "x": entry(900)}}})
		got := alice.must("GET", at("user", alice.userID, "rooms", room, "tags"), nil).Get("tags").Map()
		equal(t, "tags", len(got), most)
		equal(t, "a tag that was changed", got["u.1"].Get("order").Num, 0.75)
	})
}
