package blackbox

import (
	"strings"
	"sync"
	"testing"
)

const noticePath = "/_synapse/admin/v1/send_server_notice"

// TestServerNotices is § Server Notices of the Client-Server API.
func TestServerNotices(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		admin, alice := d.admin(t), d.user(t, "alice")
		notice := func(text string) object {
			return object{"user_id": alice.userID, "content": object{"msgtype": "m.server_notice", "body": text, "server_notice_type": "org.example"}}
		}
		alice.refused(403, "M_FORBIDDEN", "POST", noticePath, notice("no"))
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "POST", noticePath, notice("no"))
		admin.refused(404, "M_NOT_FOUND", "POST", noticePath, object{"user_id": "@nobody-" + alice.localpart + strings.TrimPrefix(alice.userID, "@"+alice.localpart), "content": object{}})
		admin.refused(400, "M_INVALID_PARAM", "POST", noticePath, object{"user_id": "@alice:elsewhere.example", "content": object{}})
		admin.refused(400, "M_MISSING_PARAM", "POST", noticePath, object{"user_id": alice.userID})
		admin.refused(400, "M_MISSING_PARAM", "POST", noticePath, object{"content": object{}})
		admin.refused(400, "M_BAD_JSON", "POST", noticePath, object{"user_id": alice.userID, "content": "text"})
		equal(t, "what the refused ones did", len(alice.sync("").Get("rooms.invite").Map()), 0)

		first := admin.must("PUT", noticePath+"/one", notice("first")).Get("event_id").Str
		equal(t, "the repeated request", admin.must("PUT", noticePath+"/one", notice("first")).Get("event_id").Str, first)
		answer := alice.sync("")
		room := ""
		for name, invited := range answer.Get("rooms.invite").Map() {
			room = name
			equal(t, "the room's name", find(invited.Get("invite_state.events"), "m.room.name", "").Get("content.name").Str, "Server notices")
		}
		if room == "" {
			t.Fatalf("alice is invited nowhere: %s", answer.Raw)
		}
		tagged := func() string {
			return alice.must("GET", at("user", alice.userID, "rooms", room, "tags"), nil).Get("tags").Raw
		}
		equal(t, "the tags", tagged(), `{"m.server_notice":{}}`)
		alice.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "POST", at("rooms", room, "leave"), object{})
		alice.refused(403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", "PUT", at("rooms", room, "state", "m.room.member", alice.userID), object{"membership": "leave"})

		alice.join(room)
		equal(t, "the tags after the join", tagged(), `{"m.server_notice":{}}`)
		joined := roomIn(alice.sync(""), "join", room)
		equal(t, "the tags in sync", find(joined.Get("account_data.events"), "m.tag", "").Get(`content.tags.m\.server_notice`).Raw, "{}")
		said := func() (all []string) {
			for _, e := range alice.must("GET", at("rooms", room, "messages")+"?dir=f&limit=100", nil).Get("chunk").Array() {
				if e.Get("type").Str == "m.room.message" {
					all = append(all, e.Get("content.body").Str)
					equal(t, "the type of message", e.Get("content.msgtype").Str, "m.server_notice")
					equal(t, "the sender", strings.HasPrefix(e.Get("sender").Str, "@server-notices:"), true)
				}
			}
			return all
		}
		equal(t, "what is said", strings.Join(said(), " "), "first")
		alice.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "send", "m.room.message", "1"), object{"msgtype": "m.text", "body": "no"})

		// Several at once go to the one room.
		var sending sync.WaitGroup
		for range 5 {
			sending.Go(func() { admin.must("POST", noticePath, notice("more")) })
		}
		sending.Wait()
		equal(t, "what is said then", strings.Join(said(), " "), "first more more more more more")
		state := object{"user_id": alice.userID, "type": "m.room.pinned_events", "state_key": "", "content": object{"pinned": []string{first}}}
		admin.must("POST", noticePath, state)
		equal(t, "what is pinned", alice.state(room, "m.room.pinned_events", "").Get("pinned.0").Str, first)

		// Who has joined may leave, and is invited again by the next notice.
		alice.must("POST", at("rooms", room, "leave"), object{})
		admin.must("POST", noticePath, notice("again"))
		equal(t, "the invite", alice.sync("").Get("rooms.invite."+escape(room)).Exists(), true)
		alice.join(room)
		equal(t, "what is said at last", strings.HasSuffix(strings.Join(said(), " "), "again"), true)

		d.anybody(t).refused(400, "M_USER_IN_USE", "GET", at("register", "available")+"?username=server-notices", nil)
		d.anybody(t).refused(400, "M_USER_IN_USE", "POST", at("register"), object{"username": "Server-Notices", "password": "long enough 1", "auth": object{"type": "m.login.dummy"}})
	})
}

func TestServerNoticesMayBeOff(t *testing.T) {
	runOn(t, switched, func(t *testing.T, d *deployment) {
		admin := d.admin(t)
		admin.refused(403, "M_FORBIDDEN", "POST", noticePath, object{"user_id": admin.userID, "content": object{"body": "x"}})
	})
}
