package blackbox

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/deploy"
)

// gateway is a push gateway. It takes every notification, unless answer says otherwise.
type gateway struct {
	*httptest.Server
	url  string
	pass chan gjson.Result // notifications, as they come

	mu     sync.Mutex
	answer func(n gjson.Result) (status int, body string)
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{pass: make(chan gjson.Result, 1000)}
	g.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/_matrix/push/v1/notify" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a request to the gateway: %s %s %v", r.Method, r.URL.Path, err)
		}
		n := gjson.GetBytes(body, "notification")
		g.mu.Lock()
		answer := g.answer
		g.mu.Unlock()
		status, text := http.StatusOK, `{"rejected":[]}`
		if answer != nil {
			status, text = answer(n)
		}
		g.pass <- n
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text) // the server may have gone
	}))
	t.Cleanup(g.Close)
	g.url = g.URL + "/_matrix/push/v1/notify"
	return g
}

func (g *gateway) answers(answer func(n gjson.Result) (int, string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = answer
}

// next is the next notification; of the event, if one is named, whatever comes before it.
func (g *gateway) next(t *testing.T, event string) gjson.Result {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case n := <-g.pass:
			if event == "" || n.Get("event_id").Str == event {
				return n
			}
		case <-deadline:
			t.Fatalf("the gateway got no notification of %q", event)
		}
	}
}

// counts is the next notification that is about no event.
func (g *gateway) counts(t *testing.T) gjson.Result {
	t.Helper()
	n := g.next(t, "")
	if n.Get("event_id").Exists() {
		t.Fatalf("a notification of an event: %s", n.Raw)
	}
	return n.Get("counts")
}

func pusher(g *gateway, pushkey string, more ...any) object {
	o := object{"kind": "http", "app_id": "x.app", "pushkey": pushkey, "app_display_name": "App", "device_display_name": "Phone", "lang": "en",
		"data": object{"url": g.url, "custom": 1}}
	for i := 0; i < len(more); i += 2 {
		if more[i+1] == nil && more[i].(string) != "kind" {
			delete(o, more[i].(string))
		} else {
			o[more[i].(string)] = more[i+1]
		}
	}
	return o
}

func (c *client) setPusher(p object) { c.t.Helper(); c.must("POST", at("pushers", "set"), p) }

func (c *client) pushers() []string {
	c.t.Helper()
	var keys []string
	for _, p := range c.must("GET", at("pushers"), nil).Get("pushers").Array() {
		keys = append(keys, p.Get("pushkey").Str)
	}
	return keys
}

