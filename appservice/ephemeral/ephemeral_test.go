package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/storage/storagetest"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

const (
	here  = id.ServerName("test.example")
	room  = id.RoomID("!room:test.example")
	alice = id.UserID("@alice:test.example")
	ghost = id.UserID("@irc_bob:test.example")
)

// world has a service irc with a user in the room, one that wants nothing ephemeral, and one that is interested in
// nothing.
type world struct {
	t      *testing.T
	s      *Service
	queued []string
}

func worlds(t *testing.T, body func(t *testing.T, w *world)) {
	storagetest.Each(t, func(t *testing.T, connection string) { body(t, newWorld(t, connection)) })
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	store := storagetest.Open(t, url)
	var all []*registration.Registration
	for _, name := range []string{"irc", "plain", "far"} {
		all = append(all, &registration.Registration{ID: name, URL: "http://" + name, ASToken: "as-" + name, HSToken: "hs-" + name,
			Sender: id.NewUserID(name, here), Ephemeral: name != "plain", Users: []registration.Namespace{{Regex: "@" + name + "_.*"}}})
	}
	set, err := registration.NewSet(here, all)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	w.s = New(Options{Store: store, Registrations: registration.NewHolder(set), Registered: func(string) int64 { return 1000 },
		Queued: func(services []string) { w.queued = append(w.queued, services...) }, Log: logrus.NewEntry(logrus.New()), Now: time.Now})
	w.join("irc", 1)
	w.join("plain", 1)
	return w
}

// join says how many users of a service are in the room.
func (w *world) join(service string, users int64) {
	w.write(func(ctx context.Context, tx *sqlutil.Tx) error {
		r := &storage.Room{RoomID: room, Namespaces: "x", Users: map[string]int64{service: users}}
		return w.s.Store.PutRoom(ctx, tx, r, true, []string{service})
	})
}

func (w *world) write(do func(context.Context, *sqlutil.Tx) error) {
	w.t.Helper()
	if err := w.s.Store.DB.Write(w.t.Context(), "test", do); err != nil {
		w.t.Fatal(err)
	}
}

// says lets the service take records.
func (w *world) says(kind string, values ...any) {
	w.t.Helper()
	var records []eventlog.Record
	for _, v := range values {
		body, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		records = append(records, eventlog.Record{Type: kind, Value: body, Time: 2000})
	}
	apply, err := w.s.TakeSync(w.t.Context(), records)
	if err != nil {
		w.t.Fatal(err)
	}
	if apply != nil {
		w.write(apply)
	}
}

func (w *world) types(users ...id.UserID) {
	w.t.Helper()
	w.s.typing.note(room, users)
	if err := w.s.writeTyping(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// gets takes the next part of a service.
func (w *world) gets(service string) []gjson.Result {
	w.t.Helper()
	part, err := w.s.Collect(w.t.Context(), w.s.Registrations.Load().ByID(service), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []gjson.Result
	for _, e := range part.Ephemeral {
		all = append(all, gjson.ParseBytes(e))
	}
	if part.Taken != nil {
		w.write(part.Taken)
	}
	return all
}

// nothing makes sure that nothing waits for services.
func (w *world) nothing(services ...string) {
	w.t.Helper()
	for _, service := range services {
		if got := w.gets(service); len(got) > 0 {
			w.t.Errorf("%s gets %v", service, got)
		}
	}
}

func read1(event string, user id.UserID, thread string) syncapi.OutputReceipt {
	return syncapi.OutputReceipt{RoomID: room, UserID: user, EventID: id.EventID(event), ThreadID: thread, Timestamp: 5}
}

func TestReceiptsAreForWhoIsInTheRoom(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.says(syncapi.TypeReceipt, read1("$1", alice, ""), read1("$2", alice, ""), read1("$2", alice, "main"), read1("$2", ghost, ""))
		got := w.gets("irc")
		if len(got) != 2 { // alice's two at one event cannot be in one
			t.Fatalf("got %v", got)
		}
		receipts := 0
		for _, e := range got {
			for _, data := range e.Get(`content.$2.m\.read`).Map() {
				receipts++
				if e.Get("type").Str != "m.receipt" || e.Get("room_id").Str != string(room) || data.Get("ts").Int() != 5 {
					t.Errorf("got %s", e.Raw)
				}
			}
		}
		if receipts != 3 {
			t.Errorf("got %v", got)
		}
		if got[0].Get("content.$1").Exists() || got[1].Get("content.$1").Exists() {
			t.Errorf("what is superseded is sent: %v", got)
		}
		w.nothing("irc", "plain", "far")
		if len(w.queued) == 0 || w.queued[0] != "irc" {
			t.Errorf("woken: %v", w.queued)
		}
	})
}

func TestPrivateReceiptsAreForWhoseUserItIs(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.says(syncapi.TypePrivateReceipt, read1("$1", alice, ""), read1("$2", "@far_x:test.example", ""), read1("$3", ghost, ""))
		of := `content.$3.m\.read\.private.` + gjson.Escape(string(ghost))
		if got := w.gets("irc"); len(got) != 1 || !got[0].Get(of).Exists() || len(got[0].Get("content").Map()) != 1 {
			t.Errorf("got %v", got)
		}
		if got := w.gets("far"); len(got) != 1 || !got[0].Get("content.$2").Exists() {
			t.Errorf("got %v", got)
		}
	})
}

