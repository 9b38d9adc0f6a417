package blackbox

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

// kills is how often something is killed in a run, at least.
var kills = test.Soak(20, 200)

// Under a steady load of 8 senders, every component and the broker are killed, in turn and at random, and started again as an init system
// would; once the broker loses all that it has. Nothing else is done: whatever was acknowledged is there once, every reader gets it
// once, in the order that the room has, and clients see only errors that tell them to try again.
func TestAKillOfAnyPartLosesNothing(t *testing.T) {
	t.Parallel()
	t.Run("one of each", func(t *testing.T) { t.Parallel(); killParts(t, nil, test.Soak(0, kills)) })
	t.Run("two of each", func(t *testing.T) { t.Parallel(); killParts(t, config.Components(), kills) })
}

// The same for the server that is one process.
func TestAKillOfTheMonolithLosesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []deploy.Kind{monolithSQLite, deploy.MonolithPostgres} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			deploy.Chosen(t, kind)
			d := own(t, kind, nil)
			monolith := &victim{Server: d.process(t, "monolith")}
			killAll(t, d, test.Seed(t), slices.Repeat([]*victim{monolith}, kills/4))
		})
	}
}

// Postgres drops all connections at once, again and again, with whatever they are at, a COMMIT among it.
func TestAKillOfAllConnectionsLosesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []deploy.Kind{deploy.MonolithPostgres, polylith} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			deploy.Chosen(t, kind)
			d := own(t, kind, nil)
			db, err := sql.Open("postgres", d.config.Database.ConnectionString)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			seed := test.Seed(t)
			random := rand.New(rand.NewPCG(seed, 2<<32))
			l := newLoad(t, d, seed)
			l.start()
			t.Cleanup(l.stop)
			for range kills / 2 {
				l.steady(time.Duration(200+random.IntN(600)) * time.Millisecond)
				l.resetPulses()
				ended, err := db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND pid <> pg_backend_pid()`)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := ended.RowsAffected(); err != nil || n == 0 {
					t.Fatalf("no connections were ended: %v", err)
				}
				l.recover("all connections")
			}
			l.finish()
			l.stop()
			l.check(t)
		})
	}
}

// victim is what is killed. wipe, if set, destroys what it has before it is started again.
type victim struct {
	*parts.Server
	wipe func() error
}

// ownBroker is a polylith that has a broker of its own, whose data are in dir, and two processes of these components.
func ownBroker(t *testing.T, dir string, twice []string) (*deployment, *parts.Kafka) {
	t.Helper()
	deploy.Chosen(t, polylith)
	broker, err := parts.NewKafka(t.Context(), dir, "")
	if err == nil {
		err = broker.Start(t.Context())
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", test.ErrMissing, err)
	}
	test.Needs(t, err)
	t.Cleanup(func() {
		if err := broker.Stop(); err != nil {
			t.Error(err)
		}
	})
	return deployed(deploy.Own(t, polylith, deploy.Options{Broker: broker.Address, Replicas: twice})), broker
}

// killParts kills the parts of a polylith that has a broker of its own, and two processes of these components: each
// once, and some again until there are so many kills.
func killParts(t *testing.T, twice []string, kills int) {
	dir := t.TempDir()
	d, broker := ownBroker(t, dir, twice)
	victims := []*victim{{Server: broker.Server}}
	for _, name := range config.Components() {
		victims = append(victims, &victim{Server: d.process(t, name)})
	}
	for _, name := range twice {
		victims = append(victims, &victim{Server: d.process(t, name+"-2")})
	}
	seed := test.Seed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	for len(victims) < kills {
		victims = append(victims, victims[random.IntN(len(victims))])
	}
	victims = append(victims, &victim{broker.Server, func() error {
		_, port, err := net.SplitHostPort(broker.Address)
		if err == nil {
			err = os.RemoveAll(filepath.Join(dir, "data"))
		}
		if err != nil {
			return err
		}
		fresh, err := parts.NewKafka(t.Context(), dir, port)
		if err == nil {
			*broker.Server = *fresh.Server
		}
		return err
	}})
	random.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	killAll(t, d, seed, victims)
}

// killAll kills one after the other under load.
func killAll(t *testing.T, d *deployment, seed uint64, victims []*victim) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1<<32))
	l := newLoad(t, d, seed)
	l.start()
	t.Cleanup(l.stop)
	l.steady(time.Second)
	for _, victim := range victims {
		l.resetPulses()
		before, began := l.acknowledged(), time.Now()
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		name := victim.Name
		if victim.wipe != nil {
			name += ", wiped"
			if err := victim.wipe(); err != nil {
				t.Fatal(err)
			}
		}
		if err := victim.Start(t.Context()); err != nil {
			t.Fatalf("%s does not come back: %v", name, err)
		}
		back := time.Since(began)
		l.recover(name)
		l.steady(time.Duration(200+random.IntN(600)) * time.Millisecond)
		sends, reads := l.longest()
		t.Logf("%-16s healthy after %4d ms; longest without a send %5d ms, without news in sync %5d ms; %d events", name,
			back.Milliseconds(), sends.Milliseconds(), reads.Milliseconds(), l.acknowledged()-before)
	}
	l.finish()
	l.checkEphemeral(t)
	l.stop()
	l.check(t)
}

// check compares what was acknowledged with what the rooms have, and that with what each reader got.
func (l *load) check(t *testing.T) {
	t.Helper()
	total, retried := 0, 0
	for _, w := range l.writers {
		retried += w.retried
	}
	for _, room := range l.rooms {
		history := l.writers[0].history(room)
		order := make([]string, len(history))
		where := make(map[string]int, len(history))
		for i, m := range history {
			order[i] = m.event
			if first, twice := where[m.text]; twice {
				t.Errorf("%q is in the room twice, as %s and %s", m.text, order[first], m.event)
			}
			where[m.text] = i
		}
		sent := 0
		for _, w := range l.writers {
			last := -1
			for _, a := range w.acknowledged {
				if a.room != room {
					continue
				}
				sent++
				at, is := where[a.text]
				if !is || order[at] != a.event {
					t.Errorf("%q was acknowledged as %s, and the room does not have it", a.text, a.event)
					continue
				}
				if at < last {
					t.Errorf("%q is before what its sender sent before it", a.text)
				}
				last = at
			}
		}
		if len(history) != sent {
			t.Errorf("the room has %d messages, and %d were acknowledged", len(history), sent)
		}
		for _, r := range l.readers {
			if got := r.order[room]; !slices.Equal(got, order) {
				t.Errorf("a reader got %d messages, and the room has %d: %s", len(got), len(order), difference(got, order))
			}
		}
		total += sent
	}
	for _, w := range l.writers {
		for room, n := range w.set {
			if got := w.must("GET", at("rooms", room, "state", loadState, w.name), nil).Get("n").Int(); got != int64(n) {
				t.Errorf("the state of %s in a room is %d, and %d was acknowledged", w.name, got, n)
			}
		}
	}
	gaps := 0
	for _, r := range l.readers {
		gaps += r.gaps
	}
	t.Logf("%d events by %d writers in %d rooms, read by %d readers; %d requests were repeated, %d limited timelines filled", total,
		len(l.writers), len(l.rooms), len(l.readers), retried, gaps)
}

// difference tells where two orders part.
func difference(got, want []string) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	rest := func(order []string) []string { return order[i:min(len(order), i+4)] }
	for _, event := range want {
		if !slices.Contains(got, event) {
			return fmt.Sprintf("from the %dth on %v instead of %v; %s is missing", i, rest(got), rest(want), event)
		}
	}
	return fmt.Sprintf("from the %dth on %v instead of %v", i, rest(got), rest(want))
}

// message is one of a room.
type message struct{ text, event string }

// history is all messages of a room, by /messages, the oldest first.
func (c *client) history(room string) []message {
	c.t.Helper()
	var all []message
	for from := ""; ; {
		page := c.must("GET", at("rooms", room, "messages")+"?dir=b&limit=100"+from, nil)
		for _, e := range page.Get("chunk").Array() {
			if e.Get("type").Str == "m.room.message" {
				all = append(all, message{e.Get("content.body").Str, e.Get("event_id").Str})
			}
		}
		end := page.Get("end").Str
		if end == "" {
			slices.Reverse(all)
			return all
		}
		from = "&from=" + end
	}
}

// checkEphemeral makes sure that what leaves no trace in rooms works too.
func (l *load) checkEphemeral(t *testing.T) {
	t.Helper()
	w, r := l.writers[0], l.readers[0]
	newest := w.newest.Load()
	room := newest.room
	since := w.sync("").Get("next_batch").Str
	r.must("POST", at("rooms", room, "receipt", "m.read", newest.event), object{})
	r.must("PUT", at("rooms", room, "typing", r.userID), object{"typing": true, "timeout": 30000})
	read, typing := false, false
	// A message about typing may be lost: readers ask for it now and then.
	for deadline := time.Now().Add(recoverWithin); !read || !typing; {
		news := w.sync(since, "timeout", "5000")
		since = news.Get("next_batch").Str
		events := roomIn(news, "join", room).Get("ephemeral.events")
		read = read || find(events, "m.receipt", "").Exists()
		typing = typing || find(events, "m.typing", "").Exists()
		if time.Now().After(deadline) {
			t.Fatalf("no receipt (%t) or no typing (%t) after the kills", read, typing)
		}
	}
}

// While the broker is away, components read each other's logs: who got a 200 finds the event in the next sync, whoever sleeps in a sync is
// woken, and when the broker is back nothing comes twice.
func TestAKillOfTheBrokerStopsNobody(t *testing.T) {
	t.Parallel()
	d, broker := ownBroker(t, t.TempDir(), config.Components())
	alice, bob := d.user(t, "alice"), d.user(t, "bob")
	rooms := []string{alice.publicRoom(), alice.publicRoom(), alice.publicRoom()}
	for _, room := range rooms {
		bob.join(room)
	}
	since := bob.now()
	var said, got []string
	news := func(answer gjson.Result) {
		since = answer.Get("next_batch").Str
		for _, room := range rooms {
			got = append(got, bodies(roomIn(answer, "join", room).Get("timeline.events"))...)
		}
	}
	say := func(what string, n int) {
		t.Helper()
		for i := range n {
			text := fmt.Sprint(what, " ", i)
			said = append(said, text)
			alice.say(rooms[i%len(rooms)], text)
			news(bob.sync(since)) // it waits for nothing but what was committed
			if !slices.Equal(got, said) {
				t.Fatalf("%s: after %q, sync has brought %q", what, text, got)
			}
		}
	}
	say("with the broker", 3)
	if err := broker.Kill(); err != nil {
		t.Fatal(err)
	}
	say("without the broker", 6)
	for i := range 3 {
		woken := bob.poll(since)
		text := fmt.Sprint("woken ", i)
		said = append(said, text)
		began := time.Now()
		alice.say(rooms[i], text)
		news(woken())
		if took := time.Since(began); !slices.Equal(got, said) || took > 20*time.Second {
			t.Fatalf("after %s, who sleeps got %q", took, got)
		}
	}
	if err := broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	say("with the broker again", 9)
}

// A syncapi that was away while thousands of events came has them all when it is back, each once and in order.
func TestAKillOfSyncapiLeavesABacklog(t *testing.T) {
	t.Parallel()
	deploy.Chosen(t, polylith)
	d := own(t, polylith, nil)
	const backlog = 3000
	l := newLoad(t, d, test.Seed(t))
	l.start()
	t.Cleanup(l.stop)
	l.steady(time.Second)
	syncapi := d.process(t, "syncapi")
	if err := syncapi.Kill(); err != nil {
		t.Fatal(err)
	}
	before := l.acknowledged()
	l.until(time.Now().Add(2*time.Minute), fmt.Sprint(backlog, " events are sent"), func() bool { return l.acknowledged()-before >= backlog })
	if err := syncapi.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.recover("syncapi, for long")
	l.steady(time.Second)
	l.finish()
	l.stop()
	l.check(t)
}
