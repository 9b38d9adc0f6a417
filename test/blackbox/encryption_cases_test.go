package blackbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// counted is how many keys of the client's device are left, as an upload says and as a sync does.
func (c *client) counted() int64 {
	c.t.Helper()
	left := c.must("POST", at("keys", "upload"), object{}).Get("one_time_key_counts." + keyAlgorithm).Int()
	equal(c.t, "the count in sync", c.sync("").Get("device_one_time_keys_count."+keyAlgorithm).Int(), left)
	return left
}

// Claims at the same time never get the same key, and get all.
func TestClaimsAtOnceGetDifferentKeys(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		alice.encrypted(40)
		var mutex sync.Mutex
		times := make(map[string]int)
		var all sync.WaitGroup
		for range 10 {
			claimer := *bob
			all.Go(func() {
				for range 5 {
					key := claimer.claimed(alice.userID, alice.deviceID)
					mutex.Lock()
					times[key]++
					mutex.Unlock()
				}
			})
		}
		all.Wait()
		for key, n := range times {
			if key != "" && n > 1 {
				t.Errorf("%s was given %d times", key, n)
			}
		}
		equal(t, "claims that got nothing", times[""], 10)
		equal(t, "keys that were given", len(times)-1, 40)
		equal(t, "keys that are left", alice.counted(), 0)
	})
}

// A client that has not heard that its keys arrived uploads them again, after somebody has claimed one.
func TestAKeyThatWasGivenIsNotGivenAgain(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		k := alice.encrypted(0)
		upload := object{"one_time_keys": k.oneTimeKeys(2)}
		alice.must("POST", at("keys", "upload"), upload)
		first := bob.claimed(alice.userID, alice.deviceID)
		alice.must("POST", at("keys", "upload"), upload)
		equal(t, "keys that are left", alice.counted(), 1)
		second := bob.claimed(alice.userID, alice.deviceID)
		if first == "" || second == "" || first == second {
			t.Errorf("claims brought %q and %q", first, second)
		}
		alice.must("POST", at("keys", "upload"), upload)
		equal(t, "keys that are left", alice.counted(), 0)
		equal(t, "a third claim", bob.claimed(alice.userID, alice.deviceID), "")
	})
}

// A client that uploads other keys with ids that are taken does so as fast as it can, without end. It changes nothing,
// and nobody waits for it.
func TestRefusedKeysHinderNobody(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		other := alice.login()
		k := alice.encrypted(50)
		before := alice.counted()
		k.made = 0 // the ids come again, and new ones after them
		again := object{"one_time_keys": k.oneTimeKeys(60)}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var refused [10]int
		for i := range refused {
			c := *alice
			all.Go(func() {
				for ctx.Err() == nil {
					c.refused(400, "M_UNKNOWN", "POST", at("keys", "upload"), again)
					refused[i]++
				}
			})
		}
		slowest := time.Duration(0)
		kOther, kBob := other.encrypted(1), bob.encrypted(1)
		for range test.Soak(20, 1000) {
			began := time.Now()
			other.must("POST", at("keys", "upload"), object{"one_time_keys": kOther.oneTimeKeys(1)})
			bob.must("POST", at("keys", "upload"), object{"one_time_keys": kBob.oneTimeKeys(1)})
			bob.sync("")
			slowest = max(slowest, time.Since(began))
		}
		cancel()
		all.Wait()
		if slowest > 5*time.Second {
			t.Errorf("others waited for %v", slowest)
		}
		equal(t, "keys that are left", alice.counted(), before)
		t.Logf("%v refused uploads of a client each; the slowest three requests of others took %v", refused, slowest)
	})
}

// lists is what a sync says of others' devices.
func lists(answer gjson.Result) string {
	all := "changed"
	name := func(list gjson.Result) {
		for _, userID := range userIDs(list) {
			all += " " + userID[1:strings.LastIndex(userID, "-")]
		}
	}
	name(answer.Get("device_lists.changed"))
	all += ", left"
	name(answer.Get("device_lists.left"))
	return all
}

