package interest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/roomtest"
)

// world is a roomserver whose log is judged.
type world struct {
	*roomtest.World
	t       testing.TB
	store   *storage.Store
	held    *registration.Holder
	judges  []*Judge // replicas
	applied [eventlog.Partitions]int64
	random  *rand.Rand
}

func newWorld(t testing.TB, rooms *roomtest.World, url string, replicas int, all ...*registration.Registration) *world {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{World: rooms, t: t, held: registration.NewHolder(nil), random: rand.New(rand.NewPCG(test.Seed(t), 1))}
	w.register(all...)
	if w.store, err = storage.Open(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	for range replicas {
		w.judges = append(w.judges, New(Options{Server: roomtest.Server, Registrations: w.held,
			Room: rooms.RoomserverAPI, Store: w.store,
			Log: logrus.NewEntry(logrus.New()), Registered: func(string) int64 { return 0 },
			Queued: func([]string) {}, AtOnce: true}))
	}
	return w
}

func worlds(t *testing.T, body func(t *testing.T, w *world), all ...*registration.Registration) {
	t.Run("sqlite", func(t *testing.T) {
		body(t, newWorld(t, roomtest.New(t, true), "file:"+filepath.Join(t.TempDir(), "as.db"), 2, all...))
	})
	t.Run("postgres", func(t *testing.T) { body(t, newWorld(t, roomtest.New(t, true), test.Postgres(t), 2, all...)) })
}

// register puts registrations in force.
func (w *world) register(all ...*registration.Registration) {
	w.t.Helper()
	set, err := registration.NewSet(roomtest.Server, all)
	if err != nil {
		w.t.Fatal(err)
	}
	w.held.Replace(set)
}

func service(name string, users ...string) *registration.Registration {
	r := &registration.Registration{ID: name, URL: "http://" + name, ASToken: "as-" + name, HSToken: "hs-" + name,
		Sender: id.NewUserID(name, roomtest.Server)}
	for _, regex := range users {
		r.Users = append(r.Users, registration.Namespace{Regex: regex, Exclusive: true})
	}
	return r
}

// follow judges what is new in the log. Each batch is one replica's, and some are judged twice because their
// transaction failed.
func (w *world) follow() {
	w.t.Helper()
	heads, err := w.Heads(w.t.Context(), eventlog.HeadsRequest{Topic: roomserver.Topic})
	if err != nil {
		w.t.Fatal(err)
	}
	for p, head := range heads.Heads {
		for w.applied[p] < head {
			read, err := w.ReadLog(w.t.Context(), eventlog.ReadRequest{Topic: roomserver.Topic, Partition: int32(p),
				From:  w.applied[p] + 1,
				Limit: 1 + w.random.IntN(20)})
			if err != nil {
				w.t.Fatal(err)
			}
			j := w.judges[w.random.IntN(len(w.judges))]
			apply, err := j.Handle(w.t.Context(), read.Records)
			if err != nil {
				w.t.Fatal(err)
			}
			fails := w.random.IntN(5) == 0
			err = w.store.DB.Write(w.t.Context(), "apply", func(ctx context.Context, tx *sqlutil.Tx) error {
				if apply != nil {
					if err := apply(ctx, tx); err != nil {
						return err
					}
				}
				if fails {
					return context.Canceled
				}
				return nil
			})
			if err != nil && !fails {
				w.t.Fatal(err)
			}
			if !fails {
				w.applied[p] += int64(len(read.Records))
			}
		}
	}
}

// takes removes and returns what waits for a service.
func (w *world) takes(service string) (events []id.EventID) {
	w.t.Helper()
	err := w.store.DB.Write(w.t.Context(), "take", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := w.store.Oldest(ctx, tx, service, 10_000)
		events = nil
		for i := range rows {
			events = append(events, rows[i].EventID)
		}
		if err != nil || len(rows) == 0 {
			return err
		}
		return w.store.Settle(ctx, tx, service, rows[len(rows)-1].Number)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return events
}

func (w *world) gets(what, service string, want ...id.EventID) {
	w.t.Helper()
	w.follow()
	if got := w.takes(service); !slices.Equal(got, want) {
		w.t.Errorf("%s: %s gets %v, want %v", what, service, got, want)
	}
}

const ghost, other = id.UserID("@irc_ghost:here"), id.UserID("@irc_other:here")

func TestAServiceGetsWhatItsUsersSee(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		room := w.Room("shared")
		w.Say(room, roomtest.Alice, "before")
		w.gets("before", "irc")
		invite := w.Do("invite", room, roomtest.Alice, ghost)
		w.Say(room, roomtest.Alice, "while it is invited")
		w.gets("invite", "irc", invite)
		w.Join(room, ghost)
		w.follow()
		if joined := w.takes("irc"); len(joined) != 1 {
			t.Errorf("of a join, irc gets %v", joined)
		}
		w.gets("message", "irc", w.Say(room, roomtest.Alice, "hello"), w.Say(room, ghost, "hello back"))
		leave := w.Do("leave", room, ghost, ghost)
		w.Say(room, roomtest.Alice, "after")
		w.gets("leave", "irc", leave)
		w.gets("ban", "irc", w.Do("ban", room, roomtest.Alice, ghost))
		w.gets("the others", "xmpp")
	}, service("irc", "@irc_.*"), service("xmpp", "@xmpp_.*"))
}

