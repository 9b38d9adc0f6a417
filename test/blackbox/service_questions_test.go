package blackbox

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

// questions are what a service was asked, each as method and URI.
type questions struct {
	mu  sync.Mutex
	all []string
}

func (q *questions) add(r *http.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, r.Method+" "+r.RequestURI)
}

// about counts those whose URI has a text.
func (q *questions) about(text string) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, one := range q.all {
		if strings.Contains(one, text) {
			n++
		}
	}
	return n
}

// asks has a service answer questions: how is called with what is asked for, a user or an alias, and tells the status.
func (s *service) asks(how func(name string) (status int)) *questions {
	asked := &questions{}
	s.handles(func(w http.ResponseWriter, r *http.Request) bool {
		name, is := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/users/")
		if !is {
			if name, is = strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/rooms/"); !is {
				return false
			}
		}
		asked.add(r)
		status := how(name)
		if status == 0 {
			panic(http.ErrAbortHandler) // the connection ends
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{}`) // the server may have gone
		return true
	})
	return asked
}

// try sends a request from a goroutine of the service.
func (s *service) try(c *client, method, path string, body any) gjson.Result {
	a := c.call(method, path, body)
	if a.status != http.StatusOK {
		s.t.Errorf("the service: %s %s: %d %s", method, path, a.status, a.body.Raw)
	}
	return a.body
}

// makes has a service make what it is asked for: users with a name, and public rooms. It looks first whether they are
// there, as bridges do.
func (s *service) makes() *questions {
	return s.asks(func(name string) int {
		bot := s.As("")
		localpart, _, _ := strings.Cut(name[1:], ":")
		if name[0] == '#' {
			if a := bot.call("GET", at("directory", "room", name), nil); a.status != http.StatusNotFound {
				s.t.Errorf("the service looks for %s: %d %s", name, a.status, a.body.Raw)
			}
			s.try(bot, "POST", at("createRoom"), object{"preset": "public_chat", "room_alias_name": localpart})
			return http.StatusOK
		}
		if a := bot.call("GET", at("profile", name), nil); a.status != http.StatusNotFound {
			s.t.Errorf("the service looks for %s: %d %s", name, a.status, a.body.Raw)
		}
		s.try(bot, "POST", at("register"), object{"type": "m.login.application_service", "username": localpart, "inhibit_login": true})
		s.try(s.As(name), "PUT", at("profile", name, "displayname"), object{"displayname": "Made " + localpart})
		return http.StatusOK
	})
}

// alias is an alias of the service.
func (s *service) alias(name string) string { return "#" + s.prefix + name + ":test.example" }

func TestAServiceMakesTheRoomsThatItIsAskedFor(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		asked := s.makes()
		alice, bob := d.user(t, "alice"), d.user(t, "bob")

		found := d.anybody(t).must("GET", at("directory", "room", s.alias("a/b")), nil)
		again := bob.must("GET", at("directory", "room", s.alias("a/b")), nil)
		if found.Get("room_id").Str == "" || again.Get("room_id").Str != found.Get("room_id").Str {
			t.Errorf("found %s, and then %s", found.Raw, again.Raw)
		}
		if n := asked.about(url.PathEscape(s.alias("a/b"))); n != 1 {
			t.Errorf("the service was asked %d times for an alias that it made: %q", n, asked.all)
		}

		// Many who join at once join the one room.
		const many = 5
		var rooms [many]string
		var all sync.WaitGroup
		for i := range many {
			user := d.user(t, "many")
			all.Go(func() { rooms[i] = s.try(user, "POST", at("join", s.alias("join")), object{}).Get("room_id").Str })
		}
		all.Wait()
		for _, room := range rooms {
			if room == "" || room != rooms[0] {
				t.Errorf("they joined %q", rooms)
				break
			}
		}
		if summary := alice.must("GET", "/_matrix/client/v1/room_summary/"+url.PathEscape(s.alias("summary")), nil); summary.Get("room_id").Str == "" {
			t.Errorf("summary %s", summary.Raw)
		}
		// A knock finds the room, though it is open to all.
		alice.refused(403, "M_FORBIDDEN", "POST", at("knock", s.alias("knock")), object{})
		if asked.about("knock") == 0 {
			t.Error("the service was not asked for the alias of a knock")
		}
		// What is in nobody's namespace, or on another server, is not asked for.
		before := asked.about("")
		alice.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", "#other:test.example"), nil)
		if a := alice.call("GET", at("directory", "room", "#"+s.prefix+"x:elsewhere.example"), nil); a.status == http.StatusOK {
			t.Errorf("an alias of another server is found: %s", a.body.Raw)
		}
		if n := asked.about(""); n != before {
			t.Errorf("the service was asked for what is not its: %q", asked.all[before:])
		}
	})
}

func TestAServiceMakesTheUsersThatItIsAskedFor(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		asked := s.makes()
		alice := d.user(t, "alice")

		if profile := d.anybody(t).must("GET", at("profile", s.user("seen")), nil); profile.Get("displayname").Str != "Made "+s.prefix+"seen" {
			t.Errorf("profile %s", profile.Raw)
		}
		alice.must("GET", at("profile", s.user("field"), "displayname"), nil)

		// Whoever is invited is made before, so that the invite shows their name.
		room := alice.must("POST", at("createRoom"), object{"preset": "private_chat", "invite": []string{s.user("first")}}).Get("room_id").Str
		alice.must("POST", at("rooms", room, "invite"), object{"user_id": s.user("second")})
		alice.must("PUT", at("rooms", room, "state", "m.room.member", s.user("third")), object{"membership": "invite"})
		for name, shown := range map[string]string{"first": "Made " + s.prefix + "first", "second": "Made " + s.prefix + "second", "third": ""} {
			if n := asked.about(url.PathEscape(s.user(name))); n != 1 {
				t.Errorf("%s was asked for %d times", name, n)
			}
			member := alice.must("GET", at("rooms", room, "state", "m.room.member", s.user(name)), nil)
			if member.Get("membership").Str != "invite" || member.Get("displayname").Str != shown {
				t.Errorf("%s: %s", name, member.Raw)
			}
			s.As(s.user(name)).join(room)
		}
		// A service that invites its own user is not asked: it waits for the answer.
		s.As(s.user("second")).must("POST", at("rooms", room, "invite"), object{"user_id": s.user("own")})
		if n := asked.about(url.PathEscape(s.user("own"))); n != 0 {
			t.Errorf("the service was asked for whom it invites itself, %d times", n)
		}
		// Users who are there are not asked for.
		before := asked.about("")
		alice.must("GET", at("profile", s.user("seen")), nil)
		alice.refused(404, "M_NOT_FOUND", "GET", at("profile", "@nobody:test.example"), nil)
		if n := asked.about(""); n != before {
			t.Errorf("the service was asked: %q", asked.all[before:])
		}
	})
}

func TestAServiceThatDeclinesOrDoesNotAnswer(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice := d.user(t, "alice")
		declined := s.asks(func(string) int { return http.StatusNotFound })
		for range 6 {
			alice.refused(404, "M_NOT_FOUND", "GET", at("directory", "room", s.alias("no")), nil)
		}
		// Each replica asks for itself.
		if n := declined.about(url.PathEscape(s.alias("no"))); n < 1 || n > 2 {
			t.Errorf("a service that had declined was asked %d times", n)
		}
		alice.refused(404, "M_NOT_FOUND", "POST", at("join", s.alias("no")), object{})
		alice.refused(404, "M_NOT_FOUND", "GET", at("profile", s.user("no")), nil)

		silent := s.asks(func(string) int { return 0 })
		alice.refused(408, "M_UNKNOWN", "GET", at("directory", "room", s.alias("silent")), nil)
		if n := silent.about(url.PathEscape(s.alias("silent"))); n < 3 {
			t.Errorf("a service that does not answer was asked %d times only", n)
		}
		alice.refused(408, "M_UNKNOWN", "POST", at("join", s.alias("silent-join")), object{})
		alice.refused(408, "M_UNKNOWN", "GET", at("profile", s.user("silent")), nil)
		// An invite goes out all the same: the service will hear of it.
		room := alice.publicRoom()
		alice.must("POST", at("rooms", room, "invite"), object{"user_id": s.user("invited")})

		// A room that was made, though the answer was lost, is found.
		s.asks(func(name string) int {
			localpart, _, _ := strings.Cut(name[1:], ":")
			s.As("").call("POST", at("createRoom"), object{"preset": "public_chat", "room_alias_name": localpart})
			return http.StatusInternalServerError
		})
		alice.must("GET", at("directory", "room", s.alias("lost")), nil)
	})
}

func TestPings(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		const ping, unstable = "/_matrix/client/v1/appservice/", "/_matrix/client/unstable/fi.mau.msc2659/appservice/"
		var mu sync.Mutex
		status, got := http.StatusOK, ""
		set := func(to int) {
			mu.Lock()
			defer mu.Unlock()
			status = to
		}
		s.handles(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/_matrix/app/v1/ping" {
				return false
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return true
			}
			mu.Lock()
			defer mu.Unlock()
			got = string(body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN"}`)
			return true
		})
		for _, path := range []string{ping, unstable} {
			answer := s.As("").must("POST", path+s.id+"/ping", object{"transaction_id": "meow"})
			if duration := answer.Get("duration_ms"); duration.Type != gjson.Number || duration.Int() < 0 || got != `{"transaction_id":"meow"}` {
				t.Errorf("answer %s, the service got %s", answer.Raw, got)
			}
		}
		other := newService(t, d, nil)
		other.As("").refused(403, "M_FORBIDDEN", "POST", ping+s.id+"/ping", object{})
		d.user(t, "alice").refused(403, "M_FORBIDDEN", "POST", ping+s.id+"/ping", object{})
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "POST", ping+s.id+"/ping", object{})

		// A ping that fails tells why, and takes no event from the service.
		set(http.StatusForbidden)
		failed := s.As("").refused(502, "M_BAD_STATUS", "POST", ping+s.id+"/ping", object{})
		if failed.body.Get("status").Int() != 403 || failed.body.Get("body").Str != `{"errcode":"M_FORBIDDEN"}` {
			t.Errorf("answer %s", failed.body.Raw)
		}
		alice := d.user(t, "alice")
		room := s.bridged(alice)
		s.event(alice.must("PUT", at("rooms", room, "send", "m.room.message", alice.txn()), object{"msgtype": "m.text", "body": "still"}).Get("event_id").Str)

		s.registration["url"] = nil
		s.register(s.registration)
		s.As("").refused(400, "M_URL_NOT_SET", "POST", ping+s.id+"/ping", object{})
		s.registration["url"] = "http://127.0.0.1:1"
		s.register(s.registration)
		s.As("").refused(502, "M_CONNECTION_FAILED", "POST", ping+s.id+"/ping", object{})
	})
}

