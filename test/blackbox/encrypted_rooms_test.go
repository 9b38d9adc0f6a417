package blackbox

import (
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

const megolm = "m.megolm.v1.aes-sha2"

// encryption is what makes a room encrypted.
func encryption() object {
	return object{"type": "m.room.encryption",
		"content": object{"algorithm": megolm, "rotation_period_ms": 604800000, "rotation_period_msgs": 100}}
}

// encryptedRoom is a room that is encrypted from its beginning.
func (c *client) encryptedRoom(more object) string {
	c.t.Helper()
	request := object{"preset": "public_chat", "initial_state": []object{encryption()}}
	for key, value := range more {
		request[key] = value
	}
	return c.createRoom(request)
}

// encrypted is the content of an event that the server cannot read. members are what it has in clear.
func encrypted(members ...any) object {
	content := object{"algorithm": megolm, "sender_key": "key", "device_id": "DEVICE", "session_id": "session",
		"ciphertext": "AwgAEnACgAkLmt6qF84IK"}
	for i := 0; i < len(members); i += 2 {
		content[members[i].(string)] = members[i+1]
	}
	return content
}

func (c *client) encrypt(room string, members ...any) string {
	c.t.Helper()
	return c.send(room, "m.room.encrypted", encrypted(members...))
}

// seenEverywhere waits until each replica knows of what the client has set.
func (c *client) seenEverywhere() {
	c.t.Helper()
	since := c.now()
	for _, base := range c.d.urls {
		asked := *c
		asked.base = base
		asked.sync(since)
	}
}

// upgrade replaces a room by one of version 12.
func (c *client) upgrade(room string) string {
	c.t.Helper()
	return c.must("POST", at("rooms", room, "upgrade"), object{"new_version": "12"}).Get("replacement_room").Str
}

func relatesTo(relType, event string) object { return object{"rel_type": relType, "event_id": event} }

// What the server cannot read counts as one notification each, of a thread where the clear text says so; what rules can
// decide by the clear text, they do.
func TestEncryptedEventsCount(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.encryptedRoom(nil)
		bob.join(room)
		member := func(rule string, change string, body object) *client {
			c := d.user(t, "bob")
			c.join(room)
			c.must("PUT", at("pushrules", "global", "underride", rule, change), body)
			return c
		}
		pair := alice.encryptedRoom(nil)
		bob.join(pair)
		alice.encrypt(pair)
		equal(t, "in a room of two", bob.counts(pair), [2]int64{1, 0})
		bob.must("PUT", at("pushrules", "global", "underride", ".m.rule.encrypted_room_one_to_one", "actions"),
			object{"actions": []string{}})
		bob.seenEverywhere()
		alice.encrypt(pair)
		equal(t, "in a room of two, without the rule for these", bob.counts(pair), [2]int64{1, 0})
		quiet := member(".m.rule.encrypted", "enabled", object{"enabled": false})
		loud := member(".m.rule.encrypted", "actions",
			object{"actions": []any{"notify", object{"set_tweak": "highlight"}}})
		loud.seenEverywhere()
		check := func(what string, main, thread [2]int64, root string) {
			t.Helper()
			r := roomIn(bob.sync("", timelineOf(object{"unread_thread_notifications": true})...), "join", room)
			equal(t, what, countsIn(r), main)
			of := r.Get("unread_thread_notifications." + escape(root))
			equal(t, what+", in the thread",
				[2]int64{of.Get("notification_count").Int(), of.Get("highlight_count").Int()}, thread)
		}
		root := alice.encrypt(room)
		check("a message", [2]int64{1, 0}, [2]int64{}, root)
		reply := alice.encrypt(room, "m.relates_to", relatesTo("m.thread", root))
		check("a reply in a thread", [2]int64{1, 0}, [2]int64{1, 0}, root)
		alice.encrypt(room, "m.relates_to", relatesTo("m.replace", root))
		check("an edit", [2]int64{1, 0}, [2]int64{1, 0}, root)
		slip := alice.encrypt(room)
		alice.redact(room, slip)
		check("what is redacted", [2]int64{1, 0}, [2]int64{1, 0}, root)
		alice.encrypt(room, "m.mentions", object{"user_ids": []string{bob.userID}})
		check("a mention in clear", [2]int64{2, 1}, [2]int64{1, 0}, root)
		equal(t, "without the rule", quiet.counts(room), [2]int64{})
		equal(t, "with another rule", loud.counts(room), [2]int64{3, 3}) // all but the edit and what is redacted
		equal(t, "one's own", alice.counts(room), [2]int64{})
		bob.read(room, "m.read", reply, root)
		check("the thread is read", [2]int64{2, 1}, [2]int64{}, root)
		bob.read(room, "m.read", alice.encrypt(room))
		check("all is read", [2]int64{}, [2]int64{}, root)
		bob.must("PUT", at("pushrules", "global", "room", room), object{"actions": []string{}})
		alice.encrypt(room)
		check("a muted room", [2]int64{}, [2]int64{}, root)
	})
}

