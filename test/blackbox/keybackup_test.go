package blackbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/keytest"
)

const megolmBackup = keytest.Backup

// backsUp begins a backup and returns its version.
func (c *client) backsUp() string {
	c.t.Helper()
	return c.must("POST", at("room_keys", "version"), object{"algorithm": megolmBackup,
		"auth_data": object{"public_key": "abc"}}).Get("version").Str
}

// keysAt is the path of keys of a backup: of all rooms, a room, or a session.
func keysAt(version string, segments ...string) string {
	return at(append([]string{"room_keys", "keys"}, segments...)...) + "?version=" + url.QueryEscape(version)
}

// sessionKey is a key as a client backs it up.
func sessionKey(verified bool, index, forwarded int, data string) object {
	return object{"first_message_index": index, "forwarded_count": forwarded, "is_verified": verified,
		"session_data": object{"ciphertext": data}}
}

// state is what a backup says of its keys.
func (c *client) backupState(version string) (count int64, etag string) {
	c.t.Helper()
	info := c.must("GET", at("room_keys", "version", version), nil)
	return info.Get("count").Int(), info.Get("etag").Str
}

func TestAKeyBackupHasVersions(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version"), nil)
		alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version", "1"), nil)
		alice.refused(404, "M_NOT_FOUND", "DELETE", at("room_keys", "version", "1"), nil)
		alice.refused(404, "M_NOT_FOUND", "PUT", keysAt("1"), object{"rooms": object{}})
		bobs := bob.backsUp()
		first := alice.backsUp()
		second := alice.backsUp()
		info := alice.must("GET", at("room_keys", "version"), nil)
		equal(t, "the newest", info.Get("version").Str, second)
		equal(t, "its algorithm", info.Get("algorithm").Str, megolmBackup)
		equal(t, "its auth_data", info.Get("auth_data").Raw, `{"public_key":"abc"}`)
		equal(t, "its count", info.Get("count").Raw, "0")
		equal(t, "the type of its etag", info.Get("etag").Type, gjson.String)
		equal(t, "the old one", alice.must("GET", at("room_keys", "version", first), nil).Get("version").Str, first)

		// auth_data can change, and nothing else.
		path := at("room_keys", "version", first)
		put := func(algorithm, version string) object {
			return object{"algorithm": algorithm, "auth_data": object{"public_key": "new"}, "version": version}
		}
		alice.refused(400, "M_INVALID_PARAM", "PUT", path, put("m.other", first))
		alice.refused(400, "M_INVALID_PARAM", "PUT", path, put(megolmBackup, second))
		alice.refused(404, "M_NOT_FOUND", "PUT", at("room_keys", "version", "99"), put(megolmBackup, "99"))
		equal(t, "auth_data", alice.must("GET", path, nil).Get("auth_data.public_key").Str, "abc")
		alice.must("PUT", path, put(megolmBackup, first))
		equal(t, "auth_data", alice.must("GET", path, nil).Get("auth_data.public_key").Str, "new")
		alice.must("PUT", path, object{"algorithm": megolmBackup, "auth_data": object{"public_key": "newer"}, "version": nil})
		equal(t, "auth_data", alice.must("GET", path, nil).Get("auth_data.public_key").Str, "newer")

		// Keys go into the newest only.
		wrong := alice.refused(403, "M_WRONG_ROOM_KEYS_VERSION", "PUT", keysAt(first), object{"rooms": object{}})
		equal(t, "current_version", wrong.body.Get("current_version").Str, second)
		for _, none := range []string{"99", "x", "01", "-1", "0", "9223372036854775808"} {
			wrong = alice.refused(403, "M_WRONG_ROOM_KEYS_VERSION", "PUT", keysAt(none, "!r:x", "s"), sessionKey(true, 0, 0, ""))
			equal(t, "current_version", wrong.body.Get("current_version").Str, second)
			alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version", none), nil)
			alice.refused(404, "M_NOT_FOUND", "DELETE", at("room_keys", "version", none), nil)
			for _, of := range [][]string{nil, {"!r:x"}, {"!r:x", "s"}} {
				alice.refused(404, "M_NOT_FOUND", "GET", keysAt(none, of...), nil)
				alice.refused(404, "M_NOT_FOUND", "DELETE", keysAt(none, of...), nil)
			}
		}

		// Deleting shows the one before, until there is none. No version comes again.
		alice.must("PUT", keysAt(second, "!r:x", "s"), sessionKey(true, 0, 0, ""))
		for want := range 2 {
			now := alice.must("GET", at("room_keys", "version"), nil).Get("version").Str
			equal(t, "the newest", now, []string{second, first}[want])
			alice.must("DELETE", at("room_keys", "version", now), nil)
			alice.must("DELETE", at("room_keys", "version", now), nil)
			alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version", now), nil)
			alice.refused(404, "M_NOT_FOUND", "GET", keysAt(now), nil)
		}
		alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version"), nil)
		alice.refused(404, "M_NOT_FOUND", "PUT", keysAt(second), object{"rooms": object{}})
		third := alice.backsUp()
		if third == first || third == second {
			t.Errorf("version %s comes again", third)
		}
		equal(t, "what the new one has", alice.must("GET", keysAt(third), nil).Raw, `{"rooms":{}}`)
		bob.must("GET", at("room_keys", "version", bobs), nil) // nobody else's has changed
	})
}

