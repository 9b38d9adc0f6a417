package blackbox

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/config"
)

// toDevices sends messages: of users, their devices, and what each gets.
func (c *client) toDevices(eventType string, messages object) {
	c.t.Helper()
	c.must("PUT", at("sendToDevice", eventType, c.txn()), object{"messages": messages})
}

// to sends one message with a number to a device of somebody.
func (c *client) to(who *client, device string, n any) {
	c.t.Helper()
	c.toDevices("x.number", object{who.userID: object{device: object{"n": n}}})
}

// numbers lists what was sent by to.
func numbers(sync gjson.Result) string {
	var all []string
	for _, e := range sync.Get("to_device.events").Array() {
		all = append(all, e.Get("content.n").String())
	}
	return strings.Join(all, " ")
}

func next(sync gjson.Result) string { return sync.Get("next_batch").Str }

func TestMessagesToDevicesArriveOnceAndInOrder(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		other := bob.login()
		start, others := bob.now(), other.now()
		for n := range 5 {
			alice.to(bob, bob.deviceID, n)
		}
		one := bob.sync(start)
		equal(t, "the messages", numbers(one), "0 1 2 3 4")
		event := one.Get("to_device.events.0")
		equal(t, "the first", len(event.Map()), 3)
		equal(t, "its sender", event.Get("sender").Str, alice.userID)
		equal(t, "its type", event.Get("type").Str, "x.number")
		equal(t, "with the same token again", numbers(bob.sync(start)), "0 1 2 3 4")
		equal(t, "without a token", numbers(bob.sync("")), "0 1 2 3 4")
		equal(t, "under r0", numbers(bob.must("GET", strings.Replace(syncPath(start), "v3", "r0", 1), nil)), "0 1 2 3 4")
		equal(t, "with the whole state", numbers(bob.sync(start, "full_state", "true")), "0 1 2 3 4")
		equal(t, "with a filter", numbers(bob.sync(start, "filter", `{"room":{"rooms":[]}}`)), "0 1 2 3 4")
		equal(t, "of the other device", numbers(other.sync(others)), "")

		alice.to(bob, bob.deviceID, 5)
		two := bob.sync(next(one))
		equal(t, "what is new", numbers(two), "5")
		equal(t, "what is new, again", numbers(bob.sync(next(one))), "5")
		three := bob.sync(next(two))
		equal(t, "what is new after all", numbers(three), "")
		for deadline := time.Now().Add(5 * time.Second); numbers(bob.sync("")) != "" && time.Now().Before(deadline); {
			continue // what was acknowledged is removed soon
		}
		equal(t, "without a token, after all", numbers(bob.sync("")), "")
		alice.to(bob, bob.deviceID, 6)
		equal(t, "a later one", numbers(bob.sync(next(three))), "6")
	})
}

func TestAMessageToADeviceIsWaitedFor(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		waiting := bob.poll(bob.now())
		alice.to(bob, bob.deviceID, 1)
		got := waiting()
		equal(t, "what woke the device", numbers(got), "1")
		waiting = bob.poll(next(got))
		alice.to(bob, "*", 2)
		equal(t, "what woke all devices", numbers(waiting()), "2")
	})
}

func TestWhoIsNamedGetsTheMessage(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		phone, laptop := bob.login(), bob.login()
		devices := []*client{alice, bob, phone, laptop}
		since := make(map[*client]string)
		for _, c := range devices {
			since[c] = c.now()
		}
		large := strings.Repeat("ü", 2000)
		alice.toDevices("x.large", object{
			bob.userID:   object{"*": object{"n": large}, phone.deviceID: object{"n": "phone"}, "NOBODY": object{"n": "?"}},
			alice.userID: object{alice.deviceID: object{"n": large}},
			"@nobody-" + bob.localpart + ":test.example": object{"*": object{"n": "?"}},
			"@somebody:elsewhere.example":                object{"*": object{"n": "?"}, "A": object{"n": "?"}}})
		for c, want := range map[*client]string{alice: large, bob: large, laptop: large, phone: "phone"} {
			got := c.sync(since[c])
			equal(t, "a message", numbers(got), want)
			equal(t, "the rest", numbers(c.sync(next(got))), "")
		}
		alice.toDevices("x.none", object{})
		alice.toDevices("x.none", object{bob.userID: object{}})
		alice.toDevices("x.none", object{"@nobody-" + bob.localpart + ":test.example": object{"*": object{}}})
		equal(t, "what was for nobody", numbers(bob.sync(bob.now())), "")
	})
}

