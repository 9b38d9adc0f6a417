package syncapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi"
	"github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/typingserver"
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
	typing   *typingapi.TypingserverAPI
	sync     *api.SyncAPI
	routes   map[string]httputil.Route
	draining chan struct{}
	stop     func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "sync.db")}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.db, w.rooms = db, newRooms(t, db)
	w.start()
	return w
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
	transport := eventlog.NewEmbedded()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- transport.Relay(ctx, w.rooms.log) }()
	running := 1
	c := config.Default()
	c.Matrix.ServerName = "example.org"
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	deps := component.Deps{Config: c, DB: db, Log: logrus.NewEntry(log), Transport: transport, Sole: true, Draining: w.draining}
	typing, err := typingserver.New(t.Context(), deps)
	if err != nil {
		t.Fatal(err)
	}
	w.typing = typing.API.(*typingapi.TypingserverAPI)
	made, err := syncapi.New(t.Context(), deps, syncapi.Peers{Room: w.rooms.api(), Typing: w.typing})
	if err != nil {
		t.Fatal(err)
	}
	w.sync = made.API.(*api.SyncAPI)
	w.routes = make(map[string]httputil.Route)
	for _, r := range made.Routes {
		w.routes[r.Name] = r
	}
	for _, part := range []*component.Component{typing, made} {
		running++
		go func() { done <- part.Run(ctx) }()
	}
	w.stop = sync.OnceFunc(func() {
		cancel()
		for range running {
			if err := <-done; err != nil {
				t.Error(err)
			}
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
