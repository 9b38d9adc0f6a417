package services

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/storage/storagetest"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// woken is a Sender that notes what it is told.
type woken struct{ wakes, alive chan string }

func (w *woken) Wake(service string)  { tell(w.wakes, service) }
func (w *woken) Alive(service string) { tell(w.alive, service) }

func tell(c chan string, service string) {
	select {
	case c <- service:
	default:
	}
}

type world struct {
	*Services
	*woken
	t       *testing.T
	now     time.Time
	skipped int64
}

func worlds(t *testing.T, body func(t *testing.T, w *world)) {
	storagetest.Each(t, func(t *testing.T, connection string) { body(t, newWorld(t, connection)) })
}

func newWorld(t *testing.T, connection string) *world {
	t.Helper()
	store := storagetest.Open(t, connection)
	w := &world{t: t, now: time.UnixMilli(1_700_000_000_000),
		woken: &woken{make(chan string, 100), make(chan string, 100)}}
	w.Services = w.replica(store, eventlog.NewEmbedded(), true)
	return w
}

func (w *world) replica(store *storage.Store, transport eventlog.Transport, sole bool) *Services {
	return New(Options{Registrations: registration.NewHolder(nil), Store: store, Sender: w.woken,
		Transport: transport, Sole: sole,
		Log: logrus.NewEntry(logrus.New()), Now: func() time.Time { return w.now },
		Skipped: func(_ string, n int64) { w.skipped += n }})
}

// register puts services in force, which have a url, and notes that.
func (w *world) register(names ...string) {
	w.t.Helper()
	var all []*registration.Registration
	for _, name := range names {
		all = append(all, &registration.Registration{ID: name, URL: "http://" + name, ASToken: "as-" + name,
			Sender: id.NewUserID(name, "here")})
	}
	set, err := registration.NewSet("here", all)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Registrations.Replace(set)
	if err := w.note(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(do func(context.Context, *sqlutil.Tx) error) {
	w.t.Helper()
	if err := w.Store.DB.Write(w.t.Context(), "test", do); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) queue(service string, events int) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *sqlutil.Tx) error {
		return w.Store.Queue(ctx, tx, slices.Repeat([]storage.Event{{Service: service, RoomID: "!r", EventID: "$e", QueuedMS: 5}}, events), 1)
	})
}

func (w *world) backlog(service string) int64 {
	w.t.Helper()
	res, err := w.QueryStatus(w.t.Context(), api.QueryStatusRequest{Services: []string{service}})
	if err != nil || len(res.Services) != 1 {
		w.t.Fatalf("status of %s: %+v, %v", service, res, err)
	}
	return res.Services[0].Backlog
}

func TestWhatWaitsOutlivesAMistakeOfTheOperator(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.register("irc")
		if at := w.Registered("irc"); at != w.now.UnixMilli() {
			t.Errorf("irc was registered at %d, want %d", at, w.now.UnixMilli())
		}
		w.queue("irc", 3)
		w.write(func(ctx context.Context, tx *sqlutil.Tx) error {
			if err := w.Store.NoteTyping(ctx, tx, []storage.TypingRoom{{RoomID: "!a:here", Service: "irc"}}, nil); err != nil {
				return err
			}
			return w.Store.PutEphemeral(ctx, tx, []storage.Ephemeral{{Service: "irc", Kind: "typing", Name: "!a:here",
				Version: 1, Body: []byte("{}")}}, 10)
		})
		began := w.now
		w.register()
		w.now = began.Add(keepRemoved - time.Hour)
		w.register()
		w.register("irc")
		if n := w.backlog("irc"); n != 3 {
			t.Errorf("%d events wait for a service that came back in time, want 3", n)
		}
		if at := w.Registered("irc"); at != began.UnixMilli() {
			t.Error("a service that came back in time counts as new")
		}
		w.register()
		w.now = w.now.Add(keepRemoved + time.Hour)
		w.register()
		w.register("irc")
		if n := w.backlog("irc"); n != 0 {
			t.Errorf("%d events wait for a service that was gone for long, want none", n)
		}
		w.write(func(ctx context.Context, tx *sqlutil.Tx) error {
			waiting, err := w.Store.EphemeralWaiting(ctx, tx)
			rooms, failed := w.Store.TypingRooms(ctx, tx)
			if len(waiting)+len(rooms) > 0 {
				t.Errorf("what is ephemeral waits for %v, who are gone, and typing in %v", waiting, rooms)
			}
			return errors.Join(err, failed)
		})
		w.queue("irc", 1)
		if n := w.backlog("irc"); n != 1 {
			t.Errorf("%d events wait, want 1", n)
		}
	})
}