// The last room that two share is left, and joined again: whoever changed their keys meanwhile is fetched again.
func TestTheLastSharedRoomIsLeft(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.publicRoom(), alice.publicRoom() // neither is encrypted
		alice.encrypted(0)
		bob.join(room)
		bob.join(other)
		a, b := alice.now(), bob.now()
		next := func(c *client, since *string) string {
			answer := c.sync(*since)
			*since = answer.Get("next_batch").Str
			return lists(answer)
		}
		bob.must("POST", at("rooms", room, "leave"), object{})
		equal(t, "one room of two is left: alice's", next(alice, &a), "changed, left")
		equal(t, "one room of two is left: bob's", next(bob, &b), "changed, left")
		bob.must("POST", at("rooms", other, "leave"), object{})
		equal(t, "the last room is left: alice's", next(alice, &a), "changed, left bob")
		equal(t, "the last room is left: bob's", next(bob, &b), "changed, left alice")
		alice.login().encrypted(0)
		bob.encrypted(0)
		equal(t, "keys change where nothing is shared: alice's", next(alice, &a), "changed alice, left")
		equal(t, "keys change where nothing is shared: bob's", next(bob, &b), "changed bob, left")
		bob.join(room)
		equal(t, "the room is joined again: alice's", next(alice, &a), "changed bob, left")
		equal(t, "the room is joined again: bob's", next(bob, &b), "changed alice, left")
		keys := bob.must("POST", at("keys", "query"), object{"device_keys": object{alice.userID: []string{}}})
		equal(t, "devices of alice", len(keys.Get("device_keys."+escape(alice.userID)).Map()), 2)
		alice.must("POST", at("rooms", room, "kick"), object{"user_id": bob.userID})
		alice.must("POST", at("rooms", room, "invite"), object{"user_id": bob.userID})
		equal(t, "kicked and invited: alice's", next(alice, &a), "changed, left")
		equal(t, "kicked and invited: bob's", next(bob, &b), "changed, left alice")
	})
}

// A hundred changes of devices at once, of a user in very many rooms: whoever shares one of these hears of all.
func TestManyDevicesOfAUserInManyRoomsChangeAtOnce(t *testing.T) {
	rooms := map[deploy.Kind]int{deploy.MonolithSQLite: test.Soak(200, 500), deploy.MonolithPostgres: test.Soak(50, 500),
		polylith: test.Soak(30, 500)}
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		var friends []*client
		for i := range 10 {
			friends = append(friends, d.user(t, fmt.Sprintf("friend%d", i)))
		}
		for i := range rooms[d.kind] {
			friends[i%len(friends)].join(alice.publicRoom())
		}
		since := make(map[*client]string)
		for _, c := range append(friends, alice) {
			since[c] = c.now()
		}
		var all sync.WaitGroup
		began := time.Now()
		for range 10 {
			device := alice.login()
			all.Go(func() {
				device.encrypted(1)
				for i := range 9 {
					device.must("PUT", at("devices", device.deviceID), object{"display_name": fmt.Sprint("name ", i)})
				}
			})
		}
		all.Wait()
		took := time.Since(began)
		for c, token := range since {
			answer := c.sync(token)
			equal(t, c.localpart, lists(answer), "changed alice, left")
			equal(t, c.localpart+", once more", lists(c.sync(answer.Get("next_batch").Str)), "changed, left")
			keys := c.must("POST", at("keys", "query"), object{"device_keys": object{alice.userID: []string{}}}).
				Get("device_keys." + escape(alice.userID)).Map()
			equal(t, "devices of alice", len(keys), 10)
			for device, k := range keys {
				equal(t, "the name of "+device, k.Get("unsigned.device_display_name").Str, "name 8")
			}
		}
		t.Logf("100 changes in %d rooms took %v", rooms[d.kind], took)
	})
}

