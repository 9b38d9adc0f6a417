package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
)

// Ids of rooms and sessions may have what paths and JSON must escape. Each names one key and no other.
func TestIDsOfBackedUpKeysAreEscaped(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		version := alice.backsUp()
		odd := []string{"a/b", "a+b", "a b", "a%2Fb", "a%252Fb", "a%b", "a?b#c", "..", ".", "a//b", "a/", "/a", `"`, `\`, "ü", "<&>"}
		for _, session := range odd {
			alice.must("PUT", keysAt(version, "!r:x", session), sessionKey(true, 0, 0, "in r: "+session))
			alice.must("PUT", keysAt(version, "!"+session+":x", "s"), sessionKey(true, 0, 0, "in: "+session))
		}
		count, _ := alice.backupState(version)
		equal(t, "the count", count, int64(2*len(odd)))
		all := alice.must("GET", keysAt(version), nil).Get("rooms").Map()
		inRoom := alice.must("GET", keysAt(version, "!r:x"), nil).Get("sessions").Map()
		for _, session := range odd {
			one := alice.must("GET", keysAt(version, "!r:x", session), nil)
			equal(t, session, one.Get("session_data.ciphertext").Str, "in r: "+session)
			equal(t, session+" in its room", inRoom[session].Raw, one.Raw)
			room := alice.must("GET", keysAt(version, "!"+session+":x"), nil)
			equal(t, "the room "+session, room.Get("sessions.s.session_data.ciphertext").Str, "in: "+session)
			equal(t, "the room "+session+" in all", all["!"+session+":x"].Raw, room.Raw)
		}

		// What names no session deletes no room's keys.
		before := alice.must("GET", keysAt(version), nil).Raw
		for _, path := range []string{keysAt(version, "!r:x", ""), keysAt(version, "!r:x", strings.Repeat("s", 256)),
			keysAt(version, "", ""), keysAt(version, ""), keysAt(version, "!r:x", "a\x00"), keysAt(version, "!\x00:x")} {
			alice.refused(400, "M_INVALID_PARAM", "DELETE", path, nil)
		}
		equal(t, "the keys", alice.must("GET", keysAt(version), nil).Raw, before)
		for i, session := range odd {
			alice.must("DELETE", keysAt(version, "!r:x", session), nil)
			got := alice.must("DELETE", keysAt(version, "!"+session+":x"), nil).Get("count").Int()
			equal(t, "the count without "+session, got, int64(2*(len(odd)-i-1)))
		}
	})
}

// versionsOf is what writers have heard of a user's backups.
type versionsOf struct {
	mu    sync.Mutex
	made  []string
	added map[string]map[string]bool // sessions, by version; true: it was acknowledged
}

// Versions are made and deleted, and all keys of one, while others put keys. No version comes twice, no key that was
// acknowledged is lost while its version lives, none is in another version, and the count is that of the keys.
func TestWritersAndVersionsOfABackupRace(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		seed := test.Seed(t)
		alice := d.user(t, "alice")
		v := &versionsOf{added: make(map[string]map[string]bool)}
		v.make(alice)
		deleted := make(map[string]bool)
		var group sync.WaitGroup
		for w := range 4 {
			writer, chance := *alice, rand.New(rand.NewPCG(seed, uint64(w)))
			group.Go(func() {
				for i := range test.Soak(15, 300) {
					v.put(&writer, chance, fmt.Sprintf("%d-%d", w, i))
				}
			})
		}
		owner, chance := *alice, rand.New(rand.NewPCG(seed, 99))
		group.Go(func() {
			for range test.Soak(10, 200) {
				version := v.make(&owner)
				if chance.IntN(2) == 0 {
					owner.must("DELETE", at("room_keys", "version", version), nil)
					deleted[version] = true
				}
			}
		})
		group.Wait()
		newest := ""
		for _, version := range v.made {
			if deleted[version] {
				alice.refused(404, "M_NOT_FOUND", "GET", at("room_keys", "version", version), nil)
				alice.refused(404, "M_NOT_FOUND", "GET", keysAt(version), nil)
				continue
			}
			if alice.call("GET", at("room_keys", "version", version), nil).status == 404 && test.Soak(0, 1) == 1 {
				continue // a user has 50
			}
			newest = version
			keys := alice.must("GET", keysAt(version, "!r:x"), nil).Get("sessions").Map()
			count, _ := alice.backupState(version)
			equal(t, "the count of version "+version, count, int64(len(keys)))
			for session, acknowledged := range v.added[version] {
				if _, has := keys[session]; acknowledged && !has {
					t.Errorf("version %s has lost %s", version, session)
				}
				delete(keys, session)
			}
			equal(t, "keys of version "+version+" that nobody put there", len(keys), 0)
		}
		equal(t, "the newest", alice.must("GET", at("room_keys", "version"), nil).Get("version").Str, newest)
	})
}

func (v *versionsOf) make(c *client) string {
	version := c.backsUp()
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.Contains(v.made, version) {
		c.t.Errorf("version %s comes again", version)
	}
	v.made = append(v.made, version)
	v.added[version] = make(map[string]bool)
	return version
}

// put puts a session into one of the newest versions.
func (v *versionsOf) put(c *client, chance *rand.Rand, session string) {
	v.mu.Lock()
	version := v.made[max(0, len(v.made)-1-chance.IntN(2))]
	v.added[version][session] = false
	v.mu.Unlock()
	a := c.call("PUT", keysAt(version, "!r:x", session), sessionKey(true, 0, 0, "x"))
	switch {
	case a.status == 200:
		v.mu.Lock()
		v.added[version][session] = true
		v.mu.Unlock()
	case a.status == 403 && a.errcode() == "M_WRONG_ROOM_KEYS_VERSION" && a.body.Get("current_version").Str != version:
	case a.status == 404 && a.errcode() == "M_NOT_FOUND":
	default:
		c.t.Errorf("PUT to version %s: %d %s", version, a.status, a.body.Raw)
	}
}
