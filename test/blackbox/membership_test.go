package blackbox

import (
	"testing"
)

func TestMembership(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.createRoom(object{"preset": "private_chat"})
		members := func(want string) {
			t.Helper()
			got := alice.must("GET", at("rooms", room, "state", "m.room.member", bob.userID), nil).Get("membership").Str
			equal(t, "bob's membership", got, want)
		}
		bob.refused(403, "M_FORBIDDEN", "POST", at("join", room), object{})
		bob.refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "invite"), object{"user_id": carol.userID})
		alice.invite(room, bob)
		members("invite")
		bob.must("POST", at("rooms", room, "leave"), object{}) // rejects
		members("leave")
		alice.invite(room, bob)
		bob.join(room)
		bob.join(room) // again, which changes nothing
		members("join")
		bob.refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "kick"), object{"user_id": alice.userID})
		alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID, "reason": "noise"})
		members("leave")
		alice.refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "kick"), object{"user_id": bob.userID})
		alice.must("POST", at("rooms", room, "ban"), object{"user_id": bob.userID})
		members("ban")
		alice.refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "invite"), object{"user_id": bob.userID})
		bob.refused(403, "M_FORBIDDEN", "POST", at("join", room), object{})
		alice.must("POST", at("rooms", room, "unban"), object{"user_id": bob.userID})
		members("leave")
		alice.refused(403, "M_BAD_STATE", "POST", at("rooms", room, "unban"), object{"user_id": bob.userID})
		for _, membership := range []string{"invite", "ban", "leave"} {
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("rooms", room, "state", "m.room.member", "nobody"), object{"membership": membership})
		}
		carol.refused(403, "M_FORBIDDEN", "POST", at("rooms", room, "leave"), object{})

		alice.invite(room, bob)
		bob.join(room)
		listed := bob.must("GET", at("joined_rooms"), nil).Get("joined_rooms").Array()
		if len(listed) != 1 || listed[0].Str != room {
			t.Errorf("joined rooms: %v", listed)
		}
		if joined := alice.must("GET", at("rooms", room, "joined_members"), nil).Get("joined"); len(joined.Map()) != 2 {
			t.Errorf("joined members: %s", joined.Raw)
		}
		equal(t, "members", len(alice.must("GET", at("rooms", room, "members")+"?membership=join", nil).Get("chunk").Array()), 2)
		bob.refused(400, "M_UNKNOWN", "POST", at("rooms", room, "forget"), object{})
		bob.must("POST", at("rooms", room, "leave"), object{})
		bob.must("POST", at("rooms", room, "leave"), object{}) // again
		bob.must("POST", at("rooms", room, "forget"), object{})
		equal(t, "rooms of who has left", len(bob.must("GET", at("joined_rooms"), nil).Get("joined_rooms").Array()), 0)
		bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "send", "m.room.message", "1"), object{"body": "x"})
	})
}

