package blackbox

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// watcher is a client who remembers tokens: the newest, and one from the beginning.
type watcher struct {
	*client
	first, since string
}

func watch(c *client) *watcher {
	c.t.Helper()
	now := c.now()
	return &watcher{c, now, now}
}

// names lists users by what their names begin with.
func names(list gjson.Result) string {
	var all []string
	for _, user := range list.Array() {
		name, _, _ := strings.Cut(strings.TrimPrefix(user.Str, "@"), "-")
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// changed looks at whose keys a client must fetch anew, and whose it need not follow any more, since its last look. A
// sync, however little of the timeline it wants, and GET /keys/changes say the same.
func (w *watcher) changed(when, changed, left string) {
	w.t.Helper()
	const none = `{"room":{"timeline":{"limit":1},"rooms":[]}}`
	for _, more := range [][]string{nil, {"filter", none}} {
		lists := w.sync(w.since, more...).Get("device_lists")
		if names(lists.Get("changed")) != changed || names(lists.Get("left")) != left {
			w.t.Errorf("%s: %s gets %s, want changed %q and left %q", when, w.localpart, lists.Raw, changed, left)
		}
	}
	next := w.sync(w.since).Get("next_batch").Str
	query := "?" + url.Values{"from": {w.since}, "to": {next}}.Encode()
	for _, version := range []string{"v3", "r0"} {
		lists := w.must("GET", "/_matrix/client/"+version+"/keys/changes"+query, nil)
		if names(lists.Get("changed")) != changed || names(lists.Get("left")) != left {
			w.t.Errorf("%s: changes for %s are %s, want changed %q and left %q", when, w.localpart, lists.Raw, changed, left)
		}
	}
	w.since = next
}

func (c *client) member(room, action string, who *client) {
	c.t.Helper()
	c.must("POST", at("rooms", room, action), object{"user_id": who.userID})
}

func (c *client) leave(room string) {
	c.t.Helper()
	c.must("POST", at("rooms", room, "leave"), object{})
}

func TestDeviceListsSayWhoseKeysToFetch(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := watch(d.user(t, "alice")), watch(d.user(t, "bob")), watch(d.user(t, "carol"))
		stranger := watch(d.user(t, "stranger"))
		room := alice.createRoom(object{"preset": "private_chat"})
		equal(t, "lists of an initial sync", names(alice.sync("").Get("device_lists.changed")), "")
		all := func(when string, want ...string) { // changed and left of alice, bob and carol
			t.Helper()
			for i, w := range []*watcher{alice, bob, carol} {
				w.changed(when, want[2*i], want[2*i+1])
			}
			stranger.changed(when, "", "")
		}
		alice.invite(room, bob.client)
		all("an invite", "bob", "", "", "", "", "")
		bob.join(room)
		all("a join", "", "", "alice", "", "", "")
		keys := bob.crypto()
		upload := object{"device_keys": keys.deviceKeys(), "one_time_keys": keys.oneTimeKeys(3)}
		bob.must("POST", at("keys", "upload"), upload)
		all("keys", "bob", "", "bob", "", "", "")
		bob.must("POST", at("keys", "upload"), upload)
		bob.must("POST", at("keys", "upload"), object{"one_time_keys": keys.oneTimeKeys(3)})
		all("nothing others must know", "", "", "", "", "", "")
		carol.encrypted(1)
		all("a stranger's keys", "", "", "", "", "carol", "")
		alice.invite(room, carol.client)
		all("an invite", "carol", "", "carol", "", "", "")
		carol.login().encrypted(0)
		all("keys of who is invited", "carol", "", "carol", "", "carol", "")
		carol.leave(room)
		all("a rejected invite", "", "carol", "", "carol", "", "")
		alice.invite(room, carol.client)
		carol.join(room)
		all("an invite and a join", "carol", "", "carol", "", "alice bob", "")
		alice.member(room, "kick", carol.client)
		all("a kick", "", "carol", "", "carol", "", "alice bob")
		alice.member(room, "ban", carol.client)
		all("a ban of who is out", "", "", "", "", "", "")
		other := alice.createRoom(object{"preset": "public_chat"})
		bob.join(other)
		carol.join(other)
		all("another room", "carol", "", "carol", "", "alice bob", "")
		bob.leave(room)
		all("one of two shared rooms is left", "", "", "", "", "", "")
		alice.leave(other)
		all("the last shared room is left", "", "bob carol", "", "alice", "", "alice")
		alice.join(other)
		alice.leave(other)
		all("come and gone", "", "", "", "", "", "")
		alice.join(other)
		all("who has left comes back", "bob carol", "", "alice", "", "alice", "")
		second := bob.login()
		second.encrypted(0)
		all("a new device", "bob", "", "bob", "", "bob", "")
		second.must("POST", at("logout"), object{})
		all("a device is logged out", "bob", "", "bob", "", "bob", "")
		bob.must("PUT", at("devices", bob.deviceID), object{"display_name": "new"})
		all("a device has a new name", "bob", "", "bob", "", "bob", "")
		for _, w := range []*watcher{alice, bob, carol, stranger} {
			w.since = w.first
		}
		all("since the beginning", "bob carol", "", "alice bob carol", "", "alice bob carol", "")
	})
}