// One query of very many users brings all that each of them has.
func TestAQueryOfManyUsersIsComplete(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		alice, asks, want := d.user(t, "alice"), object{}, make(map[string]string)
		for i := range 60 {
			c := d.user(t, fmt.Sprintf("u%d", i))
			asks[c.userID] = []string{}
			if i%3 > 0 {
				c.encrypted(0)
				want[c.userID] = c.deviceID
			}
			if i%3 == 2 {
				c.must("POST", at("keys", "device_signing", "upload"), c.crossSigning().upload())
				want[c.userID] += " signed"
			}
		}
		for i := range 2000 {
			asks[fmt.Sprintf("@nobody%d:test.example", i)] = []string{}
		}
		asks["@a:elsewhere.example"] = []string{}
		answer := alice.must("POST", at("keys", "query"), object{"device_keys": asks})
		got := make(map[string]string)
		for userID, devices := range answer.Get("device_keys").Map() {
			if name := firstKey(devices); name != "" {
				got[userID] = name
			}
		}
		for userID := range answer.Get("master_keys").Map() {
			if answer.Get("self_signing_keys." + escape(userID)).Exists() {
				got[userID] += " signed"
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("of %d users with keys, %d came: %v", len(want), len(got), got)
		}
		equal(t, "failures", strings.Join(slices.Sorted(maps.Keys(answer.Get("failures").Map())), " "), "elsewhere.example")
		if strings.Contains(answer.Raw, "user_signing_keys\":{\"@") {
			t.Error("others' user-signing keys are shown")
		}
	})
}

// What devices ask other users' devices for arrives, as all that they send does.
func TestKeyRequestsReachOtherUsers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		since := bob.now()
		content := object{"action": "request", "request_id": "1", "requesting_device_id": alice.deviceID}
		alice.must("PUT", at("sendToDevice", "m.room_key_request", alice.txn()),
			object{"messages": object{bob.userID: object{"*": content}}})
		event := bob.sync(since).Get("to_device.events.0")
		equal(t, "type", event.Get("type").Str, "m.room_key_request")
		equal(t, "sender", event.Get("sender").Str, alice.userID)
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "content", ordered(event.Get("content")), string(text))
	})
}

// Who is suspended sends nothing encrypted either, and who is deactivated has no devices left for others.
func TestSuspendedAndDeactivatedUsersInEncryptedRooms(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		admin, alice, bob := d.admin(t), d.user(t, "alice"), d.user(t, "bob")
		room := alice.createRoom(object{"preset": "public_chat", "initial_state": []object{{"type": "m.room.encryption",
			"state_key": "", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}}}})
		bob.join(room)
		bob.encrypted(1)
		content := object{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "x"}
		bob.send(room, "m.room.encrypted", content)
		admin.must("PUT", v1("admin", "suspend", bob.userID), object{"suspended": true})
		bob.everywhere(403, "M_USER_SUSPENDED", "POST", at("createRoom"), object{})
		bob.refused(403, "M_USER_SUSPENDED", "PUT", at("rooms", room, "send", "m.room.encrypted", bob.txn()), content)
		admin.must("PUT", v1("admin", "suspend", bob.userID), object{"suspended": false})
		since := alice.now()
		if a := bob.call("POST", at("account", "deactivate"), object{"auth": bob.auth("")}); a.status != http.StatusOK {
			session := a.body.Get("session").Str
			bob.must("POST", at("account", "deactivate"), object{"auth": bob.auth(session)})
		}
		bob.refused(401, "M_UNKNOWN_TOKEN", "PUT", at("rooms", room, "send", "m.room.encrypted", bob.txn()), content)
		deadline := time.Now().Add(longest)
		for gone := false; !gone; { // they leave their rooms after the answer
			answer := alice.sync(since, "timeout", "1000")
			gone = slices.Contains(userIDs(answer.Get("device_lists.left")), bob.userID)
			if time.Now().After(deadline) {
				t.Fatalf("a deactivated user is not in left: %s", answer.Get("device_lists").Raw)
			}
		}
		query := alice.must("POST", at("keys", "query"), object{"device_keys": object{bob.userID: []string{}}})
		equal(t, "devices of who is deactivated", len(query.Get("device_keys."+escape(bob.userID)).Map()), 0)
		equal(t, "a key of who is deactivated", alice.claimed(bob.userID, bob.deviceID), "")
		messages := object{bob.userID: object{"*": object{}}}
		alice.must("PUT", at("sendToDevice", "m.x", alice.txn()), object{"messages": messages})
	})
}