// A request that is repeated arrives once, wherever its repetitions arrive at the same time; another device's
// transaction of the same id is another one.
func TestAMessageIsSentOnceByItsTransaction(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		start := bob.now()
		const transactions, repetitions = 10, 4
		for n := range transactions {
			var all sync.WaitGroup
			for i := range repetitions {
				writer := *alice
				writer.base = d.urls[i%len(d.urls)]
				all.Go(func() {
					path := at("sendToDevice", "x.number", fmt.Sprint("same", n))
					if a := writer.call("PUT", path, object{"messages": object{bob.userID: object{"*": object{"n": n}}}}); a.status != http.StatusOK {
						t.Errorf("%d %s", a.status, a.body.Raw)
					}
				})
			}
			all.Wait()
		}
		equal(t, "what arrives", numbers(bob.sync(start)), "0 1 2 3 4 5 6 7 8 9")
		alice.must("PUT", at("sendToDevice", "x.other", "same0"), object{"messages": object{bob.userID: object{"*": object{"n": "type"}}}})
		alice.login().must("PUT", at("sendToDevice", "x.number", "same0"), object{"messages": object{bob.userID: object{"*": object{"n": "device"}}}})
		equal(t, "what arrives in all", numbers(bob.sync(start)), "0 1 2 3 4 5 6 7 8 9 type device")
	})
}

// An inbox is handed out in pages, and a token of another device neither removes nor skips anything.
func TestAnInboxComesInPages(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		other := bob.login()
		start := bob.now()
		var want []string
		for n := range 230 {
			alice.to(bob, "*", n)
			want = append(want, fmt.Sprint(n))
		}
		for _, c := range []*client{bob, other} {
			var got []string
			at := start
			for page := range 3 {
				answer := c.poll(at)() // does not wait
				n := len(answer.Get("to_device.events").Array())
				equal(t, fmt.Sprint("page ", page), n, []int{100, 100, 30}[page])
				got = append(got, numbers(answer))
				at = next(answer)
			}
			equal(t, "all pages", strings.Join(got, " "), strings.Join(want, " "))
			equal(t, "after them", numbers(c.sync(at)), "")
			start = at // a token of bob's, which says that he has all
		}
	})
}

// Deprecated endpoints have no messages, and so their tokens acknowledge none.
func TestTokensOfOtherEndpointsAcknowledgeNoMessages(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		alice.to(bob, "*", 1)
		initial := bob.must("GET", at("initialSync"), nil).Get("end").Str
		events := bob.must("GET", at("events")+"?timeout=0&from="+initial, nil).Get("end").Str
		for _, token := range []string{initial, events} {
			equal(t, "with a token of another endpoint", numbers(bob.sync(token)), "1")
		}
		got := bob.sync(events)
		events = bob.must("GET", at("events")+"?timeout=0&from="+next(got), nil).Get("end").Str
		alice.to(bob, "*", 2)
		equal(t, "on by way of another endpoint", numbers(bob.sync(events)), "2")
	})
}

// The inbox of a deleted device goes with it: another with its id gets only what is sent to it.
func TestADeletedDevicesMessagesGo(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		for round := range 5 {
			phone := d.anybody(t)
			phone.localpart, phone.password = bob.localpart, bob.password
			phone.took(phone.must("POST", at("login"), object{"type": "m.login.password", "password": bob.password,
				"identifier": object{"type": "m.id.user", "user": bob.localpart}, "device_id": "PHONE"}))
			alice.to(bob, "PHONE", fmt.Sprint("new ", round))
			first := phone.sync("")
			equal(t, "what a device gets", numbers(first), fmt.Sprint("new ", round))
			alice.to(bob, "*", "old")
			if round%2 == 0 {
				phone.must("POST", at("logout"), object{})
			} else {
				phone.must("POST", at("logout", "all"), object{})
				bob = bob.login()
			}
			alice.to(bob, "PHONE", "to nobody")
		}
	})
}

