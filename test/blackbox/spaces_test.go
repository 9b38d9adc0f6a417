package blackbox

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/tidwall/gjson"
)

func roomIDs(rooms gjson.Result) (all []string) {
	for _, r := range rooms.Array() {
		all = append(all, r.Get("room_id").Str)
	}
	return all
}

func TestHierarchy(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, banned := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "banned")
		space := func(request object) string {
			request["creation_content"] = object{"type": "m.space"}
			return alice.createRoom(request)
		}
		top, below := space(object{"preset": "public_chat", "name": "Top"}), space(object{"preset": "public_chat"})
		public, knockable := alice.publicRoom(), alice.createRoom(object{"initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		private, invited := alice.createRoom(object{}), alice.createRoom(object{"invite": []string{bob.userID}})
		restricted := alice.createRoom(object{"initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "restricted",
			"allow": []object{{"type": "m.room_membership", "room_id": below}, {"type": "odd"}}}}}})
		readable := alice.createRoom(object{"initial_state": []object{{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}}}})
		child := func(parent, room string, content object) {
			t.Helper()
			if content["via"] == nil {
				content["via"] = []string{string(d.config.Matrix.ServerName)}
			}
			alice.setState(parent, "m.space.child", room, content)
		}
		child(top, public, object{"order": "b"})
		child(top, below, object{"order": "a", "suggested": true})
		child(top, knockable, object{})
		child(top, private, object{})
		child(top, invited, object{"order": "\u00e4 is not valid"})
		child(top, "!unknown:x.example", object{"order": " "})
		alice.setState(top, "m.space.child", readable, object{}) // no via: no child
		alice.setState(top, "m.space.child", "no room", object{"via": []string{"x"}})
		child(below, restricted, object{})
		child(below, readable, object{"suggested": true})
		child(below, top, object{}) // a loop
		path := v1("rooms", top, "hierarchy")
		all := []string{top, below, restricted, readable, public, knockable, private, invited}
		same(t, "for a member of all", roomIDs(alice.must("GET", path, nil).Get("rooms")), all)
		same(t, "for somebody else", roomIDs(bob.must("GET", path, nil).Get("rooms")), []string{top, below, readable, public, knockable, invited})
		bob.join(below)
		got := bob.must("GET", path, nil).Get("rooms")
		same(t, "for a member of an allowed room", roomIDs(got), []string{top, below, restricted, readable, public, knockable, invited})
		equal(t, "allowed rooms", got.Get("2.allowed_room_ids").Raw, `["`+below+`"]`)
		equal(t, "children of a room that is no space", got.Get("3.children_state").Raw, "[]")
		same(t, "the space only", roomIDs(bob.must("GET", path+"?max_depth=0", nil).Get("rooms")), []string{top})
		same(t, "one level", roomIDs(bob.must("GET", path+"?max_depth=1", nil).Get("rooms")), []string{top, below, public, knockable, invited})
		same(t, "suggested", roomIDs(bob.must("GET", path+"?suggested_only=true", nil).Get("rooms")), []string{top, below, readable})
		var paged []string
		for next, n := "", 0; n < 10; n++ {
			page := alice.must("GET", path+"?limit=3&from="+url.QueryEscape(next), nil)
			paged = append(paged, roomIDs(page.Get("rooms"))...)
			if next = page.Get("next_batch").Str; next == "" {
				break
			}
			alice.refused(400, "M_INVALID_PARAM", "GET", path+"?max_depth=1&from="+url.QueryEscape(next), nil)
			alice.refused(400, "M_INVALID_PARAM", "GET", path+"?suggested_only=true&from="+url.QueryEscape(next), nil)
		}
		same(t, "in pages", paged, all)
		room := got.Get("0")
		equal(t, "name", room.Get("name").Str, "Top")
		equal(t, "type", room.Get("room_type").Str, "m.space")
		equal(t, "version", room.Get("room_version").Str, "12")
		first := room.Get("children_state.0")
		equal(t, "first child by its order", first.Get("state_key").Str, "!unknown:x.example")
		equal(t, "type of a child", first.Get("type").Str, "m.space.child")
		if first.Get("origin_server_ts").Int() == 0 || first.Get("event_id").Exists() {
			t.Errorf("a stripped child: %s", first.Raw)
		}
		equal(t, "number of children", len(room.Get("children_state").Array()), 6)

		bob.refused(403, "M_FORBIDDEN", "GET", v1("rooms", private, "hierarchy"), nil)
		bob.refused(403, "M_FORBIDDEN", "GET", v1("rooms", "!absent:x", "hierarchy"), nil)
		alice.must("POST", at("rooms", top, "ban"), object{"user_id": banned.userID})
		banned.refused(403, "M_FORBIDDEN", "GET", path, nil)
		for _, bad := range []string{"limit=0", "limit=x", "max_depth=-1", "suggested_only=1", "from=x", "from=-1_50_false"} {
			bob.refused(400, "M_INVALID_PARAM", "GET", path+"?"+bad, nil)
		}
	})
}

