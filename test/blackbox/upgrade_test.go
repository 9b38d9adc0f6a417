package blackbox

import (
	"slices"
	"testing"

	"github.com/tidwall/gjson"
)

func (c *client) state(room, eventType, stateKey string) gjson.Result {
	c.t.Helper()
	return c.must("GET", at("rooms", room, "state", eventType, stateKey), nil)
}

func TestARoomIsUpgraded(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol, banned := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol"), d.user(t, "banned")
		for _, c := range []struct{ from, to string }{{"1", "12"}, {"6", "11"}, {"10", "1"}, {"11", "12"}, {"12", "11"}, {"12", "12"}} {
			alias := "upgraded-" + alice.localpart + "-" + c.from + "-" + c.to
			old := alice.createRoom(object{"preset": "public_chat", "visibility": "public", "room_version": c.from, "room_alias_name": alias, "name": "A room",
				"topic": "Everything", "creation_content": object{"type": "x.kind"}, "initial_state": []object{
					{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
					{"type": "m.room.server_acl", "content": object{"allow": []string{"*"}, "deny": []string{"evil.example"}}},
					{"type": "m.room.avatar", "content": object{"url": "mxc://x/y"}},
					{"type": "m.room.history_visibility", "content": object{"history_visibility": "invited"}},
					{"type": "x.other", "content": object{"a": 1}}}})
			fullAlias := "#" + alias + ":" + string(d.config.Matrix.ServerName)
			for _, member := range []*client{bob, carol, banned} {
				member.join(old)
			}
			alice.must("POST", at("rooms", old, "ban"), object{"user_id": banned.userID, "reason": "spam"})
			levels := map[string]any{"users": object{bob.userID: 50, carol.userID: 7}, "users_default": 1, "events": object{"m.room.name": 40}, "invite": 2}
			if c.from != "12" {
				levels["users"].(object)[alice.userID] = 100
			}
			alice.setState(old, "m.room.power_levels", "", levels)
			bob.must("PUT", at("user", bob.userID, "rooms", old, "tags", "m.favourite"), object{"order": 0.5})
			bob.must("PUT", at("pushrules", "global", "room", old), object{"actions": []string{}})
			bob.must("PUT", at("user", bob.userID, "account_data", "m.direct"), object{carol.userID: []string{old}})

			carol.refused(403, "M_FORBIDDEN", "POST", at("rooms", old, "upgrade"), object{"new_version": c.to})
			made := alice.must("POST", at("rooms", old, "upgrade"), object{"new_version": c.to}).Get("replacement_room").Str
			// It can be repeated.
			equal(t, "the room of a repeated upgrade", alice.must("POST", at("rooms", old, "upgrade"), object{"new_version": c.to}).Get("replacement_room").Str, made)

			create := alice.state(made, "m.room.create", "")
			equal(t, "version", create.Get("room_version").String(), c.to)
			equal(t, "type", create.Get("type").Str, "x.kind")
			equal(t, "predecessor", create.Get("predecessor.room_id").Str, old)
			if byID := alice.call("GET", at("rooms", old, "event", create.Get("predecessor.event_id").Str), nil); byID.status != 200 {
				t.Errorf("the predecessor's last event: %d %s", byID.status, byID.body.Raw)
			}
			for _, e := range [][2]string{{"m.room.name", "name"}, {"m.room.topic", "topic"}, {"m.room.avatar", "url"}, {"m.room.encryption", "algorithm"},
				{"m.room.server_acl", "deny"}, {"m.room.guest_access", "guest_access"}, {"m.room.history_visibility", "history_visibility"},
				{"m.room.join_rules", "join_rule"}} {
				equal(t, e[0], alice.state(made, e[0], "").Get(e[1]).Raw, alice.state(old, e[0], "").Get(e[1]).Raw)
			}
			alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", made, "state", "x.other", ""), nil)
			equal(t, "the ban", alice.state(made, "m.room.member", banned.userID).Get("membership").Str, "ban")
			equal(t, "the ban's reason", alice.state(made, "m.room.member", banned.userID).Get("reason").Str, "spam")
			now := alice.state(made, "m.room.power_levels", "")
			equal(t, "level of bob", now.Get("users."+escape(bob.userID)).Int(), 50)
			equal(t, "level of carol", now.Get("users."+escape(carol.userID)).Int(), 7)
			equal(t, "level of events", now.Get(`events.m\.room\.name`).Int(), 40)
			equal(t, "alice is named", now.Get("users."+escape(alice.userID)).Exists(), c.to != "12")

			// What leads to the room, leads to the new one.
			equal(t, "alias", alice.must("GET", at("directory", "room", fullAlias), nil).Get("room_id").Str, made)
			equal(t, "canonical alias", alice.state(made, "m.room.canonical_alias", "").Get("alias").Str, fullAlias)
			equal(t, "old canonical alias", alice.state(old, "m.room.canonical_alias", "").Raw, "{}")
			equal(t, "published", alice.must("GET", at("directory", "list", "room", made), nil).Get("visibility").Str, "public")
			equal(t, "old room published", alice.must("GET", at("directory", "list", "room", old), nil).Get("visibility").Str, "private")

			// The old room has come to its end.
			equal(t, "tombstone", alice.state(old, "m.room.tombstone", "").Get("replacement_room").Str, made)
			quiet := alice.state(old, "m.room.power_levels", "")
			equal(t, "events_default", quiet.Get("events_default").Int(), 50)
			equal(t, "invite", quiet.Get("invite").Int(), 50)
			carol.refused(403, "M_FORBIDDEN", "PUT", at("rooms", old, "send", "m.room.message", carol.txn()), object{"body": "x", "msgtype": "m.text"})
			alice.say(made, "here")

			// Settings follow whoever joins.
			bob.join(made)
			equal(t, "tag", bob.must("GET", at("user", bob.userID, "rooms", made, "tags"), nil).Get(`tags.m\.favourite.order`).Num, 0.5)
			bob.must("GET", at("pushrules", "global", "room", made), nil)
			direct := bob.must("GET", at("user", bob.userID, "account_data", "m.direct"), nil).Get(escape(carol.userID))
			if !slices.ContainsFunc(direct.Array(), func(r gjson.Result) bool { return r.Str == made }) {
				t.Errorf("m.direct: %s", direct.Raw)
			}
		}
	})
}

