package blackbox

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/test/deploy"
)

// Application Service API, § Timestamp massaging.
func TestTimestampsOfAService(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, alice := newService(t, d, nil), d.user(t, "alice")
		bob := s.ghost("bob")
		for _, version := range []string{"10", "12"} {
			users := object{bob.userID: 100}
			if version == "10" {
				users[alice.userID] = 100
			}
			room := alice.createRoom(object{"preset": "public_chat", "room_version": version, "power_level_content_override": object{"users": users}})
			since := alice.sync("").Get("next_batch").Str
			ts := int64(1_234_567_890_000)
			next := func() string { ts++; return "?ts=" + strconv.FormatInt(ts, 10) }
			want := make(map[string]int64)
			put := func(path string, body object) string {
				t.Helper()
				eventID := bob.must("PUT", path+next(), body).Get("event_id").Str
				want[eventID] = ts
				return eventID
			}
			bob.must("POST", at("join", room)+next(), object{})
			joined := bob.must("GET", at("rooms", room, "state", "m.room.member", bob.userID)+"?format=event", nil)
			want[joined.Get("event_id").Str] = ts
			message := object{"msgtype": "m.text", "body": "old"}
			path := at("rooms", room, "send", "m.room.message", bob.txn())
			said := put(path, message)
			equal(t, "the same transaction again", bob.must("PUT", path+"?ts=5", message).Get("event_id").Str, said)
			put(at("rooms", room, "state", "m.room.member", bob.userID), object{"membership": "join", "displayname": "Bob"})
			put(at("rooms", room, "state", "m.x", ""), object{"a": 1})
			put(at("rooms", room, "redact", said, bob.txn()), object{})
			// A redaction as an event like others has its timestamp too (MSC4169).
			target := bob.say(room, "to be redacted")
			put(at("rooms", room, "send", "m.room.redaction", bob.txn()), object{"redacts": target})
			first := bob.must("PUT", at("rooms", room, "send", "m.room.message", bob.txn())+"?ts=0", message).Get("event_id").Str
			want[first] = 1
			gone := alice.must("GET", at("rooms", room, "event", target), nil)
			if gone.Get("content.body").Exists() || !gone.Get("unsigned.redacted_because").Exists() {
				t.Errorf("version %s: not redacted: %s", version, gone.Raw)
			}

			seen := make(map[string]int64)
			for _, e := range roomIn(alice.sync(since, filtered(object{"room": object{"timeline": object{"limit": 50}}})...), "join", room).
				Get("timeline.events").Array() {
				seen[e.Get("event_id").Str] = e.Get("origin_server_ts").Int()
			}
			read := make(map[string]int64)
			for _, e := range alice.must("GET", at("rooms", room, "messages")+"?dir=b&limit=50", nil).Get("chunk").Array() {
				read[e.Get("event_id").Str] = e.Get("origin_server_ts").Int()
			}
			for eventID, ts := range want {
				if seen[eventID] != ts || read[eventID] != ts {
					t.Errorf("version %s: %s has %d in /sync and %d in /messages, want %d", version, eventID, seen[eventID], read[eventID], ts)
				}
			}
			for _, bad := range []string{"-1", "x", "1.5", "9007199254740992", "99999999999999999999"} {
				for _, path := range []string{at("rooms", room, "send", "m.room.message", "bad"), at("rooms", room, "state", "m.x", "bad")} {
					bob.refused(400, "M_INVALID_PARAM", "PUT", path+"?ts="+bad, message)
				}
			}
			bob.refused(404, "M_NOT_FOUND", "GET", at("rooms", room, "state", "m.x", "bad"), nil)
			before := time.Now().Add(-time.Minute).UnixMilli()
			for _, ts := range []string{"5", "-1", "x"} {
				mine := alice.must("PUT", at("rooms", room, "send", "m.room.message", alice.txn())+"?ts="+ts, message).Get("event_id").Str
				if got := alice.must("GET", at("rooms", room, "event", mine), nil).Get("origin_server_ts").Int(); got < before {
					t.Errorf("a user has set a timestamp to %d", got)
				}
			}
		}
	})
}