func TestNotificationsArePushed(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		g := newGateway(t)
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		alice.must("PUT", at("profile", alice.userID, "displayname"), object{"displayname": "Alice"})
		room := alice.createRoom(object{"preset": "private_chat", "name": "Tea", "room_alias_name": "tea-" + alice.localpart})
		alice.say(room, "before the pusher")
		bob.setPusher(pusher(g, "key"))
		alice.invite(room, bob)
		invite := g.next(t, "")
		equal(t, "the invite", invite.Get("type").Str+" "+invite.Get("content.membership").Str+" "+invite.Get("user_is_target").Raw+" "+invite.Get("prio").Str,
			"m.room.member invite true high")
		bob.join(room)
		event := alice.send(room, "m.room.message", text("hello", "m.mentions", object{"user_ids": []string{bob.userID}}))
		n := g.next(t, event)
		for path, want := range map[string]string{"room_id": room, "type": "m.room.message", "sender": alice.userID, "sender_display_name": "Alice",
			"room_name": "Tea", "prio": "high", "content.body": "hello", "counts.unread": "1", "devices.#": "1", "devices.0.app_id": "x.app", "devices.0.pushkey": "key",
			"devices.0.data.custom": "1", "devices.0.data.url": "", "devices.0.tweaks.sound": "default", "devices.0.tweaks.highlight": "true"} {
			equal(t, path, n.Get(path).String(), want)
		}
		if ts := n.Get("devices.0.pushkey_ts").Int(); ts < time.Now().Unix()-600 || ts > time.Now().Unix() {
			t.Errorf("pushkey_ts is %d", ts)
		}
		// What does not notify is not pushed, nor what one says oneself: the next is the message after.
		alice.send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": event, "key": "+"}})
		alice.send(room, "m.room.message", object{"msgtype": "m.notice", "body": "x"})
		last := alice.say(room, "more")
		n = g.next(t, "")
		equal(t, "the next", n.Get("event_id").Str, last)
		equal(t, "unread", n.Get("counts.unread").Int(), 2)
		bob.read(room, "m.read", last)
		if c := g.counts(t); c.Raw != "{}" {
			t.Errorf("counts of one who has read everything: %s", c.Raw)
		}

		bob.setPusher(pusher(g, "key", "data", object{"url": g.url, "format": "event_id_only"}))
		said := int64(0)
		for deadline := time.Now().Add(20 * time.Second); ; { // what comes while a pusher is changed may still be pushed as before
			event = alice.say(room, "secret")
			n = g.next(t, event)
			said++
			if n.Get("devices.0.data.format").Exists() || time.Now().After(deadline) {
				break
			}
		}
		for _, field := range []string{"type", "sender", "content", "room_name", "sender_display_name"} {
			if n.Get(field).Exists() {
				t.Errorf("event_id_only has %s", field)
			}
		}
		equal(t, "the format", n.Get("devices.0.data.format").Str, "event_id_only")
		equal(t, "the count", n.Get("counts.unread").Int(), said)

		// A user's own rules decide.
		bob.must("PUT", at("pushrules", "global", "room", room), object{"actions": []string{}})
		alice.say(room, "muted")
		event = alice.send(room, "m.room.message", text("@room", "m.mentions", object{"room": true}))
		equal(t, "the next after muting", g.next(t, "").Get("event_id").Str, event)
	})
}

func TestPushers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		g := newGateway(t)
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		set := at("pushers", "set")
		equal(t, "pushers at first", alice.must("GET", at("pushers"), nil).Get("pushers").Raw, "[]")
		alice.setPusher(pusher(g, alice.localpart, "profile_tag", "tag"))
		got := alice.must("GET", at("pushers"), nil).Get("pushers.0")
		for path, want := range map[string]string{"kind": "http", "app_id": "x.app", "pushkey": alice.localpart, "app_display_name": "App",
			"device_display_name": "Phone", "lang": "en", "profile_tag": "tag", "data.url": g.url, "data.custom": "1"} {
			equal(t, path, got.Get(path).String(), want)
		}
		alice.setPusher(pusher(g, alice.localpart, "lang", "de"))
		equal(t, "set again", alice.must("GET", at("pushers"), nil).Get("pushers.#.lang").Raw, `["de"]`)
		// The same key for another user takes it away, unless it is added.
		bob.setPusher(pusher(g, alice.localpart, "append", true))
		words(t, "added", alice.pushers(), alice.localpart)
		bob.setPusher(pusher(g, alice.localpart))
		words(t, "taken away", alice.pushers(), "")
		bob.setPusher(pusher(g, alice.localpart, "kind", nil))
		words(t, "removed", bob.pushers(), "")
		bob.setPusher(object{"kind": nil, "app_id": "x.app", "pushkey": "none"}) // removing nothing is no error

		for _, c := range []struct {
			code string
			body object
		}{
			{"M_MISSING_PARAM", object{}},
			{"M_MISSING_PARAM", object{"kind": nil, "app_id": "x"}},
			{"M_MISSING_PARAM", pusher(g, "k", "lang", nil)},
			{"M_MISSING_PARAM", pusher(g, "k", "data", nil)},
			{"M_MISSING_PARAM", pusher(g, "k", "app_display_name", nil)},
			{"M_MISSING_PARAM", pusher(g, "k", "data", object{})},
			{"M_INVALID_PARAM", pusher(g, "k", "kind", "email")},
			{"M_INVALID_PARAM", pusher(g, "k", "kind", "x.odd")},
			{"M_INVALID_PARAM", pusher(g, strings.Repeat("k", 513))},
			{"M_INVALID_PARAM", pusher(g, "k", "app_id", strings.Repeat("a", 65))},
			{"M_INVALID_PARAM", pusher(g, "k", "data", object{"url": "http://example.org/_matrix/push/v1/notify"})},
			{"M_INVALID_PARAM", pusher(g, "k", "data", object{"url": "https://example.org/notify"})},
			{"M_INVALID_PARAM", pusher(g, "k", "data", object{"url": "nonsense"})},
			{"M_INVALID_PARAM", pusher(g, "k", "data", object{"url": g.url, "format": "odd"})},
			{"M_INVALID_PARAM", pusher(g, "k", "data", object{"url": g.url, "x": strings.Repeat("x", 20_000)})},
			{"M_BAD_JSON", pusher(g, "k", "data", "x")},
			{"M_BAD_JSON", pusher(g, "k", "append", "yes")},
		} {
			alice.refused(400, c.code, "POST", set, c.body)
		}
		words(t, "after what was refused", alice.pushers(), "")
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", at("pushers"), nil)
		for range 20 {
			alice.setPusher(pusher(g, alice.txn()))
		}
		alice.refused(400, "M_INVALID_PARAM", "POST", set, pusher(g, "too many"))
		equal(t, "pushers at most", len(alice.pushers()), 20)
	})
}

