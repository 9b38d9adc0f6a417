package blackbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// ping has the server ask a service whether it is there, which flushes what waits.
func (s *service) ping() {
	s.t.Helper()
	s.As("").must("POST", "/_matrix/client/v1/appservice/"+s.id+"/ping", object{})
}

// bridged is a public room of a user, with a user of the service in it.
func (s *service) bridged(owner *client) (room string) {
	s.t.Helper()
	room = owner.publicRoom()
	s.ghost("ghost" + strings.ToLower(room[1:9])).join(room)
	return room
}

// has waits until the service has got events of a room, and checks that it got all, once and in order.
func (s *service) has(room string, want []string) {
	s.t.Helper()
	s.event(want[len(want)-1])
	got := s.eventsOf(room)
	if at := slices.Index(got, want[0]); at < 0 || !slices.Equal(got[at:], want) {
		s.t.Errorf("the service got %d events of %s from %s on, want %d in their order", len(got)-max(0, at), room,
			want[0], len(want))
	}
}

// refuses answers every transaction with a status.
func refuses(status int) func(http.ResponseWriter, *http.Request, transaction) (int, string) {
	return func(http.ResponseWriter, *http.Request, transaction) (int, string) { return status, "{}" }
}

func TestRegistrationsAreReadWhileTheServerRuns(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		if err := d.Register(s.id+"-bad", "id: only"); err == nil {
			t.Error("a registration without its keys is taken")
		}
		if err := d.Register(s.id+"-bad", ""); err != nil {
			t.Error(err)
		}
	})
}

func TestAServiceGetsWhatHappensInTheRoomsOfItsUsers(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice, ghost := d.user(t, "alice"), s.ghost("ghost")
		room := alice.publicRoom()
		before := alice.say(room, "nobody hears this")
		alice.must("POST", at("rooms", room, "invite"), object{"user_id": ghost.userID})
		ghost.join(room)
		message := alice.say(room, "hello")
		got := s.event(message)
		equal(t, "body", got.Get("content.body").Str, "hello")
		equal(t, "room", got.Get("room_id").Str, room)
		if !got.Get("unsigned.age").Exists() {
			t.Errorf("no age in %s", got.Raw)
		}
		events := s.eventsOf(room)
		if len(events) != 3 || events[2] != message {
			t.Fatalf("the service got %v, want the invite, the join and the message", events)
		}
		if events[0] == before {
			t.Error("the service got what was said before its user was invited")
		}
		invite := s.event(events[0])
		equal(t, "membership", invite.Get("content.membership").Str, "invite")
		if find(invite.Get("unsigned.invite_room_state"), "m.room.create", "").Raw == "" {
			t.Errorf("no stripped state in %s", invite.Raw)
		}
	})
}

func TestAServiceThatWasAwayGetsEverythingInOrder(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice := d.user(t, "alice")
		room := s.bridged(alice)
		s.answers(refuses(http.StatusBadGateway))
		var want []string
		for i := range test.Soak(1000, 10_000) {
			want = append(want, alice.say(room, fmt.Sprint("message ", i)))
		}
		before, _ := s.sent()
		s.answers(nil)
		s.ping()
		s.has(room, want)
		after, _ := s.sent()
		if n := len(after) - len(before); n > len(want)/100+20 {
			t.Errorf("%d events were sent in %d transactions", len(want), n)
		}
	})
}

// A5, and hostile services: what one does changes nothing for another.
func TestOneServiceDoesNotDelayAnother(t *testing.T) {
	const hung = time.Minute // how long the server waits for a service
	run(t, func(t *testing.T, d *deployment) {
		good, bad := newService(t, d, nil), newService(t, d, nil)
		alice := d.user(t, "alice")
		theirs, room := bad.bridged(alice), good.bridged(alice)
		slowest := func() time.Duration {
			var all []time.Duration
			for range 100 {
				began := time.Now()
				event := alice.say(room, "hello")
				good.event(event)
				all = append(all, time.Since(began))
			}
			slices.Sort(all)
			return all[len(all)-2]
		}
		alice.say(theirs, "first")
		alone := slowest()
		bad.answers(func(_ http.ResponseWriter, r *http.Request, _ transaction) (int, string) {
			<-r.Context().Done()
			return 0, ""
		})
		var missed []string
		for range 50 {
			missed = append(missed, alice.say(theirs, "not taken"))
		}
		beside := slowest()
		t.Logf("99 of 100 events arrive within %v alone, and within %v beside a service that hangs", alone, beside)
		// Who waits for the other waits as long as its request hangs, which is a minute. The soak compares times.
		most := max(hung/6, alone*3/2)
		if test.Soak(0, 1) == 1 {
			most = alone*3/2 + 50*time.Millisecond
		}
		if beside > most {
			t.Errorf("events arrive within %v, and within %v alone", beside, alone)
		}
		bad.answers(nil)
		bad.CloseClientConnections()
		bad.ping()
		bad.has(theirs, missed)
	})
}

