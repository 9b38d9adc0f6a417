package budget

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/clientapi"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/test/keytest"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// keyServer is a clientapi that nobody else talks to.
type keyServer struct {
	t      *testing.T
	db     *sqlutil.DB
	routes map[string]*httputil.Route // by method and path
}

func newKeyServer(t *testing.T, url string) *keyServer {
	t.Helper()
	s := &keyServer{t: t, db: open(t, url), routes: make(map[string]*httputil.Route)}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	c := config.Default()
	c.Matrix.ServerName, c.Matrix.PasswordHashCost = "here", 4
	c.Matrix.Registration = config.Registration{Enabled: true, Verification: config.VerificationNone}
	deps := component.Deps{Config: c, DB: s.db, Log: logrus.NewEntry(silent), Sole: true, Transport: eventlog.NewEmbedded()}
	peers := clientapi.Peers{Room: new(roomserver.RoomserverAPI), Sync: new(syncapi.SyncAPI),
		Typing: new(typingserver.TypingserverAPI)}
	client, err := clientapi.New(t.Context(), deps, peers)
	must(t, err)
	for i := range client.Routes {
		s.routes[client.Routes[i].Method+" "+client.Routes[i].Path] = &client.Routes[i]
	}
	return s
}

// call sends a request. as has the user and the device who does, and is empty where it is nobody.
func (s *keyServer) call(as keytest.Key, method, path, query string, body any, vars map[string]string) gjson.Result {
	s.t.Helper()
	route := s.routes[method+" /_matrix/client/{r0|v3}"+path]
	if route == nil {
		s.t.Fatalf("there is no endpoint %s %s", method, path)
	}
	content, err := json.Marshal(body)
	must(s.t, err)
	r := httptest.NewRequestWithContext(s.t.Context(), method, "/?"+query, bytes.NewReader(content))
	caller := httputil.Caller{UserID: id.UserID(as.User), DeviceID: id.DeviceID(as.Device)}
	answer, err := route.Handler(s.t.Context(), httputil.NewRequest(r, caller, vars))
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	if raw, is := answer.(httputil.Raw); is {
		return gjson.ParseBytes(raw.Body)
	}
	text, err := json.Marshal(answer)
	must(s.t, err)
	return gjson.ParseBytes(text)
}

// costs checks how many statements a call needs. What reads may cost nothing at all.
func (s *keyServer) costs(what string, most int64, call func()) {
	s.t.Helper()
	before := s.db.Count()
	call()
	cost := s.db.Count().Since(before)
	s.t.Logf("%s: %+v", what, cost)
	if cost.Statements > most || cost.Commits > 1 {
		s.t.Errorf("%s costs %d statements and %d commits, want at most %d and 1", what, cost.Statements, cost.Commits, most)
	}
}

// What clients ask for when they begin to encrypt is a few statements, however many keys, users and devices it is about.
func TestTheBudgetOfKeys(t *testing.T) {
	body := func(t *testing.T, url string) {
		t.Helper()
		s := newKeyServer(t, url)
		const users = 100
		devices := make([]keytest.Key, users)
		all, claims := keytest.Object{}, keytest.Object{}
		for i := range devices {
			name := fmt.Sprintf("user%d", i)
			devices[i] = keytest.Device("@"+name+":here", "PHONE")
			s.call(keytest.Key{}, http.MethodPost, "/register", "", keytest.Object{"username": name, "password": "the password",
				"device_id": "PHONE", "auth": keytest.Object{"type": "m.login.dummy"}}, nil)
			all[devices[i].User] = []string{}
			claims[devices[i].User] = keytest.Object{"PHONE": "signed_curve25519"}
		}
		upload := func(k keytest.Key) {
			s.call(k, http.MethodPost, "/keys/upload", "", keytest.Object{"device_keys": k.Sign(k.DeviceKeys()),
				"one_time_keys": k.OneTime(0, 50), "fallback_keys": k.Fallback(0)}, nil)
		}
		for _, k := range devices[1:] {
			upload(k)
		}
		first := devices[0]
		s.costs("an upload of a device's keys and 50 one-time keys", 14, func() { upload(first) })
		s.costs("the same upload again", 3, func() { upload(first) })
		more := keytest.Object{"one_time_keys": first.OneTime(50, 50)}
		s.costs("50 more one-time keys", 9, func() { s.call(first, http.MethodPost, "/keys/upload", "", more, nil) })
		s.costs("an upload of nothing", 1, func() { s.call(first, http.MethodPost, "/keys/upload", "", keytest.Object{}, nil) })
		query := func() {
			got := s.call(first, http.MethodPost, "/keys/query", "", keytest.Object{"device_keys": all}, nil).Get("device_keys")
			if n := len(got.Map()); n != users {
				t.Errorf("keys of %d users, want %d", n, users)
			}
		}
		s.costs("a query of 100 users", 5, query)
		s.costs("a query of 100 users who were asked for before", 1, query)
		// Each user is told of what is left, on the partition of the log that is theirs.
		claim := int64(6)
		if s.db.Dialect() == sqlutil.SQLite {
			claim = 15 // a statement there has fewer rows
		}
		s.costs("a claim of 100 devices of as many users", claim, func() {
			got := s.call(first, http.MethodPost, "/keys/claim", "", keytest.Object{"one_time_keys": claims}, nil).Get("one_time_keys")
			if n := len(got.Map()); n != users {
				t.Errorf("keys of %d users, want %d", n, users)
			}
		})
		version := s.call(first, http.MethodPost, "/room_keys/version", "",
			keytest.Object{"algorithm": keytest.Backup, "auth_data": keytest.Object{"public_key": keytest.Curve("backup")}}, nil).
			Get("version").Str
		rooms := keytest.Object{}
		for room := range 20 {
			sessions := keytest.Object{}
			for n := range 10 {
				sessions[fmt.Sprintf("session%d", n)] = keytest.Session(n)
			}
			rooms[fmt.Sprintf("!room%d:here", room)] = keytest.Object{"sessions": sessions}
		}
		put := func() {
			got := s.call(first, http.MethodPut, "/room_keys/keys", "version="+version, keytest.Object{"rooms": rooms}, nil)
			if n := got.Get("count").Int(); n != 200 {
				t.Errorf("%d sessions are kept, want 200", n)
			}
		}
		backup := int64(4)
		if s.db.Dialect() == sqlutil.SQLite {
			backup = 5 // a statement there has fewer values
		}
		s.costs("a backup of 200 sessions", backup, put)
		s.costs("the same backup again", 2, put)
		s.costs("a session of a backup", 2, func() {
			s.call(first, http.MethodGet, "/room_keys/keys/{roomID}/{sessionID}", "version="+version, nil,
				map[string]string{"roomID": "!room1:here", "sessionID": "session1"})
		})
	}
	t.Run("sqlite", func(t *testing.T) { body(t, "file:"+filepath.Join(t.TempDir(), "keys.db")) })
	t.Run("postgres", func(t *testing.T) { body(t, test.Postgres(t)) })
}