func TestAChangeOfKeysWakesThoseWhoSeeIt(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		room := alice.publicRoom()
		bob.join(room)
		const quiet = `{"presence":{"not_types":["*"]},"room":{"rooms":[]}}`
		phone := bob.login()
		for i := range 3 {
			alices, bobs := alice.poll(alice.now(), "filter", quiet), phone.poll(phone.now(), "filter", quiet)
			since := carol.now()
			bob.login().encrypted(i)
			equal(t, "alice's poll", names(alices().Get("device_lists.changed")), "bob")
			equal(t, "the poll of bob's phone", names(bobs().Get("device_lists.changed")), "bob")
			equal(t, "carol's sync", names(carol.sync(since).Get("device_lists.changed")), "")
		}
		// Who comes and goes wakes those in the room, whatever of it they want.
		alices := alice.poll(alice.now(), "filter", quiet)
		carol.join(room)
		equal(t, "alice's poll", names(alices().Get("device_lists.changed")), "carol")
		alices = alice.poll(alice.now(), "filter", quiet)
		carol.leave(room)
		equal(t, "alice's poll", names(alices().Get("device_lists.left")), "carol")
	})
}

func TestDeviceListsAfterARestart(t *testing.T) {
	d := own(t, monolithSQLite, nil)
	alice, bob, carol := watch(d.user(t, "alice")), d.user(t, "bob"), d.user(t, "carol")
	room := alice.publicRoom()
	bob.join(room)
	alice.since = alice.now()
	bob.encrypted(1)
	carol.join(room)
	server := d.process(t, "monolith")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	alice.changed("what was before a restart", "bob carol", "")
	equal(t, "bob's count", bob.sync("").Get("device_one_time_keys_count.signed_curve25519").Int(), 1)
	alice.changed("nothing", "", "")
	carol.leave(room)
	alice.changed("what was after it", "", "carol")
}

func TestKeyChangesThatAreRefused(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		now := alice.now()
		const path = "/_matrix/client/v3/keys/changes"
		d.anybody(t).refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "GET", path+"?from="+now+"&to="+now, nil)
		for query, errcode := range map[string]string{"": "M_MISSING_PARAM", "?from=" + now: "M_MISSING_PARAM",
			"?to=" + now: "M_MISSING_PARAM", "?from=a&to=" + now: "M_INVALID_PARAM", "?from=" + now + "&to=%00": "M_INVALID_PARAM"} {
			alice.refused(http.StatusBadRequest, errcode, "GET", path+query, nil)
		}
		equal(t, "the wrong way round", alice.must("GET", path+"?from="+alice.now()+"&to="+now, nil).Raw, `{"changed":[],"left":[]}`)
	})
}