func TestKeysAreBackedUpAndRestored(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		old := alice.backsUp()
		alice.must("PUT", keysAt(old, "!old:x", "s"), sessionKey(true, 0, 0, "old"))
		version := alice.backsUp()
		changes := 0
		etag := "0"
		changed := func(a gjson.Result, count int64, does bool) {
			t.Helper()
			changes++
			if a.Get("count").Int() != count || a.Get("etag").Type != gjson.String || (a.Get("etag").Str != etag) != does {
				t.Errorf("change %d: %s; before, the etag was %s", changes, a.Raw, etag)
			}
			etag = a.Get("etag").Str
			if n, e := alice.backupState(version); n != count || e != etag {
				t.Errorf("after change %d: %d %s", changes, n, e)
			}
		}
		odd := `a/b "ü" %`
		changed(alice.must("PUT", keysAt(version, "!a:x", odd), sessionKey(false, 5, 1, "1")), 1, true)
		changed(alice.must("PUT", keysAt(version, "!a:x", odd), sessionKey(false, 5, 1, "same")), 1, false)
		changed(alice.must("PUT", keysAt(version, "!a:x", odd), sessionKey(false, 6, 0, "worse")), 1, false)
		changed(alice.must("PUT", keysAt(version, "!a:x"), object{"sessions": object{odd: sessionKey(false, 4, 9, "better"),
			"s2": sessionKey(true, 0, 0, "2")}}), 2, true)
		changed(alice.must("PUT", keysAt(version), object{"rooms": object{
			"!a:x": object{"sessions": object{odd: sessionKey(false, 4, 9, "same"), "s2": sessionKey(false, 0, 0, "worse")}},
			"!b":   object{"sessions": object{"s3": sessionKey(false, 0, 0, "3")}},
			"!c:x": object{"sessions": object{}}}}), 3, true)
		changed(alice.must("PUT", keysAt(version), object{"rooms": object{}}), 3, false)

		one := alice.must("GET", keysAt(version, "!a:x", odd), nil)
		equal(t, "a key", one.Raw,
			`{"first_message_index":4,"forwarded_count":9,"is_verified":false,"session_data":{"ciphertext":"better"}}`)
		inRoom := alice.must("GET", keysAt(version, "!a:x"), nil)
		equal(t, "keys of a room", len(inRoom.Get("sessions").Map()), 2)
		equal(t, "one of them", inRoom.Get("sessions").Map()[odd].Raw, one.Raw)
		equal(t, "keys of an unknown room", alice.must("GET", keysAt(version, "!none:x"), nil).Raw, `{"sessions":{}}`)
		all := alice.must("GET", keysAt(version), nil).Get("rooms").Map()
		equal(t, "rooms", len(all), 2)
		equal(t, "a room of all", all["!a:x"].Raw, inRoom.Raw)
		equal(t, "another", all["!b"].Get("sessions.s3.session_data.ciphertext").Str, "3")
		alice.refused(404, "M_NOT_FOUND", "GET", keysAt(version, "!a:x", "none"), nil)
		equal(t, "the old version",
			alice.must("GET", keysAt(old, "!old:x", "s"), nil).Get("session_data.ciphertext").Str, "old")

		// Another device restores; another user does not.
		equal(t, "another device", alice.login().must("GET", keysAt(version), nil).Get("rooms").Map()["!a:x"].Raw, inRoom.Raw)
		bob := d.user(t, "bob")
		bob.backsUp()
		bob.backsUp()
		equal(t, "another user", bob.must("GET", keysAt(version), nil).Raw, `{"rooms":{}}`)

		changed(alice.must("DELETE", keysAt(version, "!a:x", "none"), nil), 3, false)
		changed(alice.must("DELETE", keysAt(version, "!a:x", odd), nil), 2, true)
		changed(alice.must("DELETE", keysAt(version, "!a:x"), nil), 1, true)
		changed(alice.must("DELETE", keysAt(version, "!a:x"), nil), 1, false)
		changed(alice.must("DELETE", keysAt(version), nil), 0, true)
		changed(alice.must("DELETE", keysAt(version), nil), 0, false)
		equal(t, "what is left", alice.must("GET", keysAt(version), nil).Raw, `{"rooms":{}}`)
		changed(alice.must("PUT", keysAt(version, "!a:x", odd), sessionKey(false, 9, 9, "worse than what is gone")), 1, true)
		equal(t, "keys of an old version that are deleted", alice.must("DELETE", keysAt(old), nil).Get("count").Int(), 0)
	})
}