// A pusher hears of encrypted events, at once, and gets what the server has of them.
func TestEncryptedEventsArePushed(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		g := newGateway(t)
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.encryptedRoom(nil)
		bob.join(room)
		carol.join(room)
		bob.setPusher(pusher(g, "whole"))
		n := g.next(t, alice.encrypt(room))
		for path, want := range map[string]string{"type": "m.room.encrypted", "prio": "high", "counts.unread": "1",
			"content.ciphertext": "AwgAEnACgAkLmt6qF84IK", "devices.0.tweaks.sound": ""} {
			equal(t, path, n.Get(path).String(), want)
		}
		bob.setPusher(pusher(g, "whole", "kind", nil))
		carol.setPusher(pusher(g, "id", "data", object{"url": g.url, "format": "event_id_only"}))
		// Bob's pusher may still tell of what comes while it goes.
		for n = g.next(t, alice.encrypt(room)); n.Get("devices.0.pushkey").Str != "id"; {
			n = g.next(t, "")
		}
		equal(t, "prio", n.Get("prio").Str, "high")
		for _, field := range []string{"type", "sender", "content", "room_name", "sender_display_name"} {
			if n.Get(field).Exists() {
				t.Errorf("event_id_only has %s", field)
			}
		}
		alice.encrypt(room, "m.relates_to", relatesTo("m.replace", alice.encrypt(room)))
		last := alice.encrypt(room)
		var events []string
		for !slices.Contains(events, last) {
			if n = g.next(t, ""); n.Get("devices.0.pushkey").Str == "id" {
				events = append(events, n.Get("event_id").Str)
			}
		}
		equal(t, "how many were pushed, an edit not among them", len(events), 2)
	})
}

// Whoever is invited, knocks or looks for a room, learns that it is encrypted; and nobody is there before it is.
func TestARoomIsEncryptedFromItsBeginning(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		for _, preset := range []string{"private_chat", "trusted_private_chat", "public_chat"} {
			room := alice.encryptedRoom(object{"preset": preset, "invite": []string{bob.userID}})
			timeline := roomIn(alice.sync(""), "join", room).Get("timeline.events").Array()
			place := func(eventType, key string) int {
				return slices.IndexFunc(timeline, func(e gjson.Result) bool {
					return e.Get("type").Str == eventType && e.Get("state_key").Str == key
				})
			}
			if is, invite := place("m.room.encryption", ""), place("m.room.member", bob.userID); is < 0 || is > invite {
				t.Errorf("%s: the room is encrypted by event %d, and bob invited by event %d", preset, is, invite)
			}
			invited := roomIn(bob.sync(""), "invite", room)
			stripped := find(invited.Get("invite_state.events"), "m.room.encryption", "")
			equal(t, preset+": the algorithm for who is invited", stripped.Get("content.algorithm").Str, megolm)
		}
		open := alice.encryptedRoom(object{"visibility": "public", "initial_state": []object{encryption(),
			{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
		carol.must("POST", at("knock", open), object{})
		stripped := find(roomIn(carol.sync(""), "knock", open).Get("knock_state.events"), "m.room.encryption", "")
		equal(t, "the algorithm for who knocks", stripped.Get("content.algorithm").Str, megolm)
		equal(t, "in the summary", carol.must("GET", v1("room_summary", open), nil).Get("encryption").Str, megolm)
		// The clients see to it that a room stays encrypted; the server keeps to who may change its state.
		bob.join(alice.encryptedRoom(nil))
		public := alice.encryptedRoom(nil)
		bob.join(public)
		bob.refused(403, "M_FORBIDDEN", "PUT", at("rooms", public, "state", "m.room.encryption", ""),
			object{"algorithm": "x"})
		equal(t, "a moderator's level is not enough", alice.state(public, "m.room.power_levels", "").
			Get(`events.m\.room\.encryption`).Int(), 100)
	})
}

// The room that replaces an encrypted one is encrypted in the same way, before anybody can say anything there.
func TestAnEncryptedRoomIsUpgraded(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		for _, version := range []string{"6", "11", "12"} {
			old := alice.encryptedRoom(object{"room_version": version, "preset": "private_chat",
				"invite": []string{bob.userID}})
			bob.join(old)
			want := alice.state(old, "m.room.encryption", "").Raw
			made := alice.upgrade(old)
			equal(t, "m.room.encryption", alice.state(made, "m.room.encryption", "").Raw, want)
			events := alice.must("GET", at("rooms", made, "messages")+"?dir=f&limit=100", nil).Get("chunk").Array()
			for _, e := range events {
				if !e.Get("state_key").Exists() {
					t.Errorf("an event before the encryption: %s", e.Raw)
				}
				if e.Get("type").Str == "m.room.encryption" {
					break
				}
			}
			// A plain room stays one.
			plain := alice.createRoom(object{"room_version": version})
			made = alice.upgrade(plain)
			alice.refused(404, "M_NOT_FOUND", "GET", at("rooms", made, "state", "m.room.encryption", ""), nil)
		}
	})
}