func TestThirdPartyLookups(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		asked := &questions{}
		protocol := ""
		network := func(name string) *service {
			s := newService(t, d, func(s *service, registration object) {
				if protocol == "" {
					protocol = s.prefix + "net/1"
				}
				registration["protocols"] = []string{protocol}
			})
			s.handles(func(w http.ResponseWriter, r *http.Request) bool {
				path, is := strings.CutPrefix(r.URL.EscapedPath(), "/_matrix/app/v1/thirdparty/")
				if !is {
					return false
				}
				asked.add(r)
				kind, _, _ := strings.Cut(path, "/")
				_, _ = io.WriteString(w, map[string]string{
					"protocol": `{"user_fields":["nick"],"instances":[{"network_id":"` + name + `","desc":"Network","fields":{},"bot_user_id":"` + s.sender + `"}]}`,
					"location": `[{"alias":"` + s.alias(name) + `","protocol":"` + protocol + `","fields":{"channel":"x"}}]`,
					"user":     `[{"userid":"` + s.user(name) + `","protocol":"` + protocol + `","fields":{"nick":"x"}},{"userid":"none"}]`,
				}[kind])
				return true
			})
			return s
		}
		one, two := network("one"), network("two")
		broken := newService(t, d, func(_ *service, registration object) { registration["protocols"] = []string{protocol} })
		broken.handles(func(w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.WriteString(w, "<html>")
			return strings.HasPrefix(r.URL.Path, "/_matrix/app/v1/thirdparty/")
		})
		alice := d.user(t, "alice")
		// members are those of the results of a lookup, in an order of their own.
		members := func(list gjson.Result, name string) []string {
			var all []string
			for _, one := range list.Array() {
				all = append(all, one.Get(name).Str)
			}
			slices.Sort(all)
			return all
		}
		equal := func(what string, got []string, want ...string) {
			t.Helper()
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		found := alice.must("GET", at("thirdparty", "protocol", protocol), nil)
		equal("instances", members(found.Get("instances"), "instance_id"), one.id+"|one", two.id+"|two")
		equal("bots", members(found.Get("instances"), "bot_user_id"), one.sender, two.sender)
		if all := alice.must("GET", at("thirdparty", "protocols"), nil).Map()[protocol]; all.Get("user_fields.0").Str != "nick" || !all.Get("icon").Exists() {
			t.Errorf("among all protocols: %s", all.Raw)
		}
		equal("locations", members(alice.must("GET", at("thirdparty", "location", protocol)+"?channel=%23x&access_token=x", nil), "alias"),
			one.alias("one"), two.alias("two"))
		if asked.about("?channel=%23x") != 2 || asked.about("access_token") != 0 {
			t.Errorf("the services were asked %q", asked.all)
		}
		equal("users", members(alice.must("GET", at("thirdparty", "user", protocol)+"?nick=x", nil), "userid"), one.user("one"), two.user("two"))
		one.ghost("asks").must("GET", at("thirdparty", "user", protocol)+"?nick=ghost", nil)
		if asked.about("nick=ghost&") != 0 {
			t.Errorf("whom a service acts as is passed on: %q", asked.all)
		}
		if n := len(members(alice.must("GET", at("thirdparty", "location")+"?alias=%23x:test.example", nil), "alias")); n < 2 {
			t.Errorf("%d locations of an alias", n)
		}
		if n := len(members(alice.must("GET", "/_matrix/client/r0/thirdparty/user?userid=@x:test.example", nil), "userid")); n < 2 {
			t.Errorf("%d users of a user", n)
		}
		alice.refused(404, "M_NOT_FOUND", "GET", at("thirdparty", "protocol", "none"), nil)
		alice.refused(400, "M_MISSING_PARAM", "GET", at("thirdparty", "location"), nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", at("thirdparty", "user")+"?userid=x", nil)
		alice.refused(400, "M_INVALID_PARAM", "GET", at("thirdparty", "user", protocol)+"?x="+strings.Repeat("x", 9000), nil)
		d.anybody(t).refused(401, "M_MISSING_TOKEN", "GET", at("thirdparty", "protocols"), nil)

		// The directory of an instance is found under its instance_id.
		room := one.As("").must("POST", at("createRoom"), object{"preset": "public_chat"}).Get("room_id").Str
		one.As("").must("PUT", at("directory", "list", "appservice", "one", room), object{"visibility": "public"})
		for instance, rooms := range map[string]int{one.id + "|one": 1, two.id + "|two": 0} {
			page := alice.must("POST", at("publicRooms"), object{"third_party_instance_id": instance})
			if n := len(page.Get("chunk").Array()); n != rooms {
				t.Errorf("the directory of %s: %s", instance, page.Raw)
			}
		}
	})
}