func TestASpaceKeepsItsChildren(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		space := alice.createRoom(object{"room_version": "11", "creation_content": object{"type": "m.space"}})
		child := alice.publicRoom()
		alice.setState(space, "m.space.child", child, object{"via": []string{"x.example"}})
		alice.setState(space, "m.space.child", "!gone:x", object{})
		alice.setState(space, "m.room.join_rules", "", object{"join_rule": "restricted", "allow": []object{{"type": "m.room_membership", "room_id": child}}})
		made := alice.must("POST", at("rooms", space, "upgrade"), object{"new_version": "12", "additional_creators": []string{bob.userID}}).Get("replacement_room").Str
		equal(t, "child", alice.state(made, "m.space.child", child).Get("via.0").Str, "x.example")
		alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", made, "state", "m.space.child", "!gone:x"), nil)
		equal(t, "creators", alice.state(made, "m.room.create", "").Get("additional_creators").Raw, `["`+bob.userID+`"]`)
		old := alice.must("POST", at("rooms", made, "upgrade"), object{"new_version": "6"}).Get("replacement_room").Str
		equal(t, "a rule that the version does not have", alice.state(old, "m.room.join_rules", "").Get("join_rule").Str, "invite")
		equal(t, "level of a former creator", alice.state(old, "m.room.power_levels", "").Get("users."+escape(bob.userID)).Int() >= 100, true)
	})
}

func TestUpgradesThatAreRefused(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"room_version": "10"})
		before := alice.must("GET", at("rooms", room, "state"), nil).Raw
		path := at("rooms", room, "upgrade")
		alice.refused(400, "M_UNSUPPORTED_ROOM_VERSION", "POST", path, object{"new_version": "999"})
		alice.refused(400, "M_MISSING_PARAM", "POST", path, object{})
		alice.refused(400, "M_BAD_JSON", "POST", path, object{"new_version": 12})
		alice.refused(400, "M_INVALID_PARAM", "POST", path, object{"new_version": "12", "additional_creators": []string{"bob"}})
		bob.refused(403, "M_FORBIDDEN", "POST", path, object{"new_version": "12"})
		alice.refused(403, "M_FORBIDDEN", "POST", at("rooms", "!absent:x", "upgrade"), object{"new_version": "12"})
		equal(t, "number of state events", len(gjson.Parse(before).Array()), len(alice.must("GET", at("rooms", room, "state"), nil).Array()))
	})
}
