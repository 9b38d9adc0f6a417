package blackbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// newBridge is a service that encrypts, and makes its devices itself.
func newBridge(t *testing.T, d *deployment) *service {
	t.Helper()
	return newService(t, d, func(_ *service, registration object) {
		registration["org.matrix.msc3202"], registration["io.element.msc4190"] = true, true
	})
}

// device is a user of the service on a new device, whose requests are as this device.
func (s *service) device(name, deviceID string) *client {
	s.t.Helper()
	c := s.ghost(name)
	if a := c.call("PUT", at("devices", deviceID), object{}); a.status != http.StatusCreated {
		s.t.Fatalf("a new device: %d %s", a.status, a.body.Raw)
	}
	c.deviceID = deviceID
	c.as.Set("device_id", deviceID)
	return c
}

// mail lists what the service has got for a device by the client's to, under a name of the member.
func mail(attempts []transaction, member, userID, deviceID string) string {
	var all []string
	for _, m := range entries(attempts, member) {
		if m.Get("to_user_id").Str == userID && m.Get("to_device_id").Str == deviceID {
			all = append(all, m.Get("content.n").String())
		}
	}
	return strings.Join(all, " ")
}

// lastCount is what the service was told last of a device's one-time keys, and of its fallback keys; -1 for nothing.
func lastCount(attempts []transaction, prefix, userID, deviceID string) (n int64, unused string) {
	n = -1
	for _, txn := range taken(attempts) {
		count := txn.body.Get(escape(prefix + "device_one_time_keys_count")).Get(escape(userID)).Get(deviceID)
		if count.Exists() {
			n = count.Get("signed_curve25519").Int()
			unused = txn.body.Get(escape(prefix + "device_unused_fallback_key_types")).Get(escape(userID)).Get(deviceID).Raw
		}
	}
	return n, unused
}

// toldOf are the users that the service was told have changed, or left, those of the test in the order in which it was.
func toldOf(attempts []transaction, prefix, kind string, of ...*client) string {
	var all []string
	for _, txn := range taken(attempts) {
		for _, user := range txn.body.Get(escape(prefix + "device_lists")).Get(kind).Array() {
			if i := slices.IndexFunc(of, func(c *client) bool { return c.userID == user.Str }); i >= 0 {
				all = append(all, of[i].localpart[:strings.Index(of[i].localpart, "-")])
			}
		}
	}
	return strings.Join(all, " ")
}

func TestABridgeGetsMessagesToItsDevices(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, plain := newBridge(t, d), newService(t, d, nil)
		alice := d.user(t, "alice")
		ghost, bot, other := s.device("ghost", "GHOST"), s.device("bot", "BOT"), plain.ghost("other")
		for n := range 5 {
			alice.to(ghost, "GHOST", n)
		}
		alice.to(ghost, "*", 5)
		alice.to(ghost, "NOBODY", 6)
		alice.to(bot, "BOT", 7)
		alice.to(other, "*", 8)
		for _, member := range []string{"to_device", "de.sorunome.msc2409.to_device"} {
			s.await(member, func(attempts []transaction) bool {
				return mail(attempts, member, ghost.userID, "GHOST") == "0 1 2 3 4 5" && mail(attempts, member, bot.userID, "BOT") == "7"
			})
		}
		first := s.entry("to_device", func(gjson.Result) bool { return true })
		equal(t, "members of a message", len(first.Map()), 5)
		equal(t, "its sender", first.Get("sender").Str, alice.userID)
		equal(t, "its type", first.Get("type").Str, "x.number")
		// A bridge that syncs for its messages gets them so too, from any listener, until it has acknowledged them.
		got := bot.sync("")
		equal(t, "the bot's sync", numbers(got), "7")
		equal(t, "the ghost's sync", numbers(ghost.sync("")), "0 1 2 3 4 5")
		equal(t, "the bot's next sync", numbers(bot.sync(next(got))), "")
		if attempts, _ := plain.sent(); len(entries(attempts, "to_device")) > 0 {
			t.Error("a service that does not encrypt gets messages to devices")
		}
	})
}