func TestBadKeysChangeNothing(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		version := alice.backsUp()
		alice.must("PUT", keysAt(version, "!a:x", "s"), sessionKey(false, 5, 5, "1"))
		all := func() string {
			t.Helper()
			return alice.must("GET", at("room_keys", "version"), nil).Raw + alice.must("GET", keysAt(version), nil).Raw
		}
		before := all()
		deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
		good := `"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{}`
		bad := map[string]string{"an empty object": `{}`, "null": `null`, "a list": `[]`,
			"a deep object": `{` + good + `,"a":` + deep + `}`}
		for member, values := range map[string][]string{
			"first_message_index": {"null", "-1", `"1"`, "1.5", "9007199254740992", "1e400",
				"123456789012345678901234567890", "{}", "true"},
			"forwarded_count": {"null", "-1", `"1"`, "1.5", "9007199254740992", "[]"},
			"is_verified":     {"null", "1", `"true"`, "{}"},
			"session_data":    {"null", "1", `"x"`, "[]"},
		} {
			for _, value := range values {
				bad[member+" "+value] = `{` + strings.Replace(good, `"`+member+`":`, `"`+member+`":`+value+`,"x":`, 1) + `}`
			}
			bad["no "+member] = `{` + strings.Replace(good, member, "x", 1) + `}`
		}
		better := `"s":{` + good + `},`
		for name, body := range bad {
			for path, text := range map[string]string{
				keysAt(version, "!a:x", "s"): body,
				keysAt(version, "!a:x"):      `{"sessions":{` + better + `"t":` + body + `}}`,
				keysAt(version):              `{"rooms":{"!a:x":{"sessions":{` + better + `"t":` + body + `}}}}`,
			} {
				if a := alice.call("PUT", path, []byte(text)); a.status != 400 || a.errcode() != "M_BAD_JSON" {
					t.Errorf("%s: %s: %d %s", path, name, a.status, a.body.Raw)
				}
			}
		}
		alice.refused(400, "M_MISSING_PARAM", "PUT", keysAt(version), object{})
		alice.refused(400, "M_MISSING_PARAM", "PUT", keysAt(version, "!a:x"), object{})
		for _, body := range []string{`{}`, `{"algorithm":"m.x"}`, `{"auth_data":{}}`} {
			alice.refused(400, "M_MISSING_PARAM", "POST", at("room_keys", "version"), []byte(body))
			alice.refused(400, "M_MISSING_PARAM", "PUT", at("room_keys", "version", version), []byte(body))
		}
		for _, body := range []string{`{"rooms":null}`, `{"rooms":[]}`, `{"rooms":{"!a:x":null}}`, `{"rooms":{"!a:x":{}}}`,
			`{"rooms":{"!a:x":{"sessions":null}}}`, `{"rooms":{"#a:x":{"sessions":{}}}}`,
			`{"rooms":{"!\u0000":{"sessions":{}}}}`} {
			alice.refused(400, "M_BAD_JSON", "PUT", keysAt(version), []byte(body))
		}
		for _, body := range []string{`{"sessions":null}`, `{"sessions":[]}`, `{"sessions":"x"}`} {
			alice.refused(400, "M_BAD_JSON", "PUT", keysAt(version, "!a:x"), []byte(body))
		}
		for _, session := range []string{"", `\u0000`, strings.Repeat("s", 256)} {
			alice.refused(400, "M_INVALID_PARAM", "PUT", keysAt(version, "!a:x"),
				[]byte(`{"sessions":{`+better+`"`+session+`":{`+good+`}}}`))
		}
		for _, size := range []int{20_000, 2 << 20} {
			alice.refused(413, "M_TOO_LARGE", "PUT", keysAt(version, "!a:x", "s"),
				sessionKey(true, 0, 0, strings.Repeat("x", size)))
		}
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			var body any
			if method == "PUT" {
				body = []byte(`{` + good + `,"sessions":{},"rooms":{}}`)
			}
			for _, of := range [][]string{nil, {"!a:x"}, {"!a:x", "s"}} {
				path, _, _ := strings.Cut(keysAt("", of...), "?")
				alice.refused(400, "M_MISSING_PARAM", method, path, body)
				alice.refused(400, "M_INVALID_PARAM", method, path+"?version=%00", body)
			}
			alice.refused(400, "M_INVALID_PARAM", method, keysAt(version, "a:x", "s"), body)
		}
		for _, body := range []string{`{"algorithm":"m.x","auth_data":null}`, `{"algorithm":"m.x","auth_data":[]}`,
			`{"algorithm":null,"auth_data":{}}`, `{"algorithm":1,"auth_data":{}}`,
			`{"algorithm":"m.x","auth_data":` + deep + `}`} {
			alice.refused(400, "M_BAD_JSON", "POST", at("room_keys", "version"), []byte(body))
			alice.refused(400, "M_BAD_JSON", "PUT", at("room_keys", "version", version), []byte(body))
		}
		for _, algorithm := range []string{"", strings.Repeat("x", 256), "\x00"} {
			body := object{"algorithm": algorithm, "auth_data": object{}}
			alice.refused(400, "M_INVALID_PARAM", "POST", at("room_keys", "version"), body)
			alice.refused(400, "M_INVALID_PARAM", "PUT", at("room_keys", "version", version), body)
		}
		alice.refused(413, "M_TOO_LARGE", "POST", at("room_keys", "version"),
			object{"algorithm": megolmBackup, "auth_data": object{"a": strings.Repeat("x", 70_000)}})
		if after := all(); after != before {
			t.Errorf("refused requests changed something:\n%s\n%s", before, after)
		}
		// What is odd in data that nobody but clients read is kept.
		odd := `{"a":"\u0000 \ud800 <&>","b":[1.5,null,1e400],"ü":{}}`
		alice.must("PUT", keysAt(version, "!a:x", "odd"), []byte(`{`+strings.Replace(good, "{}", odd, 1)+`}`))
		equal(t, "odd data", alice.must("GET", keysAt(version, "!a:x", "odd"), nil).Get("session_data").Raw, odd)
	})
}

