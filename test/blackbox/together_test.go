package blackbox

import (
	"fmt"
	"github.com/matrix-org/dendrite/common/test"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

// together runs n functions at the same time, each with a copy of a client.
func together(c *client, n int, fn func(c *client, i int)) {
	var all sync.WaitGroup
	for i := range n {
		one := *c
		all.Go(func() { fn(&one, i) })
	}
	all.Wait()
}

// done is must for a goroutine, which cannot end the test.
func (c *client) done(method, path string, body any) {
	if a := c.call(method, path, body); a.status != http.StatusOK {
		c.t.Errorf("%s %s: %d %s", method, path, a.status, a.body.Raw)
	}
}

// settings are what one of several clients of a user has set, each under names of its own.
type settings struct {
	tags    map[string]string // by name, the order
	rules   map[string]string // by id, the pattern
	enabled map[string]bool   // predefined rules
	data    map[string]string // by type
}

func newSettings() settings {
	return settings{make(map[string]string), make(map[string]string), make(map[string]bool), make(map[string]string)}
}

// changeOne changes one setting, at random. A predefined rule is changed by one client only; another has none.
func (s *settings) changeOne(c *client, random *rand.Rand, room, own, predefined string) {
	name := fmt.Sprint(own, ".", random.IntN(3))
	value := fmt.Sprint("0.", 1+random.IntN(8))
	choices := 6
	if predefined == "" {
		choices--
	}
	switch random.IntN(choices) {
	case 0, 1:
		s.tags["u."+name] = value
		c.done("PUT", at("user", c.userID, "rooms", room, "tags", "u."+name), []byte(`{"order":`+value+`}`))
	case 2:
		delete(s.tags, "u."+name)
		c.done("DELETE", at("user", c.userID, "rooms", room, "tags", "u."+name), nil)
	case 3:
		s.rules[name] = value
		rule := object{"pattern": value, "actions": []string{"notify"}}
		c.done("PUT", at("pushrules", "global", "content", name), rule)
	case 4:
		s.data["x."+own] = value
		c.done("PUT", at("user", c.userID, "account_data", "x."+own), object{"value": value})
	case 5:
		s.enabled[predefined] = random.IntN(2) == 0
		enabled := object{"enabled": s.enabled[predefined]}
		c.done("PUT", at("pushrules", "global", "override", predefined, "enabled"), enabled)
	}
}

// kept tells what of the settings is not as it was set last.
func (s *settings) kept(c *client, room, own string) (lost []string) {
	c.t.Helper()
	differs := func(what, name, got, want string) {
		if got != want {
			lost = append(lost, fmt.Sprintf("%s %s: %q, want %q", what, name, got, want))
		}
	}
	tags := c.must("GET", at("user", c.userID, "rooms", room, "tags"), nil).Get("tags")
	for i := range 3 {
		name := fmt.Sprint("u.", own, ".", i)
		differs("tag", name, tags.Get(escape(name)+".order").Raw, s.tags[name])
	}
	rules := c.must("GET", at("pushrules")+"/", nil).Get("global")
	found := make(map[string]gjson.Result)
	for _, rule := range append(rules.Get("content").Array(), rules.Get("override").Array()...) {
		found[rule.Get("rule_id").Str] = rule
	}
	for name, pattern := range s.rules {
		differs("rule", name, found[name].Get("pattern").Str, pattern)
	}
	for name, enabled := range s.enabled {
		differs("predefined rule", name, found[name].Get("enabled").Raw, fmt.Sprint(enabled))
	}
	for name, value := range s.data {
		content := c.must("GET", at("user", c.userID, "account_data", name), nil)
		differs("account data", name, content.Get("value").Str, value)
	}
	return lost
}

// What clients of one user set at the same time is kept, whatever of it is kept in one place, and whichever process
// takes it.
func TestWhatIsSetAtTheSameTimeIsKept(t *testing.T) {
	seed := test.Seed(t)
	predefined := strings.Fields(".m.rule.suppress_notices .m.rule.invite_for_me .m.rule.member_event " +
		".m.rule.is_user_mention .m.rule.is_room_mention .m.rule.tombstone .m.rule.reaction .m.rule.suppress_edits")
	run(t, func(t *testing.T, d *deployment) {
		alice := d.user(t, "alice")
		room := alice.createRoom(object{})
		const clients = 8
		var set [clients]settings
		together(alice, clients, func(c *client, i int) {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			s := &set[i]
			*s = newSettings()
			for range 15 {
				s.changeOne(c, random, room, fmt.Sprint("c", i), predefined[i])
			}
		})
		for i := range set {
			for _, lost := range set[i].kept(alice, room, fmt.Sprint("c", i)) {
				t.Error(lost)
			}
		}
	})
}

// A receipt never moves back, however many arrive at the same time: what has been read stays read.
func TestOfReceiptsAtTheSameTimeTheNewestHolds(t *testing.T) {
	seed := test.Seed(t)
	run(t, func(t *testing.T, d *deployment) {
		random := rand.New(rand.NewPCG(seed, 0))
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		for range 12 {
			var events []string
			for i := range 5 {
				events = append(events, bob.say(room, fmt.Sprint(i)))
			}
			newest := events[len(events)-1]
			random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			together(alice, 2*len(events), func(c *client, i int) {
				if i%2 == 0 {
					c.done("POST", at("rooms", room, "receipt", "m.read", events[i/2]), object{})
				} else {
					c.done("POST", at("rooms", room, "read_markers"), object{"m.read.private": events[i/2]})
				}
			})
			r := roomIn(alice.sync(""), "join", room)
			got := receiptsIn(r)
			for _, receiptType := range []string{"m.read", "m.read.private"} {
				same(t, receiptType+" for the newest event", got[newest+" "+receiptType], users(alice))
			}
			equal(t, "unread after everything was read", countsIn(r), [2]int64{})
			if t.Failed() {
				return
			}
		}
	})
}

// A user changes settings while those of an upgraded room are copied to its replacement.
func TestWhatIsSetWhileARoomIsReplacedIsKept(t *testing.T) {
	seed := test.Seed(t)
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		for round := range 4 {
			old := alice.publicRoom()
			bob.join(old)
			bob.must("PUT", at("user", bob.userID, "rooms", old, "tags", "m.favourite"), object{"order": 0.5})
			bob.must("PUT", at("pushrules", "global", "room", old), object{"actions": []string{}})
			bob.must("PUT", at("user", bob.userID, "account_data", "m.direct"), object{alice.userID: []string{old}})
			upgraded := alice.must("POST", at("rooms", old, "upgrade"), object{"new_version": "12"})
			made := upgraded.Get("replacement_room").Str
			alice.invite(made, bob)
			const clients = 6
			var set [clients]settings
			together(bob, clients+1, func(c *client, i int) {
				if i == clients {
					c.done("POST", at("join", made), object{})
					return
				}
				random := rand.New(rand.NewPCG(seed, uint64(round*clients+i)))
				s := &set[i]
				*s = newSettings()
				for range 5 {
					s.changeOne(c, random, made, fmt.Sprint("r", round, "c", i), "")
				}
			})
			for i := range set {
				for _, lost := range set[i].kept(bob, made, fmt.Sprint("r", round, "c", i)) {
					t.Error(lost)
				}
			}
			bob.must("GET", at("pushrules", "global", "room", made), nil)
			direct := bob.must("GET", at("user", bob.userID, "account_data", "m.direct"), nil).Get(escape(alice.userID))
			if !slices.ContainsFunc(direct.Array(), func(r gjson.Result) bool { return r.Str == made }) {
				t.Errorf("m.direct: %s", direct.Raw)
			}
		}
	})
}