func TestABridgeHearsHowManyKeysItsDevicesHave(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, alice := newBridge(t, d), d.user(t, "alice")
		ghost := s.device("ghost", "GHOST")
		told := func(when string, n int64, unused string) {
			t.Helper()
			for _, prefix := range []string{"", "org.matrix.msc3202."} {
				s.await(fmt.Sprintf("%s: %d keys, %s unused", when, n, unused), func(attempts []transaction) bool {
					gotN, gotUnused := lastCount(attempts, prefix, ghost.userID, "GHOST")
					return gotN == n && gotUnused == unused
				})
			}
			ghost.hasKeys(when+", in a sync", ghost.sync(""), n, unused)
		}
		// Bridges upload keys when they hear that a device has none.
		told("of a new device", 0, `[]`)
		keys := ghost.encrypted(2)
		told("after an upload", 2, `[]`)
		ghost.must("POST", at("keys", "upload"), object{"fallback_keys": keys.fallbackKey()})
		told("after a fallback key", 2, `["signed_curve25519"]`)
		for _, want := range []struct {
			n      int64
			unused string
		}{{1, `["signed_curve25519"]`}, {0, `["signed_curve25519"]`}, {0, `[]`}} {
			if alice.claimed(ghost.userID, "GHOST") == "" {
				t.Fatal("there was no key")
			}
			told("after a claim", want.n, want.unused)
		}
		ghost.must("POST", at("keys", "upload"), object{"one_time_keys": keys.oneTimeKeys(3)})
		told("after another upload", 3, `[]`)
	})
}

func TestABridgeHearsOfDeviceLists(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newBridge(t, d)
		alice, bob, carol := d.user(t, "alice"), d.user(t, "bob"), d.user(t, "carol")
		ghost, second := s.device("ghost", "GHOST"), s.device("second", "SECOND")
		all := []*client{alice, bob, carol}
		told := func(when, changed, left string) {
			t.Helper()
			for _, prefix := range []string{"", "org.matrix.msc3202."} {
				s.await(fmt.Sprintf("%s: changed %s, left %s", when, changed, left), func(attempts []transaction) bool {
					return toldOf(attempts, prefix, "changed", all...) == changed && toldOf(attempts, prefix, "left", all...) == left
				})
			}
		}
		bob.encrypted(1)
		room, otherRoom := alice.publicRoom(), carol.publicRoom()
		ghost.join(room)
		told("after the ghost's join", "alice", "")
		second.join(room)
		alice.encrypted(1)
		told("after an upload", "alice alice", "")
		bob.join(room)
		told("after a join", "alice alice bob", "")
		carol.encrypted(1)
		bob.join(otherRoom)
		second.join(otherRoom)
		told("after another join", "alice alice bob carol", "")
		bob.must("POST", at("rooms", room, "leave"), object{})
		alice.must("POST", at("rooms", room, "leave"), object{})
		told("after two have left, one of whom shares another room", "alice alice bob carol", "alice")
		second.must("POST", at("rooms", otherRoom, "leave"), object{})
		s.await("left when the last ghost goes", func(attempts []transaction) bool {
			words := strings.Fields(toldOf(attempts, "", "left", all...))
			slices.Sort(words)
			return strings.Join(words, " ") == "alice bob carol"
		})
		alice.must("POST", at("rooms", room, "join"), object{})
		told("after a return", "alice alice bob carol alice", toldOf(sentOf(s), "", "left", all...))
	})
}

func sentOf(s *service) []transaction {
	attempts, _ := s.sent()
	return attempts
}

