// Package budget counts what the main operations cost the database: statements, transactions, commits. Costs are counted, not timed.
package budget

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/rpc"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi"
	syncapiapi "github.com/matrix-org/dendrite/syncapi/api"
	"github.com/matrix-org/dendrite/typingserver"
	typingapi "github.com/matrix-org/dendrite/typingserver/api"
)

const alice = id.UserID("@alice:here")

// server is a roomserver and a syncapi that follows it, each on a database of its own, so that their costs are told apart.
type server struct {
	t           *testing.T
	rooms, sync *sqlutil.DB
	room        api.RoomserverAPI
	token       syncapiapi.SyncAPI
	routes      []httputil.Route // of syncapi
	stop        func()
	users       *userLog // nil: nothing happens to users
}

func open(t *testing.T, url string) *sqlutil.DB {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// databases runs a test on SQLite and on Postgres.
func databases(t *testing.T, body func(t *testing.T, s *server)) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		body(t, newServer(t, "file:"+filepath.Join(dir, "rooms.db"), "file:"+filepath.Join(dir, "sync.db")))
	})
	t.Run("postgres", func(t *testing.T) { body(t, newServer(t, test.Postgres(t), test.Postgres(t))) })
}

func newServer(t *testing.T, roomsURL, syncURL string) *server {
	t.Helper()
	s := &server{t: t, rooms: open(t, roomsURL), sync: open(t, syncURL)}
	s.start()
	return s
}

// start starts the components. After a stop, they know nothing but what the databases have.
func (s *server) start() {
	t := s.t
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	deps := component.Deps{
		Config: &config.Config{Matrix: config.Matrix{ServerName: "here", DefaultRoomVersion: "12", Presence: config.Presence{Enabled: true}}},
		Log:    logrus.NewEntry(silent), Sole: true, Signer: pdu.Signer{ServerName: "here", KeyID: "ed25519:1", PrivateKey: key},
		Transport: eventlog.NewEmbedded(), Draining: make(chan struct{}),
	}
	client := clientapi.ClientAPI{Heads: func(context.Context, eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
		return eventlog.HeadsResponse{LogID: "quiet", Heads: make([]int64, eventlog.Partitions)}, nil
	}, QueryDevices: func(_ context.Context, q clientapi.QueryDevicesRequest) (clientapi.QueryDevicesResponse, error) {
		res := clientapi.QueryDevicesResponse{Devices: make(map[id.UserID][]id.DeviceID)}
		for _, user := range q.UserIDs {
			res.Devices[user] = []id.DeviceID{"D"}
		}
		return res, nil
	}}
	if s.users != nil {
		client.ReadLog, client.Heads = s.users.topic.Read, s.users.topic.Heads
	}
	var typing typingapi.TypingserverAPI
	typer, err := typingserver.New(t.Context(), deps)
	must(t, err)
	must(t, rpc.Local("typingserver", nil, typer.API, &typing))
	deps.DB = s.rooms
	roomer, err := roomserver.New(t.Context(), deps, roomserver.Peers{Client: &client})
	must(t, err)
	must(t, rpc.Local("roomserver", nil, roomer.API, &s.room))
	deps.DB = s.sync
	syncer, err := syncapi.New(t.Context(), deps, syncapi.Peers{Room: &s.room, Client: &client, Typing: &typing})
	must(t, err)
	must(t, rpc.Local("syncapi", nil, syncer.API, &s.token))
	s.routes = syncer.Routes
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 4)
	go func() { done <- s.users.relay(ctx, deps.Transport) }()
	for _, c := range []*component.Component{typer, roomer, syncer} {
		go func() { done <- c.Run(ctx) }()
	}
	s.stop = sync.OnceFunc(func() {
		cancel()
		for range 4 {
			must(t, <-done)
		}
	})
	t.Cleanup(s.stop)
}

// applied waits until syncapi has applied all that the roomserver has committed, and tells how many statements it needed to see that.
func (s *server) applied() (looks int64) {
	s.t.Helper()
	heads, err := s.room.Heads(s.t.Context(), eventlog.HeadsRequest{Topic: api.Topic})
	must(s.t, err)
	offset := s.sync.Stmt(`SELECT COALESCE(SUM(seq), 0) FROM syncapi_log_offsets WHERE consumer = 'room'`)
	var want int64
	for _, head := range heads.Heads {
		want += head
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		var seq int64
		must(s.t, s.sync.ReadOne(s.t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			return offset.QueryRow(ctx, tx).Scan(&seq)
		}))
		if looks++; seq == want {
			return looks
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d records are applied", seq, want)
		}
	}
}

func (s *server) say(room id.RoomID, n int) {
	s.t.Helper()
	must(s.t, s.send(room, n))
}

func (s *server) send(room id.RoomID, n int) error {
	_, err := s.room.SendEvent(s.t.Context(), api.SendEventRequest{RequestKey: api.RequestKey(fmt.Sprint(room, n)), RoomID: room, Sender: alice,
		DeviceID: "D", TransactionID: fmt.Sprint(n), Type: "m.room.message", Content: json.RawMessage(`{"msgtype":"m.text","body":"hello"}`)})
	return err
}

// The budget of one send: conditional update of the room, log counter, insert of the event, in one transaction of roomserver;
// offset, counts, position and timeline in one of syncapi. With BEGIN and COMMIT of both that is eleven statements.
func TestTheBudgetOfOneSend(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{RequestKey: "create", Creator: alice, Preset: "public_chat"})
		must(t, err)
		for n := range 10 { // statements are prepared, caches are warm
			s.say(res.RoomID, n)
		}
		s.applied()
		rooms, sync := sqlutil.Count{Statements: 100}, sqlutil.Count{Statements: 100}
		commits := s.sync.Count().Commits
		const sends = 5
		for n := range sends { // once a second each also looks whether another process has written
			roomsBefore, syncBefore := s.rooms.Count(), s.sync.Count()
			s.say(res.RoomID, 10+n)
			least(&rooms, s.rooms.Count().Since(roomsBefore), 0)
			looks := s.applied()
			least(&sync, s.sync.Count().Since(syncBefore), looks)
		}
		if rooms.Statements != 3 || rooms.Commits > 2 {
			t.Errorf("roomserver: %+v, want 3 statements and 1 commit", rooms)
		}
		// A commit is counted just after it can be seen.
		if commits = s.sync.Count().Commits - commits; sync.Statements != 4 || commits > sends+1 {
			t.Errorf("syncapi: %+v and %d commits for %d sends, want 4 statements and 1 commit each", sync, commits, sends)
		}
	})
}

// least keeps the lower of two costs; looks are statements that do not count.
func least(of *sqlutil.Count, cost sqlutil.Count, looks int64) {
	if cost.Statements -= looks; cost.Statements < of.Statements {
		*of = cost
	}
}