// putRoom says that a service has users in a room.
func (w *world) putRoom(service string) {
	w.t.Helper()
	err := w.Store.DB.Write(w.t.Context(), "put room", func(ctx context.Context, tx *sqlutil.Tx) error {
		return w.Store.PutRoom(ctx, tx, &storage.Room{RoomID: "!r:here", Namespaces: "theirs",
			Users: map[string]int64{service: 2}}, true, []string{service})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// known is the namespaces for which it is known who is in a room; empty if it is not.
func (w *world) known(room id.RoomID) (known string) {
	w.t.Helper()
	err := w.Store.DB.Read(w.t.Context(), "room", func(ctx context.Context, tx *sqlutil.Tx) error {
		rooms, err := w.Store.Rooms(ctx, tx, []id.RoomID{room})
		if r := rooms[room]; r != nil {
			known = r.Namespaces
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return known
}

// What is forgotten of a service is not taken for known when the namespaces are the same again.
func TestRoomsOfForgottenServicesAreCountedAnew(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.register("irc", "xmpp")
		for _, left := range [][]string{{"xmpp"}, nil} {
			w.putRoom("irc")
			w.register(left...)
			if w.Empty() {
				t.Error("services that may come back are taken for gone")
			}
			w.now = w.now.Add(keepRemoved + time.Hour)
			w.register(left...)
			if known := w.known("!r:here"); known != "" {
				t.Errorf("with %v, a room of a service that is forgotten counts as known", left)
			}
			if w.Empty() != (left == nil) {
				t.Errorf("with %v, nobody is interested: %v", left, w.Empty())
			}
			w.register("irc", "xmpp")
		}
	})
}

// What is ephemeral goes with all else that waits.
func TestWhatIsEphemeralGoesToo(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		put := func(ctx context.Context, tx *sqlutil.Tx) error {
			return w.Store.PutEphemeral(ctx, tx, []storage.Ephemeral{
				{Service: "irc", Kind: "presence", Name: "@a:here", Version: 1, Body: []byte("{}")},
				{Service: "irc", Kind: "presence", Name: "@b:here", Version: 2, Body: []byte("{}")},
				{Service: "xmpp", Kind: "presence", Name: "@a:here", Version: 1, Body: []byte("{}")}}, 10)
		}
		left := func(when string) {
			t.Helper()
			var waiting []string
			err := w.Store.DB.Read(t.Context(), "waiting", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
				waiting, err = w.Store.EphemeralWaiting(ctx, tx)
				return err
			})
			if err != nil || !slices.Equal(waiting, []string{"xmpp"}) {
				t.Errorf("%s, something waits for %v, want xmpp only; %v", when, waiting, err)
			}
		}
		w.register("irc", "xmpp")
		if err := w.Store.DB.Write(t.Context(), "put", put); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Skip(t.Context(), api.SkipRequest{Service: "irc", All: true}); err != nil {
			t.Fatal(err)
		}
		left("skipped")
		if err := w.Store.DB.Write(t.Context(), "put", put); err != nil {
			t.Fatal(err)
		}
		w.register("xmpp")
		w.now = w.now.Add(keepRemoved + time.Hour)
		w.register("xmpp")
		left("forgotten")
	})
}

func TestOperatorsSkipAndRetry(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.register("irc")
		w.queue("irc", 7)
		if _, err := w.Retry(t.Context(), api.RetryRequest{Service: "irc"}); err != nil || <-w.alive != "irc" {
			t.Errorf("retry: %v", err)
		}
		if res, err := w.Skip(t.Context(), api.SkipRequest{Service: "irc"}); err != nil || res.Events != 0 ||
			w.backlog("irc") != 7 {
			t.Errorf("skip without a transaction under way: %+v, %v", res, err)
		}
		if res, err := w.Skip(t.Context(), api.SkipRequest{Service: "irc", All: true}); err != nil ||
			res.Events != 7 || w.backlog("irc") != 0 {
			t.Errorf("skip all: %+v, %v", res, err)
		}
		if w.skipped != 7 {
			t.Errorf("%d events are counted as skipped, want 7", w.skipped)
		}
		_, status := w.QueryStatus(t.Context(), api.QueryStatusRequest{Services: []string{"none"}})
		_, retry := w.Retry(t.Context(), api.RetryRequest{Service: "none"})
		if !mxerr.Is(status, "M_NOT_FOUND") || !mxerr.Is(retry, "M_NOT_FOUND") {
			t.Errorf("a service that is not there: %v, %v", status, retry)
		}
	})
}

func TestReplicasTellEachOtherWhatWaits(t *testing.T) {
	w := newWorld(t, storagetest.SQLite(t))
	transport := eventlog.NewEmbedded()
	one, two := w.replica(w.Store, transport, false), w.replica(w.Store, transport, false)
	heard := &woken{make(chan string, 100), make(chan string, 100)}
	two.Sender = heard
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for _, s := range []*Services{one, two} {
		go func() { done <- s.Run(ctx) }()
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for service := ""; service == ""; { // two may not have subscribed yet
		one.Queued([]string{"irc"})
		select {
		case service = <-heard.wakes:
		case <-tick.C:
		}
	}
	if _, err := one.NoteAlive(ctx, api.NoteAliveRequest{Service: "irc"}); err != nil || <-heard.alive != "irc" {
		t.Errorf("a service that is alive: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