func TestNamespacesThatGrowTakeInRooms(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s, other := newService(t, d, nil), newService(t, d, nil)
		alice, bob := d.user(t, "alice"), d.user(t, "bob")
		room := other.bridged(alice)
		bob.join(room)
		other.event(alice.say(room, "only the other hears this"))
		grown := object{}
		for k, v := range s.registration {
			grown[k] = v
		}
		grown["namespaces"] = object{"users": []object{{"exclusive": false, "regex": bob.userID}},
			"aliases": []object{}, "rooms": []object{}}
		s.register(grown)
		want := []string{alice.say(room, "one"), alice.say(room, "two")}
		s.has(room, want)
		if got := s.eventsOf(room); len(got) != 2 {
			t.Errorf("the service got %v, want %v", got, want)
		}
		silent := object{}
		for k, v := range grown {
			silent[k] = v
		}
		silent["url"] = nil
		s.register(silent)
		other.event(alice.say(room, "without a url"))
		s.register(grown)
		last := alice.say(room, "with it again")
		s.event(last)
		if got := s.eventsOf(room); !slices.Equal(got, append(want, last)) {
			t.Errorf("the service got %v, want %v and %s", got, want, last)
		}
	})
}

func TestAnAliasMakesARoomTheirs(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice, bot := d.user(t, "alice"), s.ghost("maker")
		room := alice.publicRoom()
		bot.join(room)
		alias := "#" + s.prefix + "room:test.example"
		bot.must("PUT", at("directory", "room", alias), object{"room_id": room})
		bot.must("POST", at("rooms", room, "leave"), object{})
		s.event(alice.say(room, "nobody of theirs is here"))
	})
}

func TestOperatorsSeeAndSettleWhatWaits(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		s := newService(t, d, nil)
		alice := d.user(t, "alice")
		room := s.bridged(alice)
		s.event(alice.say(room, "taken"))
		s.answers(refuses(http.StatusTeapot))
		for range 5 {
			alice.say(room, "never taken")
		}
		s.await("a refusal", func(all []transaction) bool { return !all[len(all)-1].took })
		path, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		tool := func(args ...string) string {
			t.Helper()
			out, err := exec.Command(path, append(append([]string{"appservice"}, args...), "--config", d.file)...).
				CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
			return string(out)
		}
		for status := ""; !strings.Contains(status, "down") || !strings.Contains(status, "418"); {
			status = tool("status", s.id)
		}
		if out := tool("skip", s.id, "--all"); !strings.Contains(out, "--yes") {
			t.Errorf("skip without --yes says %q", out)
		}
		if out := tool("skip", s.id, "--all", "--yes"); !strings.Contains(out, "Dropped 5 events") {
			t.Errorf("skip says %q", out)
		}
		s.answers(nil)
		tool("retry", s.id)
		last := alice.say(room, "taken again")
		s.event(last)
		if got := s.eventsOf(room); got[len(got)-1] != last || slices.Contains(bodiesOf(s), "never taken") {
			t.Errorf("the service got %v", bodiesOf(s))
		}
		for status := ""; !strings.Contains(status, " up "); { // its answer is noted after it was given
			status = tool("status", s.id)
		}
	})
}

// bodiesOf are the texts of the messages that a service has got.
func bodiesOf(s *service) (all []string) {
	attempts, _ := s.sent()
	for _, e := range entries(attempts, "events") {
		all = append(all, e.Get("content.body").Str)
	}
	return all
}

// What sends is killed under load, again and again: a gap, another order or another transaction under a used id
// would show.
func TestAKillOfAppserviceLosesNothing(t *testing.T) {
	kill := func(t *testing.T, kind deploy.Kind, o deploy.Options, names ...string) {
		t.Helper()
		d := deployed(deploy.Own(t, kind, o))
		random := rand.New(rand.NewPCG(test.Seed(t), 1))
		s := newService(t, d, nil)
		alice := d.user(t, "alice")
		rooms := []string{s.bridged(alice), s.bridged(alice), s.bridged(alice)}
		s.answers(func(http.ResponseWriter, *http.Request, transaction) (int, string) {
			if rand.IntN(4) == 0 {
				return http.StatusInternalServerError, "{}"
			}
			return http.StatusOK, "{}"
		})
		if kind == polylith {
			alice.base = "http://" + d.config.Listen.For("clientapi").Public
		}
		want := make(map[string][]string)
		for range test.Soak(4, 20) {
			name := names[random.IntN(len(names))]
			for range 20 + random.IntN(30) {
				room := rooms[random.IntN(len(rooms))]
				want[room] = append(want[room], alice.say(room, "hello"))
			}
			victim := d.process(t, name)
			if err := victim.Kill(); err != nil {
				t.Fatal(err)
			}
			if name != "monolith" {
				for range 10 {
					room := rooms[random.IntN(len(rooms))]
					want[room] = append(want[room], alice.say(room, "while it is away"))
				}
			}
			if err := victim.Start(context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		s.answers(nil)
		s.ping()
		for room, events := range want {
			s.has(room, events)
		}
	}
	t.Run(string(monolithSQLite), func(t *testing.T) { kill(t, monolithSQLite, deploy.Options{}, "monolith") })
	t.Run(string(polylith), func(t *testing.T) {
		kill(t, polylith, deploy.Options{Replicas: []string{"appservice"}}, "appservice", "appservice-2")
	})
}