func TestRoomsAndAliasesAreNamespacesToo(t *testing.T) {
	byAlias, byRoom := service("irc"), service("xmpp")
	byAlias.Aliases = []registration.Namespace{{Regex: "#irc_.*"}}
	silent := service("silent", "@.*")
	silent.URL = ""
	worlds(t, func(t *testing.T, w *world) {
		room := w.Room("shared")
		byRoom := *byRoom
		byRoom.Rooms = []registration.Namespace{{Regex: string(room)}}
		w.Say(room, roomtest.Alice, "before")
		w.follow()
		w.register(byAlias, &byRoom, silent)
		first := w.Say(room, roomtest.Alice, "without an alias")
		w.gets("room", "xmpp", first)
		w.gets("without an alias", "irc")
		roomtest.Must(w.World, w.SetAlias, roomserver.SetAliasRequest{Alias: "#irc_x:here", RoomID: room,
			UserID: roomtest.Alice})
		w.gets("with an alias", "irc", w.Say(room, roomtest.Alice, "with an alias"))
		roomtest.Must(w.World, w.RemoveAlias, roomserver.RemoveAliasRequest{Alias: "#irc_x:here",
			UserID: roomtest.Alice})
		w.Say(room, roomtest.Alice, "without it again")
		w.gets("without it again", "irc")
		w.gets("no url", "silent")
	}, byAlias, byRoom, silent)
}

// The namespace grows and shrinks while events wait to be judged.
func TestNamespacesThatChangeTakeInRooms(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		room := w.Room("shared")
		w.Join(room, ghost)
		w.Join(room, roomtest.Bob)
		w.Join(room, other)
		w.Say(room, roomtest.Alice, "nobody is registered")
		w.follow()
		w.register(service("irc", "@irc_.*"))
		w.gets("a new service", "irc", w.Say(room, roomtest.Alice, "one"))
		w.register(service("irc", "@irc_.*"), service("new", "@bob"))
		two := w.Say(room, roomtest.Alice, "two")
		w.gets("one more", "irc", two)
		w.gets("one more", "new", two)
		// What is judged only now was sent while bob was there.
		three, leave := w.Say(room, roomtest.Alice, "three"), w.Do("leave", room, roomtest.Bob, roomtest.Bob)
		w.Say(room, roomtest.Alice, "four")
		w.register(service("irc", "@nobody"), service("new", "@bob"))
		w.follow()
		if got := w.takes("new"); !slices.Equal(got, []id.EventID{three, leave}) {
			t.Errorf("new gets %v, want %v and %v", got, three, leave)
		}
		w.gets("a namespace that shrank", "irc")
	})
}

// Who comes and goes while no service is registered is known when one comes back.
func TestInterestOutlivesTimesWithoutServices(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		room, others := w.Room("shared"), w.Room("shared")
		w.Join(others, roomtest.Bob)
		w.follow()
		w.takes("irc")
		w.Say(room, roomtest.Alice, "one")
		w.gets("bob's", "irc", w.Say(others, roomtest.Alice, "one"))
		w.register()
		w.Join(room, roomtest.Bob)
		w.Do("leave", others, roomtest.Bob, roomtest.Bob)
		w.gets("nobody is registered", "irc")
		w.register(service("irc", "@bob"))
		two := w.Say(room, roomtest.Alice, "two")
		w.Say(others, roomtest.Alice, "two")
		w.gets("it is back", "irc", two)
	}, service("irc", "@bob"))
}