// A registration says whether the requests of a service's users are limited: by every limit there is, or by none.
func TestRateLimitsOfAService(t *testing.T) {
	d := own(t, deploy.MonolithSQLite, func(c *config.Config) {
		c.Matrix.RateLimits.Disabled = false
		for name := range c.Matrix.RateLimits.ByName {
			c.Matrix.RateLimits.ByName[name] = config.RateLimit{PerSecond: 0.0001, Burst: 2}
		}
	})
	free := newService(t, d, nil)
	limited := newService(t, d, func(_ *service, registration object) { delete(registration, "rate_limited") })
	alice := d.anybody(t)
	alice.localpart, alice.password = "alice", "long enough 1"
	alice.register(false)
	const many = 5 // more than the limits let through
	every := func(s *service, c *client) map[string]func(i int) answer {
		number := func(i int) string { return c.userID + strconv.Itoa(i) }
		room := c.call("POST", at("createRoom"), object{"preset": "public_chat"}).body.Get("room_id").Str
		calls := map[string]func(i int) answer{
			"room": func(int) answer { return c.call("POST", at("createRoom"), object{}) },
			"message": func(i int) answer {
				return c.call("PUT", at("rooms", room, "send", "m.room.message", number(i)), object{"body": "x"})
			},
			"membership": func(int) answer { return c.call("POST", at("join", room), object{}) },
			"invite": func(int) answer {
				return c.call("POST", at("rooms", room, "invite"), object{"user_id": alice.userID})
			},
			"profile": func(int) answer {
				return c.call("PUT", at("profile", c.userID, "displayname"), object{"displayname": "x"})
			},
			"keys":      func(int) answer { return c.call("POST", at("keys", "query"), object{"device_keys": object{}}) },
			"directory": func(int) answer { return c.call("GET", at("publicRooms"), nil) },
			"ephemeral": func(int) answer {
				return c.call("PUT", at("rooms", room, "typing", c.userID), object{"typing": false})
			},
			"to_device": func(i int) answer {
				return c.call("PUT", at("sendToDevice", "m.dummy", number(i)), object{"messages": object{}})
			},
			"account_data": func(int) answer {
				return c.call("PUT", at("user", c.userID, "account_data", "m.x"), object{})
			},
		}
		if s != nil {
			calls["registration"] = func(i int) answer {
				return c.call("POST", at("register"), registration(s.prefix+"r"+strconv.Itoa(i)+strings.TrimPrefix(c.userID, "@"+s.prefix)[:1]))
			}
			calls["login"] = func(int) answer { return c.call("POST", at("login"), serviceLogin(s.prefix+"bot")) }
		}
		return calls
	}
	check := func(what string, s *service, c *client, wants func(limit string) bool) {
		t.Helper()
		for name, call := range every(s, c) {
			limits := 0
			for i := range many {
				a := call(i)
				switch {
				case a.status == 429 && a.errcode() == "M_LIMIT_EXCEEDED":
					limits++
				case a.status != 200 && name != "invite" && name != "directory":
					t.Errorf("%s, %s: %d %s", what, name, a.status, a.body.Raw)
				}
			}
			if (limits > 0) != wants(name) {
				t.Errorf("%s, %s: %d of %d requests are beyond the limit", what, name, limits, many)
			}
		}
	}
	ghosts := []*client{free.As(""), free.ghost("x"), free.ghost("y")}
	for _, c := range ghosts {
		check("a service without limits as "+c.userID, free, c, func(string) bool { return false })
	}
	// Nor do they count for a token of such a user's own.
	session := d.anybody(t)
	session.took(free.As("").must("POST", at("login"), serviceLogin(free.prefix+"x")))
	check("a user of a service without limits, with a token", nil, session, func(limit string) bool { return limit == "directory" })
	// The service's own user never is. What nobody's user asks for is the service's.
	check("a service with limits as itself", limited, limited.As(""), func(limit string) bool {
		return limit == "registration" || limit == "login" || limit == "directory"
	})
	one := limited.As(limited.user("r0b"))
	check("a user of a service with limits", nil, one, func(string) bool { return true })
	check("a user", nil, alice, func(string) bool { return true })
}