// The pushers of a device go when it is logged out, those of others stay.
func TestPushersEndWithTheirDevice(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		g := newGateway(t)
		alice := d.user(t, "alice")
		phone, tablet := alice.login(), alice.login()
		alice.setPusher(pusher(g, alice.localpart+"-a"))
		phone.setPusher(pusher(g, alice.localpart+"-p"))
		tablet.setPusher(pusher(g, alice.localpart+"-t"))
		left := func(what, want string) {
			t.Helper()
			for deadline := time.Now().Add(15 * time.Second); strings.Join(alice.pushers(), " ") != want; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: pushers are %v, want %s", what, alice.pushers(), want)
				}
			}
		}
		phone.must("POST", at("logout"), object{})
		left("logged out", alice.localpart+"-a "+alice.localpart+"-t")
		alice.must("POST", at("account", "password"), object{"new_password": "another-" + alice.password,
			"auth": object{"type": "m.login.password", "password": alice.password, "identifier": object{"type": "m.id.user", "user": alice.localpart}}})
		left("password changed", alice.localpart+"-a")
	})
}

func TestAGatewayThatFails(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		stuck, bad, good := newGateway(t), newGateway(t), newGateway(t)
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := alice.publicRoom()
		bob.join(room)
		release := make(chan struct{})
		stuck.answers(func(gjson.Result) (int, string) { <-release; return 200, `{}` })
		t.Cleanup(func() { close(release) })
		failures := 2
		bad.answers(func(gjson.Result) (int, string) {
			if failures--; failures >= 0 {
				return 502, `nonsense`
			}
			return 200, `{"rejected":[]}`
		})
		bob.sync("") // has seen the join
		bob.setPusher(pusher(stuck, bob.localpart+"-stuck"))
		bob.setPusher(pusher(bad, bob.localpart+"-bad"))
		bob.setPusher(pusher(good, bob.localpart+"-good"))
		first, second := alice.say(room, "first"), alice.say(room, "second")
		for _, event := range []string{first, second} { // whatever the others do
			equal(t, "the good gateway gets", good.next(t, "").Get("event_id").Str, event)
		}
		for i, event := range []string{first, first, first, second} { // in order, and again until it is taken
			if got := bad.next(t, "").Get("event_id").Str; got != event {
				t.Errorf("request %d to the bad gateway is about %s, want %s", i, got, event)
			}
		}
		// A key that a gateway rejects is used no more.
		good.answers(func(n gjson.Result) (int, string) {
			return 200, `{"rejected":["` + n.Get("devices.0.pushkey").Str + `"]}`
		})
		alice.say(room, "third")
		good.next(t, "")
		for deadline := time.Now().Add(15 * time.Second); len(bob.pushers()) != 2; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("a rejected pusher stays: %v", bob.pushers())
			}
		}
	})
}