func TestMessagesToDevicesThatNobodyCanGetAreRefused(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		start := bob.now()
		send := func(body any) answer {
			t.Helper()
			return alice.call("PUT", at("sendToDevice", "x.bad", alice.txn()), body)
		}
		of := func(content string) []byte {
			return fmt.Appendf(nil, `{"messages":{%q:{%q:{"n":"good"},"*":%s}}}`, bob.userID, bob.deviceID, content)
		}
		many := make(object)
		for n := range 2001 {
			many[fmt.Sprint("DEVICE", n)] = object{}
		}
		for name, one := range map[string]struct {
			body any
			want string
		}{
			"no JSON":             {[]byte(`{"messages"`), "400 M_NOT_JSON"},
			"no messages":         {object{}, "400 M_MISSING_PARAM"},
			"null messages":       {object{"messages": nil}, "400 M_BAD_JSON"},
			"a list of messages":  {object{"messages": []string{}}, "400 M_BAD_JSON"},
			"a user with null":    {object{"messages": object{bob.userID: nil}}, "400 M_BAD_JSON"},
			"a user with a text":  {object{"messages": object{bob.userID: "x"}}, "400 M_BAD_JSON"},
			"no user":             {object{"messages": object{"bob": object{"*": object{}}}}, "400 M_INVALID_PARAM"},
			"a user with a NUL":   {object{"messages": object{"@a\x00:test.example": object{"*": object{}}}}, "400 M_INVALID_PARAM"},
			"null":                {of(`null`), "400 M_BAD_JSON"},
			"a list":              {of(`[]`), "400 M_BAD_JSON"},
			"a text":              {of(`"x"`), "400 M_BAD_JSON"},
			"a number":            {of(`1`), "400 M_BAD_JSON"},
			"too deep":            {of(strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat(`}`, 200)), "400 M_BAD_JSON"},
			"too large a message": {of(fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", 66_000))), "413 M_TOO_LARGE"},
			"too large a body":    {object{"messages": object{}, "x": strings.Repeat("x", 5<<20)}, "413 M_TOO_LARGE"},
			"too many devices":    {object{"messages": object{bob.userID: many}}, "413 M_TOO_LARGE"},
			"a long device id":    {object{"messages": object{bob.userID: object{strings.Repeat("x", 256): object{}}}}, "400 M_INVALID_PARAM"},
		} {
			a := send(one.body)
			equal(t, name, fmt.Sprintf("%d %s", a.status, a.errcode()), one.want)
		}
		alice.refused(400, "M_INVALID_PARAM", "PUT", at("sendToDevice", strings.Repeat("x", 256), "t"), object{"messages": object{}})
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "PUT", at("sendToDevice", "x.bad", "t"), object{"messages": object{}})
		equal(t, "after all that was refused", numbers(bob.sync(start)), "")
		odd := object{"n": "\x00 \u2028 \U0001f600", "A\x00": object{}}
		alice.toDevices("x.odd", object{bob.userID: object{"*": odd, "NO\x00BODY": object{}}})
		equal(t, "odd text", numbers(bob.sync(start)), "\x00 \u2028 \U0001f600")
	})
}

// Who is suspended may verify and supply their own devices, and nobody else's.
func TestASuspendedAccountSendsToItsOwnDevices(t *testing.T) {
	one(t, func(t *testing.T, d *deployment) {
		admin, alice, bob := d.admin(t), d.user(t, "alice"), d.user(t, "bob")
		phone, start := bob.login(), alice.now()
		admin.must("PUT", v1("admin", "suspend", bob.userID), object{"suspended": true})
		bob.everywhere(403, "M_USER_SUSPENDED", "POST", at("createRoom"), object{})
		bob.to(bob, phone.deviceID, 1)
		equal(t, "what they send themselves", numbers(phone.sync("")), "1")
		bob.refused(403, "M_USER_SUSPENDED", "PUT", at("sendToDevice", "m.room.encrypted", "t"), object{"messages": object{
			alice.userID: object{"*": object{"n": 1}}, bob.userID: object{"*": object{"n": 2}}}})
		equal(t, "what others get", numbers(alice.sync(start)), "")
		equal(t, "what came of what was refused", numbers(phone.sync("")), "1")
	})
}

// What is not acknowledged outlives a kill, and comes once.
func TestMessagesToDevicesOutliveAKill(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"monolith", "syncapi"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			which := monolithSQLite
			if kind == "syncapi" {
				which = polylith
			}
			d := own(t, which, func(*config.Config) {})
			alice, bob := d.user(t, "alice"), d.user(t, "bob")
			since := bob.now()
			for round := range 3 {
				alice.to(bob, bob.deviceID, 2*round)
				server := d.process(t, kind)
				if err := server.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				alice.to(bob, bob.deviceID, 2*round+1)
				got := bob.sync(since)
				equal(t, "after a kill", numbers(got), fmt.Sprintf("%d %d", 2*round, 2*round+1))
				since = next(got)
			}
			equal(t, "in the end", numbers(bob.sync(since)), "")
		})
	}
}