// What a bridge does with keys, it does as a device of its users; without one it is told so.
func TestABridgeActsAsItsDevices(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, alice := newBridge(t, d), d.user(t, "alice")
		ghost := s.device("ghost", "GHOST")
		whole := s.As(ghost.userID)
		keys := ghost.crypto()
		upload := object{"device_keys": keys.deviceKeys(), "one_time_keys": keys.oneTimeKeys(1)}
		whole.refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", at("keys", "upload"), upload)
		absent := s.As(ghost.userID)
		absent.as.Set("device_id", "ABSENT")
		for _, path := range []string{"keys/upload", "keys/query"} {
			absent.refused(http.StatusBadRequest, "M_UNKNOWN_DEVICE", "POST", "/_matrix/client/v3/"+path, object{})
		}
		ghost.must("POST", at("keys", "upload"), upload)
		equal(t, "its own keys", in(ghost.query(ghost.userID), "device_keys", ghost.userID, "GHOST", "device_id").Str, "GHOST")
		equal(t, "its keys, as a user without a device", in(whole.query(ghost.userID), "device_keys", ghost.userID, "GHOST", "device_id").Str, "GHOST")
		alice.encrypted(2)
		if ghost.claimed(alice.userID, alice.deviceID) == "" || whole.claimed(alice.userID, alice.deviceID) == "" {
			t.Error("a bridge cannot claim keys")
		}
		start := alice.now()
		ghost.to(alice, alice.deviceID, 1)
		whole.to(alice, alice.deviceID, 2)
		sync := alice.sync(start)
		equal(t, "what alice got", numbers(sync), "1 2")
		equal(t, "from", sync.Get("to_device.events.0.sender").Str, ghost.userID)
		// Cross-signing without interactive authentication, which a service cannot do (MSC4190).
		cross := ghost.crossSigning()
		ghost.must("POST", at("keys", "device_signing", "upload"), cross.upload())
		signed := cross.self.sign(keys.deviceKeys())
		ghost.must("POST", at("keys", "signatures", "upload"), object{ghost.userID: object{"GHOST": signed}})
		found := in(alice.query(ghost.userID), "device_keys", ghost.userID, "GHOST", "signatures", ghost.userID)
		equal(t, "signatures of the device", len(found.Map()), 2)
	})
}

// Processes are killed while messages are sent: the bridge gets each, in the order of its sender; and what it acknowledged
// does not come under another transaction id.
func TestKillsLoseNoMessageToABridge(t *testing.T) {
	deploy.Chosen(t, polylith)
	d := deployed(deploy.Own(t, polylith, deploy.Options{Replicas: config.Components()}))
	random := rand.New(rand.NewPCG(test.Seed(t), 1))
	s := newBridge(t, d)
	ghost := s.device("ghost", "GHOST")
	const senders, units = 4, 400
	sent := make([]int, senders)
	var clients []*client
	work := newToil(t)
	for i := range senders {
		c := d.user(t, "sender")
		clients = append(clients, c)
		work.work(func(ctx context.Context, _ int) error {
			message := object{"messages": object{ghost.userID: object{"GHOST": object{"n": sent[i]}}}}
			_, err := work.insist(ctx, c, "PUT", at("sendToDevice", "x.number", fmt.Sprint("m", sent[i])), message)
			sent[i]++
			return err
		})
	}
	work.under(d, random, units, 8, "appservice", "syncapi")
	work.await("all messages are sent", &work.workers)
	bySender := func(attempts []transaction) [][]string {
		all := make([][]string, senders)
		for _, m := range entries(attempts, "to_device") {
			if i := slices.IndexFunc(clients, func(c *client) bool { return c.userID == m.Get("sender").Str }); i >= 0 {
				all[i] = append(all[i], m.Get("content.n").String())
			}
		}
		return all
	}
	s.await("all messages", func(attempts []transaction) bool {
		for i, got := range bySender(attempts) {
			if len(got) < sent[i] {
				return false
			}
		}
		return true
	})
	for i, got := range bySender(sentOf(s)) {
		want := make([]string, sent[i])
		for n := range want {
			want[n] = fmt.Sprint(n)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of sender %d: %s", i, difference(got, want))
		}
	}
}
