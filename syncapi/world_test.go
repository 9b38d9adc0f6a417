package syncapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi"
	"github.com/matrix-org/dendrite/syncapi/api"
	typingapi "github.com/matrix-org/dendrite/typingserver/api"
)

const (
	alice = id.UserID("@alice:example.org")
	bob   = id.UserID("@bob:example.org")
	carol = id.UserID("@carol:example.org")
	room1 = id.RoomID("!one:example.org")
	room2 = id.RoomID("!two:example.org")
)

// world is a syncapi with its database and a roomserver that allows everything.
type world struct {
	t        *testing.T
	db       *sqlutil.DB
	rooms    *rooms
	users    *users
	sync     *api.SyncAPI
	routes   map[string]httputil.Route
	draining chan struct{}
	stop     func()

	transport *eventlog.Embedded
	client    *clientapi.ClientAPI // instead of users
	shared    bool                 // other replicas use the same database
}

// each runs a test on SQLite, and on Postgres where the environment names one.
func each(t *testing.T, body func(*testing.T, *world)) {
	t.Run("sqlite", func(t *testing.T) { body(t, newWorld(t, "file:"+filepath.Join(t.TempDir(), "sync.db"))) })
	t.Run("postgres", func(t *testing.T) { body(t, newWorld(t, postgres(t))) })
}

// postgres makes a schema for one test.
func postgres(t *testing.T) string {
	t.Helper()
	server := os.Getenv("DENDRITE_TEST_POSTGRES")
	if server == "" {
		if os.Getenv("DENDRITE_TEST_REQUIRE") == "1" {
			t.Fatal("DENDRITE_TEST_POSTGRES is not set")
		}
		t.Skip("DENDRITE_TEST_POSTGRES is not set")
	}
	admin, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: server}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	schema := "syncapi_" + strings.ToLower(rand.Text())
	if err := admin.Script(t.Context(), "CREATE SCHEMA "+schema); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(admin.Script(context.Background(), "DROP SCHEMA "+schema+" CASCADE"), admin.Close())
		if err != nil {
			t.Error(err)
		}
	})
	separator := "?"
	if strings.Contains(server, "?") {
		separator = "&"
	}
	return server + separator + "search_path=" + schema
}

func newWorld(t *testing.T, connection string) *world {
	t.Helper()
	w := &world{t: t}
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.db, w.rooms, w.users, w.transport = db, newRooms(t, db), newUsers(t, db), eventlog.NewEmbedded()
	w.client = w.users.api()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for _, log := range []*eventlog.Log{w.rooms.log, w.users.log} {
		go func() { done <- w.transport.Relay(ctx, log) }()
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	w.start()
	return w
}

// replicas are the world after a restart as two replicas.
func (w *world) replicas() [2]*world {
	w.t.Helper()
	w.stop()
	other := *w
	both := [2]*world{w, &other}
	for _, one := range both {
		one.shared = true
		one.start()
	}
	return both
}

// reopened is the same world after a restart of syncapi: nothing is known in memory.
func (w *world) reopened() *world {
	w.t.Helper()
	w.stop()
	w.start()
	return w
}

func (w *world) start() {
	t, db := w.t, w.db
	t.Helper()
	w.draining = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c := config.Default()
	c.Matrix.ServerName = "example.org"
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	deps := component.Deps{Config: c, DB: db, Log: logrus.NewEntry(log), Transport: w.transport, Sole: !w.shared, Draining: w.draining}
	typing := &typingapi.TypingserverAPI{QueryTyping: func(context.Context, typingapi.QueryTypingRequest) (res typingapi.QueryTypingResponse, err error) {
		return res, nil
	}}
	client := w.users.api()
	if w.client != nil {
		client = w.client
	}
	made, err := syncapi.New(t.Context(), deps, syncapi.Peers{Room: w.rooms.api(), Client: client, Typing: typing})
	if err != nil {
		t.Fatal(err)
	}
	w.sync = made.API.(*api.SyncAPI)
	w.routes = make(map[string]httputil.Route)
	for _, r := range made.Routes {
		w.routes[r.Name] = r
	}
	go func() { done <- made.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
}

// call asks an endpoint by its name.
func (w *world) call(user id.UserID, name string, vars map[string]string, query string, body any) (gjson.Result, error) {
	w.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if string(raw) == "null" {
		raw = nil
	}
	route, has := w.routes[name]
	if !has {
		w.t.Fatalf("there is no endpoint %s", name)
	}
	r := httptest.NewRequestWithContext(w.t.Context(), route.Method, "/?"+query, bytes.NewReader(raw))
	result, err := route.Handler(r.Context(), httputil.NewRequest(r, httputil.Caller{UserID: user, DeviceID: "DEV" + id.DeviceID(user.Localpart())}, vars))
	if err != nil {
		return gjson.Result{}, err
	}
	switch v := result.(type) {
	case nil:
		return gjson.Parse(`{}`), nil
	case httputil.Raw:
		raw = v.Body
	default:
		if raw, err = httputil.Marshal(v); err != nil {
			w.t.Fatal(err)
		}
	}
	if !gjson.ValidBytes(raw) {
		w.t.Fatalf("%s answers what is no JSON: %s", name, raw)
	}
	return gjson.ParseBytes(raw), nil
}

func (w *world) must(user id.UserID, name string, vars map[string]string, body any) gjson.Result {
	w.t.Helper()
	result, err := w.call(user, name, vars, "", body)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return result
}

// get syncs at once. more are further parameters of the query, name and value in turn.
func (w *world) get(user id.UserID, since string, more ...string) gjson.Result {
	w.t.Helper()
	query := url.Values{}
	if since != "" {
		query.Set("since", since)
	}
	for i := 0; i < len(more); i += 2 {
		query.Set(more[i], more[i+1])
	}
	result, err := w.call(user, "sync", nil, query.Encode(), nil)
	if err != nil {
		w.t.Fatalf("sync: %v", err)
	}
	return result
}

func next(sync gjson.Result) string { return sync.Get("next_batch").Str }

// in finds a room in a section of a sync.
func in(sync gjson.Result, section string, room id.RoomID) gjson.Result {
	return sync.Get("rooms." + section + "." + gjson.Escape(string(room)))
}

// ids lists the ids of events.
func ids(events gjson.Result) []string {
	all := []string{}
	for _, e := range events.Array() {
		all = append(all, e.Get("event_id").Str)
	}
	return all
}

// poll syncs and waits for something new.
func (w *world) poll(user id.UserID, since string) <-chan gjson.Result {
	answers := make(chan gjson.Result, 1)
	go func() { answers <- w.get(user, since, "timeout", "30000") }()
	return answers
}

func receive(t *testing.T, answers <-chan gjson.Result) gjson.Result {
	t.Helper()
	select {
	case a := <-answers:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("a long poll was not answered")
		panic("not reached")
	}
}