func TestManyReceiptsAreSplitAndSentOnce(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		const users = 1050
		for round := range 2 {
			var all []any
			for i := range users {
				all = append(all, read1(fmt.Sprint("$", round), id.NewUserID(fmt.Sprint("user", i), here), ""))
			}
			w.says(syncapi.TypeReceipt, all...)
		}
		seen, parts := make(map[string]int), 0
		for got := w.gets("irc"); len(got) > 0; got = w.gets("irc") {
			parts++
			for _, e := range got {
				if e.Get("content.$0").Exists() {
					t.Error("what is superseded is sent")
				}
				for user := range e.Get(`content.$1.m\.read`).Map() {
					seen[user]++
				}
			}
		}
		if len(seen) != users || parts != (users+maxRows-1)/maxRows {
			t.Errorf("%d users in %d parts", len(seen), parts)
		}
		for user, n := range seen {
			if n != 1 {
				t.Errorf("%s is sent %d times", user, n)
			}
		}
	})
}

func TestWhatWaitsIsBounded(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		for from := 0; from < maxWaiting+2000; from += 1000 {
			var all []any
			for i := range 1000 {
				all = append(all, read1("$1", id.NewUserID(fmt.Sprint("user", from+i), here), ""))
			}
			w.says(syncapi.TypeReceipt, all...)
		}
		n, oldest := 0, false
		for got := w.gets("irc"); len(got) > 0; got = w.gets("irc") {
			for _, e := range got {
				users := e.Get(`content.$1.m\.read`).Map()
				n += len(users)
				_, has := users["@user0:test.example"]
				oldest = oldest || has
			}
		}
		if n != maxWaiting || oldest {
			t.Errorf("%d receipts wait; the oldest does: %t", n, oldest)
		}
	})
}

func TestPresenceIsForWhoSharesARoom(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		is := func(user id.UserID, state string, rooms ...id.RoomID) syncapi.OutputPresence {
			return syncapi.OutputPresence{UserID: user, Presence: state, StatusMsg: "at lunch", Active: time.Now().UnixMilli() - 5000, Rooms: rooms}
		}
		w.says(syncapi.TypePresence, is(alice, "unavailable", room), is(alice, "online", "!other:test.example", room),
			is("@far_x:test.example", "offline"), is("@eve:test.example", "online", "!other:test.example"))
		got := w.gets("irc")
		if len(got) != 1 || got[0].Get("type").Str != "m.presence" || got[0].Get("sender").Str != string(alice) || got[0].Get("room_id").Exists() ||
			got[0].Get("content.presence").Str != "online" || got[0].Get("content.status_msg").Str != "at lunch" ||
			got[0].Get("content.last_active_ago").Int() < 5000 || !got[0].Get("content.currently_active").Bool() {
			t.Errorf("got %v", got)
		}
		if got := w.gets("far"); len(got) != 1 || got[0].Get("sender").Str != "@far_x:test.example" {
			t.Errorf("got %v", got)
		}
		w.nothing("irc", "plain", "far")
	})
}

func TestTypingEndsForWhoKnowsOfIt(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		expect := func(users ...id.UserID) {
			t.Helper()
			got := w.gets("irc")
			if len(got) != 1 || got[0].Get("type").Str != "m.typing" || got[0].Get("room_id").Str != string(room) ||
				len(got[0].Get("content.user_ids").Array()) != len(users) || !got[0].Get("content.user_ids").IsArray() {
				t.Fatalf("got %v, want that %v type", got, users)
			}
			w.nothing("irc", "plain", "far")
		}
		w.types(alice)
		w.types(alice, ghost)
		expect(alice, ghost)
		w.types()
		expect()
		w.types()
		w.nothing("irc")

		w.types(alice)
		expect(alice)
		w.s = New(w.s.Options) // the process ends: the next one knows what was told
		w.types()
		expect()

		w.types(alice)
		expect(alice)
		w.join("irc", 0) // who no longer hears of the room is told the end
		w.types(alice, ghost)
		expect()
		w.types(alice)
		w.nothing("irc")
	})
}

func TestWhatIsNotForAService(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.s.Registered = func(string) int64 { return 3000 }
		w.says(syncapi.TypeReceipt, read1("$1", alice, ""))
		w.nothing("irc")
		apply, err := w.s.TakeSync(t.Context(), []eventlog.Record{{Type: syncapi.TypeToDevice, Value: []byte(`{}`)}})
		if err != nil || apply != nil {
			t.Errorf("a record of another kind: %v", err)
		}
		if _, err := w.s.TakeSync(t.Context(), []eventlog.Record{{Type: syncapi.TypeReceipt, Value: []byte(`{`)}}); err == nil {
			t.Error("a record that cannot be read is taken")
		}
	})
}

// What has changed again while a transaction is made stays for the next one.
func TestAChangeMeanwhileIsNotLost(t *testing.T) {
	worlds(t, func(t *testing.T, w *world) {
		w.types(alice)
		part, err := w.s.Collect(t.Context(), w.s.Registrations.Load().ByID("irc"), nil)
		if err != nil || len(part.Ephemeral) != 1 {
			t.Fatal(part, err)
		}
		w.types()
		w.write(part.Taken)
		if got := w.gets("irc"); len(got) != 1 || len(got[0].Get("content.user_ids").Array()) != 0 {
			t.Errorf("got %v, want the end", got)
		}
		w.types(alice)
		failure := errors.New("away")
		waiting, err := w.s.Waiting(t.Context())
		if err != nil || len(waiting) != 1 || waiting[0] != "irc" {
			t.Errorf("waiting: %v, %v", waiting, err)
		}
		part, err = w.s.Collect(t.Context(), w.s.Registrations.Load().ByID("irc"), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = w.s.Store.DB.Write(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			return errors.Join(part.Taken(ctx, tx), failure)
		})
		if !errors.Is(err, failure) {
			t.Fatal(err)
		}
		if got := w.gets("irc"); len(got) != 1 {
			t.Errorf("got %v, want what was not sent", got)
		}
	})
}