func TestRoomSummary(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, nobody := d.user(t, "alice"), d.user(t, "bob"), d.anybody(t)
		name := "summary-" + alice.localpart
		public := alice.createRoom(object{"preset": "public_chat", "room_alias_name": name, "name": "Cheese", "topic": "Tasty",
			"initial_state": []object{{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}}}})
		private := alice.createRoom(object{"invite": []string{bob.userID}})
		hidden := alice.createRoom(object{})
		for _, room := range []string{public, "#" + name + ":" + string(d.config.Matrix.ServerName)} {
			path := v1("room_summary", room)
			for who, membership := range map[*client]string{alice: "join", bob: "leave", nobody: ""} {
				got := who.must("GET", path, nil)
				equal(t, "membership", got.Get("membership").Str, membership)
				for key, want := range map[string]string{"room_id": public, "name": "Cheese", "topic": "Tasty", "join_rule": "public",
					"encryption": "m.megolm.v1.aes-sha2", "room_version": "12", "num_joined_members": "1", "guest_can_join": "false", "world_readable": "false"} {
					equal(t, key, got.Get(key).String(), want)
				}
			}
		}
		equal(t, "membership of an invited user", bob.must("GET", v1("room_summary", private), nil).Get("membership").Str, "invite")
		nobody.refused(404, "M_NOT_FOUND", "GET", v1("room_summary", private), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", v1("room_summary", hidden), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", v1("room_summary", "!absent:x"), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", v1("room_summary", "#absent:"+string(d.config.Matrix.ServerName)), nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", v1("room_summary", "absent"), nil)
	})
}

func TestReports(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, admin := d.user(t, "alice"), d.user(t, "bob"), d.admin(t)
		room := alice.publicRoom()
		event := alice.say(room, "spam")
		bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "report", event), object{"reason": "x"})
		bob.join(room)
		bob.refused(404, "M_NOT_FOUND", "POST", at("rooms", room, "report", "$absent"), object{"reason": "x"})
		reason := "sad\u0000 " + bob.localpart
		bob.must("POST", at("rooms", room, "report", event), object{"reason": reason, "score": -100})
		bob.must("POST", at("rooms", room, "report", event), object{})
		bob.must("POST", at("rooms", room, "report"), object{"reason": ""})
		bob.must("POST", at("users", alice.userID, "report"), object{"reason": "rude"})
		bob.refused(400, "M_MISSING_PARAM", "POST", at("rooms", room, "report"), object{})
		bob.refused(400, "M_MISSING_PARAM", "POST", at("users", alice.userID, "report"), object{})
		bob.refused(400, "M_BAD_JSON", "POST", at("rooms", room, "report"), object{"reason": 1})
		bob.refused(413, "M_TOO_LARGE", "POST", at("rooms", room, "report"), object{"reason": fmt.Sprintf("%5000d", 1)})
		const path = "/_dendrite/admin/v1/reports"
		bob.refused(403, "M_FORBIDDEN", "GET", path, nil)
		got := admin.must("GET", path+"?limit=4", nil)
		first := got.Get("reports.3")
		equal(t, "reporter", first.Get("reporter").Str, bob.userID)
		equal(t, "event", first.Get("event_id").Str, event)
		equal(t, "sender", first.Get("user_id").Str, alice.userID)
		equal(t, "reason", first.Get("reason").Str, "sad "+bob.localpart)
		equal(t, "user", got.Get("reports.0.user_id").Str, alice.userID)
		equal(t, "room", got.Get("reports.1.room_id").Str, room)
		next := admin.must("GET", fmt.Sprintf("%s?limit=1&from=%s", path, got.Get("reports.2.id").Raw), nil)
		equal(t, "next page", next.Get("reports.0.id").Raw, first.Get("id").Raw)
	})
}

func TestMutualRooms(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		path := v1("mutual_rooms") + "?user_id="
		equal(t, "none", alice.must("GET", path+url.QueryEscape(bob.userID), nil).Raw, `{"count":0,"joined":[]}`)
		room, other := alice.publicRoom(), alice.publicRoom()
		bob.join(room)
		alice.invite(other, bob)
		equal(t, "one", alice.must("GET", path+url.QueryEscape(bob.userID), nil).Raw, `{"count":1,"joined":["`+room+`"]}`)
		equal(t, "of the other", bob.must("GET", path+url.QueryEscape(alice.userID), nil).Get("joined.0").Str, room)
		equal(t, "of nobody", alice.must("GET", path+url.QueryEscape("@nobody:x.example"), nil).Get("count").Int(), 0)
		alice.refused(400, "M_INVALID_PARAM", "GET", path+url.QueryEscape(alice.userID), nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", path+"x", nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", path+url.QueryEscape(bob.userID)+"&from=x", nil)
		alice.refused(400, "M_MISSING_PARAM", "GET", v1("mutual_rooms"), nil)
	})
}

// Whoever blocks invites gets none (§ Invite permission).
func TestInvitesAreBlocked(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, earlier := alice.publicRoom(), alice.createRoom(object{"invite": []string{bob.userID}})
		permission := func(content object) {
			bob.must("PUT", at("user", bob.userID, "account_data", "m.invite_permission_config"), content)
		}
		permission(object{"default_action": "block"})
		alice.refused(403, "M_INVITE_BLOCKED", "POST", at("rooms", room, "invite"), object{"user_id": bob.userID})
		alice.refused(403, "M_INVITE_BLOCKED", "POST", at("createRoom"), object{"invite": []string{bob.userID}})
		alice.refused(403, "M_INVITE_BLOCKED", "PUT", at("rooms", room, "state", "m.room.member", bob.userID), object{"membership": "invite"})
		equal(t, "an invite from before is shown", roomIn(bob.sync(""), "invite", earlier).Exists(), false)
		permission(object{})
		equal(t, "an invite from before is shown again", roomIn(bob.sync(""), "invite", earlier).Exists(), true)
		alice.invite(room, bob)
		equal(t, "an invite is shown", roomIn(bob.sync(""), "invite", room).Exists(), true)
	})
}