// backedUp is a key of the model.
type backedUp struct {
	verified         bool
	index, forwarded int
	data             string
}

func (k backedUp) betterThan(other backedUp) bool {
	switch {
	case k.verified != other.verified:
		return k.verified
	case k.index != other.index:
		return k.index < other.index
	}
	return k.forwarded < other.forwarded
}

// Many writers put keys of the same sessions, on all replicas. In the end the best of each session is there, and no
// other; the count is exact; and the etag has changed with each answer that says so.
func TestWritersWhoRaceEndWithTheBetterKeys(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		const writers, rooms, sessions = 6, 3, 15
		for range test.Soak(1, 50) {
			chance := rand.New(rand.NewPCG(test.Seed(t), 0))
			alice := d.user(t, "alice")
			version := alice.backsUp()
			model := make(map[[2]string]backedUp) // rooms and sessions
			plans := make([][]map[[2]string]backedUp, writers)
			for w := range plans {
				for step := range 12 {
					batch := make(map[[2]string]backedUp)
					for range 1 + chance.IntN(20) {
						of := [2]string{fmt.Sprintf("!%d:x", chance.IntN(rooms)), fmt.Sprint("s", chance.IntN(sessions))}
						k := backedUp{chance.IntN(3) == 0, chance.IntN(4), chance.IntN(3), ""}
						k.data = fmt.Sprintf("%d in %d of %d", len(batch), step, w)
						batch[of] = k
					}
					for of, k := range batch {
						if had, has := model[of]; !has || k.betterThan(had) {
							model[of] = k
						}
					}
					plans[w] = append(plans[w], batch)
				}
			}
			var group sync.WaitGroup
			var mu sync.Mutex
			etags := map[string]int64{"0": 0} // with their counts
			for _, plan := range plans {
				writer := *alice // each its own
				group.Go(func() {
					for _, batch := range plan {
						of := make(object)
						for at, k := range batch {
							if of[at[0]] == nil {
								of[at[0]] = object{"sessions": make(object)}
							}
							of[at[0]].(object)["sessions"].(object)[at[1]] = sessionKey(k.verified, k.index, k.forwarded, k.data)
						}
						a := writer.call("PUT", keysAt(version), object{"rooms": of})
						etag, count := a.body.Get("etag").Str, a.body.Get("count").Int()
						mu.Lock()
						if had, has := etags[etag]; a.status != 200 || has && had != count {
							t.Errorf("%d %s; with this etag it was %d before", a.status, a.body.Raw, had)
						}
						etags[etag] = count
						mu.Unlock()
					}
				})
			}
			group.Wait()
			count, etag := alice.backupState(version)
			equal(t, "the count", count, int64(len(model)))
			if got, has := etags[etag]; !has || got != count {
				t.Errorf("the etag %s of the end was never told, or with %d", etag, got)
			}
			got := make(map[[2]string]backedUp)
			for room, of := range alice.must("GET", keysAt(version), nil).Get("rooms").Map() {
				for session, k := range of.Get("sessions").Map() {
					got[[2]string{room, session}] = backedUp{k.Get("is_verified").Bool(), int(k.Get("first_message_index").Int()),
						int(k.Get("forwarded_count").Int()), ""}
				}
			}
			for of, k := range model { // of keys that are as good, whichever came first stays
				k.data = ""
				model[of] = k
			}
			if !maps.Equal(got, model) {
				t.Errorf("the keys are\n%v, want\n%v", got, model)
			}
		}
	})
}