func TestAliasesAndTheDirectory(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		local := "lounge-" + alice.localpart
		alias := "#" + local + ":test.example"
		room := alice.createRoom(object{"preset": "public_chat", "visibility": "public", "room_alias_name": local, "name": "Lounge " + alice.localpart})
		equal(t, "the alias leads to", bob.must("GET", at("directory", "room", alias), nil).Get("room_id").Str, room)
		equal(t, "a join by alias", bob.must("POST", at("join", alias), object{}).Get("room_id").Str, room)
		alice.refused(400, "M_ROOM_IN_USE", "POST", at("createRoom"), object{"room_alias_name": local})
		found := bob.must("POST", at("publicRooms"), object{"filter": object{"generic_search_term": alice.localpart}}).Get("chunk")
		if len(found.Array()) != 1 || found.Get("0.room_id").Str != room || found.Get("0.num_joined_members").Int() != 2 || found.Get("0.canonical_alias").Str != alias {
			t.Errorf("the directory has %s", found.Raw)
		}
		second := "#second-" + alice.localpart + ":test.example"
		bob.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", second), nil)
		bob.must("PUT", at("directory", "room", second), object{"room_id": room})
		alice.refused(409, "M_UNKNOWN", "PUT", at("directory", "room", second), object{"room_id": room})
		equal(t, "aliases of the room", len(bob.must("GET", at("rooms", room, "aliases"), nil).Get("aliases").Array()), 2)
		alice.must("PUT", at("rooms", room, "state", "m.room.canonical_alias"), object{"alias": alias, "alt_aliases": []string{second}})
		// Names of members are told apart by case, and of duplicates the last one counts, as in the event that is made of it.
		for _, wrong := range []string{`{"alias":"#nothing:test.example"}`, `{"alt_aliases":["#nothing:test.example"]}`,
			`{"alias":"#nothing:test.example","Alias":""}`, `{"alias":"","alias":"#nothing:test.example"}`} {
			alice.refused(400, "M_BAD_ALIAS", "PUT", at("rooms", room, "state", "m.room.canonical_alias"), []byte(wrong))
		}
		alice.refused(400, "M_INVALID_PARAM", "PUT", at("rooms", room, "state", "m.room.canonical_alias"), object{"alt_aliases": []string{"nonsense"}})
		alice.refused(400, "M_BAD_JSON", "PUT", at("rooms", room, "state", "m.room.canonical_alias"), object{"alt_aliases": "nonsense"})
		bob.must("DELETE", at("directory", "room", second), nil)
		bob.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", second), nil)
		alice.must("PUT", at("directory", "list", "room", room), object{"visibility": "private"})
		equal(t, "visibility", bob.must("GET", at("directory", "list", "room", room), nil).Get("visibility").Str, "private")
	})
}

func TestPresets(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		for preset, want := range map[string][3]string{
			"private_chat":         {"invite", "shared", "can_join"},
			"trusted_private_chat": {"invite", "shared", "can_join"},
			"public_chat":          {"public", "shared", "forbidden"},
		} {
			for _, version := range []string{"1", "6", "9", "11", "12"} {
				room := alice.createRoom(object{"preset": preset, "room_version": version, "invite": []string{bob.userID}, "is_direct": true,
					"creation_content": object{"m.federate": false}, "initial_state": []object{{"type": "x.test", "content": object{"a": 1}}}})
				state := alice.must("GET", at("rooms", room, "state"), nil)
				equal(t, "join rule", find(state, "m.room.join_rules", "").Get("content.join_rule").Str, want[0])
				equal(t, "visibility", find(state, "m.room.history_visibility", "").Get("content.history_visibility").Str, want[1])
				equal(t, "guest access", find(state, "m.room.guest_access", "").Get("content.guest_access").Str, want[2])
				equal(t, "room version", find(state, "m.room.create", "").Get("content.room_version").Str, version)
				equal(t, "m.federate", find(state, "m.room.create", "").Get("content.m\\.federate").Raw, "false")
				equal(t, "initial state", find(state, "x.test", "").Get("content.a").Int(), 1)
				equal(t, "is_direct", find(state, "m.room.member", bob.userID).Get("content.is_direct").Bool(), true)
				bob.join(room)
				bob.say(room, "hello")
				if preset == "trusted_private_chat" {
					bob.setState(room, "m.room.name", "", object{"name": "by bob"})
				} else {
					bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", room, "state", "m.room.name"), object{"name": "by bob"})
				}
			}
		}
		alice.refused(400, "M_UNSUPPORTED_ROOM_VERSION", "POST", at("createRoom"), object{"room_version": "999"})
		alice.refused(400, "M_INVALID_PARAM", "POST", at("createRoom"), object{"preset": "odd"})
		alice.refused(400, "M_INVALID_ROOM_STATE", "POST", at("createRoom"), object{"initial_state": []object{{"type": "m.room.create", "content": object{}}}})
	})
}