func TestTheListOfNotifications(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room, other := alice.publicRoom(), alice.publicRoom()
		alice.say(room, "before the join")
		bob.join(room)
		bob.join(other)
		var all []string
		for i := range 6 {
			all = append(all, alice.say([]string{room, other}[i%2], "x"))
			bob.now() // between rooms, the order is that in which syncapi hears of them
			bob.send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": all[i], "key": "+"}})
		}
		bob.now()
		mention := alice.send(room, "m.room.message", text("x", "m.mentions", object{"user_ids": []string{bob.userID}}))
		all = append(all, mention)
		path := at("notifications")
		var got []string
		token := ""
		for pages := 1; ; pages++ {
			page := bob.must("GET", path+"?limit=3"+token, nil)
			for _, n := range page.Get("notifications").Array() {
				got = append([]string{n.Get("event.event_id").Str}, got...)
				if ts := time.UnixMilli(n.Get("ts").Int()); time.Since(ts) > time.Minute || time.Since(ts) < -time.Second {
					t.Errorf("ts is %v", ts)
				}
			}
			if !page.Get("next_token").Exists() || pages > 5 {
				break
			}
			token = "&from=" + page.Get("next_token").Str
		}
		same(t, "the events that notified", got, all)
		page := bob.must("GET", path+"?only=highlight", nil)
		equal(t, "highlights", page.Get("notifications.#").Int(), 1)
		n := page.Get("notifications.0")
		equal(t, "the highlight", n.Get("event.event_id").Str+" "+n.Get("room_id").Str+" "+n.Get("read").Raw, mention+" "+room+" false")
		equal(t, "its actions", n.Get("actions.0").Str, "notify")
		bob.read(room, "m.read", mention)
		bob.must("POST", at("rooms", other, "receipt", "m.read", all[1]), object{"thread_id": "main"})
		for _, n := range bob.must("GET", path, nil).Get("notifications").Array() {
			event := n.Get("event.event_id").Str
			if want := n.Get("room_id").Str == room || event == all[1]; n.Get("read").Bool() != want {
				t.Errorf("%s: read is %s, want %v", event, n.Get("read").Raw, want)
			}
		}
		bob.refused(400, "M_INVALID_PARAM", "GET", path+"?from=nonsense", nil)
		bob.refused(400, "M_INVALID_PARAM", "GET", path+"?limit=x", nil)
		equal(t, "one's own", alice.must("GET", path, nil).Get("notifications.#").Int(), 0)
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", path, nil)
	})
}

// Whatever is killed, every notification reaches the gateway, in order, and only one that was under way may come twice.
func TestPushesSurviveKills(t *testing.T) {
	t.Parallel()
	for _, kind := range deploy.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			o := deploy.Options{}
			parts := []string{"monolith"}
			if kind == polylith {
				o.Replicas = []string{"syncapi"}
				parts = []string{"syncapi", "syncapi-2"}
			}
			d := deployed(deploy.Own(t, kind, o))
			g := newGateway(t)
			alice, bob := d.user(t, "alice"), d.user(t, "bob")
			room := alice.publicRoom()
			bob.join(room)
			bob.sync("")
			bob.setPusher(pusher(g, "key"))
			const kills, each = 4, 5
			seen := make(map[string]int)
			said, next, again := []string{}, 0, 0
			for kill := range kills {
				for range each {
					said = append(said, alice.say(room, "x"))
				}
				victim := d.process(t, parts[kill%len(parts)])
				if err := victim.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := victim.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				for next < len(said) {
					switch event := g.next(t, "").Get("event_id").Str; {
					case event == "": // only counts
					case event == said[next]:
						seen[event]++
						next++
					case seen[event] > 0:
						again++
					default:
						t.Fatalf("%s comes before %s", event, said[next])
					}
				}
			}
			if again > kills {
				t.Errorf("%d notifications came twice, after %d kills", again, kills)
			}
		})
	}
}