// At random, users come and go in some rooms and namespaces change; a service always gets what a look at all members
// says.
func TestInterestIsThatOfAScan(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		users := []id.UserID{roomtest.Alice, roomtest.Bob, ghost, other, "@xmpp_one:here", "@xmpp_two:here",
			"@irc:here"}
		rooms := []id.RoomID{w.Room("shared"), w.Room("shared"), w.Room("joined")}
		joined := map[id.RoomID]map[id.UserID]bool{}
		for _, room := range rooms {
			joined[room] = map[id.UserID]bool{roomtest.Alice: true}
		}
		sets := [][]*registration.Registration{
			{service("irc", "@irc_.*"), service("xmpp", "@xmpp_.*")},
			{service("irc", "@irc_.*", "@xmpp_one"), service("xmpp", "@xmpp_t.*")},
			{service("xmpp", "@xmpp_.*", "@bob")},
			{},
		}
		want := map[string][]id.EventID{}
		w.register(sets[0]...)
		w.follow()
		w.takes("irc")
		w.takes("xmpp")
		for range test.Soak(150, 3000) {
			room := rooms[w.random.IntN(len(rooms))]
			user := users[1+w.random.IntN(len(users)-1)]
			before := map[id.UserID]bool{}
			for u := range joined[room] {
				before[u] = true
			}
			var event id.EventID
			switch n := w.random.IntN(10); {
			case n == 0:
				w.follow()
				w.register(sets[w.random.IntN(len(sets))]...)
				continue
			case n < 4 && !joined[room][user]:
				event = w.Set(room, user, "m.room.member", string(user), `{"membership":"join"}`)
				joined[room][user] = true
			case n < 6 && joined[room][user]:
				event = w.Do("leave", room, user, user)
				delete(joined[room], user)
			default:
				event = w.Say(room, roomtest.Alice, "hello")
				user = roomtest.Alice
			}
			for _, r := range w.held.Load().All() {
				in := w.held.Load().Owns(r, user)
				for u := range before {
					in = in || w.held.Load().Owns(r, u)
				}
				if in {
					want[r.ID] = append(want[r.ID], event)
				}
			}
			if w.random.IntN(4) == 0 {
				w.follow()
			}
		}
		w.follow()
		for _, name := range []string{"irc", "xmpp"} {
			got := w.takes(name)
			// Rooms are judged beside each other: the order is that of each room.
			for _, list := range [][]id.EventID{got, want[name]} {
				slices.Sort(list)
			}
			if !slices.Equal(got, want[name]) {
				t.Errorf("%s gets %d events, want %d", name, len(got), len(want[name]))
			}
		}
	})
}

// BenchmarkSend tells what 200 services of 50 namespaces, with very many of their users in a room, cost beside a
// send: "cpu-%" is the processor time of judging what was sent for each of sending it.
func BenchmarkSend(b *testing.B) {
	const services, namespaces = 200, 50
	ghosts := test.Soak(2000, 20_000)
	var all []*registration.Registration
	for i := range services {
		r := service(fmt.Sprint("bridge", i))
		r.Aliases = []registration.Namespace{{Regex: fmt.Sprintf("#_bridge%d_.*", i)}}
		for j := range namespaces {
			r.Users = append(r.Users, registration.Namespace{Regex: fmt.Sprintf("@_bridge%d_%d_.*:here", i, j),
				Exclusive: true})
		}
		all = append(all, r)
	}
	w := newWorld(b, roomtest.New(b, true), "file:"+filepath.Join(b.TempDir(), "as.db"), 1, all...)
	room := w.Room("shared")
	for i := range ghosts {
		w.Join(room, id.UserID(fmt.Sprintf("@_bridge%d_%d_%d:here", i%3, i%namespaces, i)))
	}
	w.follow()
	var sending, judging float64
	events := 0
	for b.Loop() {
		began := processor(b)
		for range 10 {
			w.Say(room, roomtest.Alice, "a message of usual length, which says something")
		}
		sent := processor(b)
		// As when the log is followed while it grows: one after the other.
		w.follow()
		judged := processor(b)
		sending, judging, events = sending+sent-began, judging+judged-sent, events+10
	}
	b.ReportMetric(1e6*sending/float64(events), "send-µs/event")
	b.ReportMetric(1e6*judging/float64(events), "judge-µs/event")
	b.ReportMetric(100*judging/sending, "cpu-%")
}
