package blackbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/test/deploy"
)

// wantsEphemeral is a registration by one of the names that the member has had.
func wantsEphemeral(name string) func(*service, object) {
	return func(_ *service, registration object) { registration[name] = true }
}

// typing waits for the nth m.typing of a room in which these users type.
func (s *service) typing(room string, nth int, want ...*client) {
	s.t.Helper()
	s.await("typing", func(attempts []transaction) bool {
		n := 0
		for _, e := range entries(attempts, "ephemeral") {
			if e.Get("type").Str != "m.typing" || e.Get("room_id").Str != room {
				continue
			}
			var who []string
			for _, user := range e.Get("content.user_ids").Array() {
				who = append(who, user.Str)
			}
			if slices.Sort(who); slices.Equal(who, users(want...)) {
				n++
			}
		}
		return n >= nth
	})
}

// follows makes sure that appservice follows what is said in a room: it begins some time after the first start.
func (s *service) follows(room string, who *client) {
	s.t.Helper()
	for deadline := time.Now().Add(serviceWait); len(s.eventsOf(room)) == 0; {
		if time.Now().After(deadline) {
			s.t.Fatalf("the service gets nothing of %s", room)
		}
		_, changed := s.sent()
		who.say(room, "is anybody there?")
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
}

func TestAServiceGetsWhatIsEphemeral(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		for _, name := range []string{"receive_ephemeral", "push_ephemeral", "de.sorunome.msc2409.push_ephemeral"} {
			s, plain := newService(t, d, wantsEphemeral(name)), newService(t, d, nil)
			alice, ghost, other := d.user(t, "alice"), s.ghost("ghost"), plain.ghost("ghost")
			room, elsewhere := alice.publicRoom(), alice.publicRoom()
			for _, c := range []*client{ghost, other} {
				c.join(room)
			}
			s.follows(room, alice)

			alice.types(elsewhere)
			alice.types(room)
			s.typing(room, 1, alice)
			message := alice.say(room, "done")
			s.typing(room, 1)

			reads := func(kind, event, user string) func(gjson.Result) bool {
				return func(e gjson.Result) bool {
					return e.Get("type").Str == "m.receipt" && e.Get("room_id").Str == room &&
						e.Get("content."+escape(event)+"."+escape(kind)+"."+escape(user)+".ts").Exists()
				}
			}
			alice.must("POST", at("rooms", room, "receipt", "m.read.private", message), object{})
			alice.must("POST", at("rooms", room, "receipt", "m.read", message), object{"thread_id": "main"})
			s.entry("ephemeral", reads("m.read", message, alice.userID))
			ghost.must("POST", at("rooms", room, "receipt", "m.read.private", message), object{})
			s.entry("de.sorunome.msc2409.ephemeral", reads("m.read.private", message, ghost.userID))

			alice.must("PUT", at("presence", alice.userID, "status"), object{"presence": "online", "status_msg": s.id})
			s.entry("ephemeral", func(e gjson.Result) bool {
				return e.Get("type").Str == "m.presence" && e.Get("sender").Str == alice.userID &&
					e.Get("content.status_msg").Str == s.id
			})
			attempts, _ := s.sent()
			for _, e := range entries(attempts, "ephemeral") {
				if strings.Contains(e.Get("content").Raw, "m.read.private") && strings.Contains(e.Raw, alice.userID) {
					t.Errorf("a private receipt of somebody else: %s", e.Raw)
				}
				if e.Get("room_id").Str == elsewhere {
					t.Errorf("of a room without a user of the service: %s", e.Raw)
				}
			}
			attempts, _ = plain.sent()
			if got := entries(attempts, "ephemeral"); len(got) > 0 {
				t.Errorf("who has not asked gets %v", got)
			}
		}
	})
}

// What a service was told to type does not stay so when the processes end that told it.
func TestTypingOfAServiceEndsOverARestart(t *testing.T) {
	for _, kind := range []deploy.Kind{deploy.MonolithSQLite, deploy.Polylith} {
		t.Run(string(kind), func(t *testing.T) {
			d := own(t, kind, nil)
			s := newService(t, d, wantsEphemeral("receive_ephemeral"))
			alice, ghost := d.user(t, "alice"), s.ghost("ghost")
			room := alice.publicRoom()
			ghost.join(room)
			s.follows(room, alice)
			alice.types(room)
			s.typing(room, 1, alice)
			for _, server := range d.Processes() {
				if kind == deploy.MonolithSQLite || strings.HasPrefix(server.Name, "appservice") ||
					strings.HasPrefix(server.Name, "typingserver") {
					if err := server.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, server := range d.Processes() {
				select {
				case <-server.Ended():
					if err := server.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				default:
				}
			}
			s.typing(room, 1)
		})
	}
}