// Relations are in clear, so encrypted events are bundled as others are (§ Aggregations of child events).
func TestEncryptedEventsAreBundled(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.encryptedRoom(nil)
		bob.join(room)
		root := alice.encrypt(room)
		first := bob.encrypt(room, "m.relates_to", relatesTo("m.thread", root))
		last := alice.encrypt(room, "m.relates_to", relatesTo("m.thread", root))
		edit := alice.encrypt(room, "m.relates_to", relatesTo("m.replace", root))
		quote := bob.encrypt(room, "m.relates_to", relatesTo("m.reference", root))
		reaction := bob.relate(room, "m.reaction", "m.annotation", root, object{"key": "+"})
		// These replace nothing: another's, another type, a state event.
		bob.encrypt(room, "m.relates_to", relatesTo("m.replace", root))
		alice.edit(room, root, "x")
		for name, e := range bob.ways(room, root) {
			r := e.Get(`unsigned.m\.relations`)
			equal(t, name+": edit", r.Get(`m\.replace.event_id`).Str, edit)
			equal(t, name+": type of the edit", r.Get(`m\.replace.type`).Str, "m.room.encrypted")
			equal(t, name+": ciphertext of the edit", r.Get(`m\.replace.content.ciphertext`).Exists(), true)
			equal(t, name+": latest of the thread", r.Get(`m\.thread.latest_event.event_id`).Str, last)
			equal(t, name+": count", r.Get(`m\.thread.count`).Int(), 2)
			equal(t, name+": participated", r.Get(`m\.thread.current_user_participated`).Bool(), true)
			same(t, name+": references", ids(r.Get(`m\.reference.chunk`)), []string{quote})
			equal(t, name+": annotations", r.Get(`m\.annotation`).Exists(), false)
		}
		of := v1("rooms", room, "relations", root)
		list := func(path string) []string { return ids(bob.must("GET", path, nil).Get("chunk")) }
		same(t, "of the type of encrypted events", list(of+"/m.thread/m.room.encrypted"), []string{last, first})
		same(t, "of a type within", list(of+"/m.thread/m.room.message"), nil)
		same(t, "reactions", list(of+"/m.annotation/m.reaction"), []string{reaction})
		same(t, "threads", list(v1("rooms", room, "threads")+"?include=participated"), []string{root})
		// What is redacted is neither legible nor related any more.
		alice.redact(room, last)
		got := bob.must("GET", at("rooms", room, "event", last), nil)
		equal(t, "content of a redacted event", got.Get("content").Raw, "{}")
		r := bob.must("GET", at("rooms", room, "event", root), nil).Get(`unsigned.m\.relations`)
		equal(t, "latest after a redaction", r.Get(`m\.thread.latest_event.event_id`).Str, first)
		equal(t, "count after a redaction", r.Get(`m\.thread.count`).Int(), 1)
	})
}