// A backup that is large goes in by parts and comes out whole, and deleting it takes no longer than deleting a small
// one.
func TestALargeBackup(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		before, version := alice.backsUp(), alice.backsUp()
		data := strings.Repeat("c", 900)
		const perPut = 200
		puts := test.Soak(10, 500)
		var slowest time.Duration
		for i := range puts {
			sessions := make(object, perPut)
			for j := range perPut {
				sessions[fmt.Sprintf("session-%d-%d", i, j)] = sessionKey(true, 0, 0, data)
			}
			began := time.Now()
			alice.must("PUT", keysAt(version, fmt.Sprintf("!%d:x", i%7)), object{"sessions": sessions})
			slowest = max(slowest, time.Since(began))
		}
		count, _ := alice.backupState(version)
		equal(t, "the count", count, int64(puts*perPut))
		began := time.Now()
		n := 0
		all := alice.must("GET", keysAt(version), nil)
		took := time.Since(began)
		for _, room := range all.Get("rooms").Map() {
			for _, k := range room.Get("sessions").Map() {
				if k.Get("session_data.ciphertext").Str == data {
					n++
				}
			}
		}
		equal(t, "keys that come back", n, puts*perPut)
		began = time.Now()
		alice.must("DELETE", at("room_keys", "version", version), nil)
		deleted := time.Since(began)
		equal(t, "the one before", alice.must("GET", at("room_keys", "version"), nil).Get("version").Str, before)
		t.Logf("%d keys: the slowest PUT of %d took %s, GET %s, DELETE %s", puts*perPut, perPut, slowest, took, deleted)
		if slowest > 5*time.Second || deleted > 5*time.Second {
			t.Error("that is too long, however busy the machine is")
		}
	})
}

// Nothing of a user is left to read, or to write to, once the account is over.
func TestDeactivationEndsBackups(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		version := alice.backsUp()
		alice.must("PUT", keysAt(version, "!a:x", "s"), sessionKey(true, 0, 0, "x"))
		alice.must("POST", at("account", "deactivate"), object{"auth": alice.proof()})
		for method, path := range map[string]string{"GET": at("room_keys", "version"), "PUT": keysAt(version, "!a:x", "t")} {
			a := alice.call(method, path, sessionKey(true, 0, 0, "x")) // another replica may know the token a moment longer
			if a.status != 401 && a.status != 404 {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.body.Raw)
			}
		}
	})
}