// What clients keep for secret storage is account data as any other, and is taken back by an empty object.
func TestSecretsInAccountData(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		phone := alice.login()
		secret := object{"encrypted": object{"key": object{"iv": "16+bytes", "ciphertext": "secret", "mac": "mac"}}}
		all := map[string]object{
			"m.secret_storage.key.key": {"algorithm": "m.secret_storage.v1.aes-hmac-sha2", "name": "m.default",
				"iv": "16+bytes", "mac": "mac",
				"passphrase": object{"algorithm": "m.pbkdf2", "salt": "salt", "iterations": 500000, "bits": 256}},
			"m.secret_storage.default_key": {"key": "key"}, "m.cross_signing.master": secret,
			"m.cross_signing.self_signing": secret, "m.cross_signing.user_signing": secret,
			"m.megolm_backup.v1": secret, "org.matrix.msc3814": secret,
			"m.key_backup": {"enabled": true}, "m.org.matrix.custom.backup_disabled": {"disabled": false},
		}
		since := phone.now()
		for name, content := range all {
			alice.must("PUT", at("user", alice.userID, "account_data", name), content)
		}
		for _, token := range []string{"", since} {
			events := phone.sync(token).Get("account_data.events")
			for name := range all {
				got := phone.must("GET", at("user", alice.userID, "account_data", name), nil)
				equal(t, name+" in a sync", find(events, name, "").Get("content").Raw, got.Raw)
			}
		}
		since = phone.now()
		for name := range all {
			path := at("user", alice.userID, "account_data", name)
			bob.refused(403, "M_FORBIDDEN", "GET", path, nil)
			bob.refused(403, "M_FORBIDDEN", "PUT", path, object{})
			alice.refused(400, "M_BAD_JSON", "PUT", path, []byte("null"))
			alice.refused(405, "M_UNRECOGNIZED", "DELETE", path, nil)
			alice.must("PUT", path, object{})
			equal(t, name+" that is taken back", phone.must("GET", path, nil).Raw, "{}")
		}
		events := phone.sync(since).Get("account_data.events")
		for name := range all {
			equal(t, name+" that is taken back, in a sync", find(events, name, "").Get("content").Raw, "{}")
		}
	})
}

// Clients tell by these what they may use.
func TestWhatClientsLookFor(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		const unstable = "/_matrix/client/unstable"
		features := alice.must("GET", "/_matrix/client/versions", nil).Get("unstable_features")
		for name, works := range map[string]func(){
			"org.matrix.e2e_cross_signing": func() {
				alice.must("POST", at("keys", "query"), object{"device_keys": object{alice.userID: []string{}}})
			},
			"org.matrix.msc3814": func() {
				alice.refused(404, "M_NOT_FOUND", "GET", unstable+"/org.matrix.msc3814.v1/dehydrated_device", nil)
			},
			"org.matrix.msc3827.stable": func() {
				alice.must("POST", at("publicRooms"), object{"filter": object{"room_types": []any{"m.space"}}})
			},
			"org.matrix.msc4140": func() {
				room := alice.publicRoom()
				path := at("rooms", room, "send", "m.room.message", alice.txn())
				alice.must("PUT", delaying(path, time.Hour), text("x"))
			},
			"uk.half-shot.msc2666.query_mutual_rooms": func() {
				room := alice.publicRoom()
				bob.join(room)
				path := unstable + "/uk.half-shot.msc2666/user/mutual_rooms?user_id=" + bob.userID
				same(t, "mutual rooms", texts(alice.must("GET", path, nil).Get("joined")), []string{room})
				alice.refused(400, "M_INVALID_PARAM", "GET", path+"&batch_token=x", nil)
			},
			"uk.tcpip.msc4133": func() {
				path := unstable + "/uk.tcpip.msc4133/profile/" + alice.userID
				alice.must("PUT", path+"/m.tz", object{"m.tz": "UTC"})
				equal(t, "the field", bob.must("GET", path+"/m.tz", nil).Get(`m\.tz`).Str, "UTC")
				equal(t, "the profile", bob.must("GET", path, nil).Get(`m\.tz`).Str, "UTC")
				alice.must("DELETE", path+"/m.tz", nil)
				alice.refused(404, "M_NOT_FOUND", "GET", path+"/m.tz", nil)
				bob.refused(403, "M_FORBIDDEN", "PUT", path+"/m.tz", object{"m.tz": "UTC"})
			},
			"uk.tcpip.msc4133.stable": func() { alice.must("GET", at("profile", alice.userID), nil) },
		} {
			if !features.Get(escape(name)).Bool() {
				t.Errorf("%s is not among %s", name, features.Raw)
			}
			works()
		}
		// Some refuse a list of devices where one has no name.
		device := alice.must("GET", at("devices"), nil).Get("devices.0")
		for _, member := range []string{"device_id", "display_name", "last_seen_ip", "last_seen_ts"} {
			equal(t, "devices have "+member, device.Get(member).Exists(), true)
		}
	})
}

// texts lists strings.
func texts(list gjson.Result) []string {
	var all []string
	for _, one := range list.Array() {
		all = append(all, one.Str)
	}
	return all
}
