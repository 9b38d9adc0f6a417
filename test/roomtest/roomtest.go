// Package roomtest builds rooms for tests: a whole roomserver on a database of its own, and short words for what users do in it.
package roomtest

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/rpc"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// Server is the name of the server, Alice, Bob and Carol some of its users.
const (
	Server = id.ServerName("here")
	Alice  = id.UserID("@alice:here")
	Bob    = id.UserID("@bob:here")
	Carol  = id.UserID("@carol:here")
)

// World is a roomserver. A word that fails ends the test.
type World struct {
	T testing.TB
	*api.RoomserverAPI
	db   *sqlutil.DB
	last int
}

// Databases runs a test on SQLite and on Postgres.
func Databases(t *testing.T, body func(t *testing.T, w *World)) {
	t.Run("sqlite", func(t *testing.T) { body(t, New(t, true)) })
	t.Run("postgres", func(t *testing.T) { body(t, newWorld(t, test.Postgres(t), false, nil)) })
}

// DatabasesOf runs a benchmark on SQLite, and on Postgres as a server that is alone there.
func DatabasesOf(b *testing.B, body func(b *testing.B, w *World)) {
	b.Run("sqlite", func(b *testing.B) { body(b, New(b, true)) })
	b.Run("postgres", func(b *testing.B) { body(b, newWorld(b, test.Postgres(b), true, nil)) })
}

// Size is that of the database in bytes, and of all that Postgres has ever logged.
func (w *World) Size() (size, wal int64) {
	w.T.Helper()
	statement := w.db.Stmt(`SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size()), 0`)
	if w.db.Dialect() == sqlutil.Postgres {
		statement = w.db.Stmt(`SELECT pg_database_size(current_database()), (pg_current_wal_lsn() - '0/0')::bigint`)
	}
	w.must(w.db.ReadOne(w.T.Context(), "size", func(ctx context.Context, tx *sqlutil.Tx) error {
		return statement.QueryRow(ctx, tx).Scan(&size, &wal)
	}))
	return size, wal
}

// New makes a roomserver on SQLite. sole says that it is the only one on its tables. The rules are those of the room directory.
func New(t testing.TB, sole bool, rules ...config.DirectoryRule) *World {
	return newWorld(t, "file:"+filepath.Join(t.TempDir(), "rooms.db"), sole, rules)
}

func newWorld(t testing.TB, connection string, sole bool, rules []config.DirectoryRule) *World {
	t.Helper()
	w := &World{T: t}
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: connection}, sqlutil.Deps{})
	w.must(err)
	t.Cleanup(func() { w.must(db.Close()) })
	_, key, err := ed25519.GenerateKey(nil)
	w.must(err)
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	c, err := roomserver.New(t.Context(), component.Deps{
		Config: &config.Config{Matrix: config.Matrix{ServerName: Server, DefaultRoomVersion: "12", RoomDirectory: config.RoomDirectory{Rules: rules}}},
		DB:     db, Log: logrus.NewEntry(silent), Sole: sole, Signer: pdu.Signer{ServerName: Server, KeyID: "ed25519:1", PrivateKey: key},
	}, roomserver.Peers{})
	w.must(err)
	w.db, w.RoomserverAPI = db, c.API.(*api.RoomserverAPI)
	return w
}

func (w *World) must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

func (w *World) key() api.RequestKey {
	w.last++
	return api.RequestKey(fmt.Sprint("request ", w.last))
}

// Must carries out a call that succeeds.
func Must[Req, Res any](w *World, call rpc.Call[Req, Res], req Req) Res {
	w.T.Helper()
	res, err := call(w.T.Context(), req)
	w.must(err)
	return res
}

// Fails carries out a call that fails with this errcode.
func Fails[Req, Res any](w *World, code string, call rpc.Call[Req, Res], req Req) {
	w.T.Helper()
	if _, err := call(w.T.Context(), req); !mxerr.Is(err, code) {
		w.T.Errorf("%+v: got %v, want %s", req, err, code)
	}
}

// Room makes a public room of Alice with this history visibility.
func (w *World) Room(visibility string) id.RoomID {
	w.T.Helper()
	return Must(w, w.CreateRoom, api.CreateRoomRequest{RequestKey: w.key(), Creator: Alice, Preset: "public_chat", InitialState: []api.InitialState{
		{Type: "m.room.history_visibility", Content: json.RawMessage(fmt.Sprintf(`{"history_visibility":%q}`, visibility))},
	}}).RoomID
}

// Say sends a message.
func (w *World) Say(room id.RoomID, user id.UserID, body string) id.EventID {
	w.T.Helper()
	w.last++
	return Must(w, w.SendEvent, api.SendEventRequest{RequestKey: w.key(), RoomID: room, Sender: user, Type: "m.room.message", DeviceID: "D",
		TransactionID: fmt.Sprint("t", w.last), Content: json.RawMessage(fmt.Sprintf(`{"msgtype":"m.text","body":%q}`, body))}).EventID
}

// Set sends a state event.
func (w *World) Set(room id.RoomID, user id.UserID, eventType, stateKey, content string) id.EventID {
	w.T.Helper()
	return Must(w, w.SendEvent, api.SendEventRequest{RequestKey: w.key(), RoomID: room, Sender: user, Type: eventType, StateKey: &stateKey,
		Content: json.RawMessage(content)}).EventID
}

// Redact redacts an event.
func (w *World) Redact(room id.RoomID, user id.UserID, target id.EventID, reason string) id.EventID {
	w.T.Helper()
	return Must(w, w.SendEvent, api.SendEventRequest{RequestKey: w.key(), RoomID: room, Sender: user, Type: pdu.TypeRedaction, Redacts: target,
		Content: json.RawMessage(fmt.Sprintf(`{"reason":%q}`, reason))}).EventID
}

// Join joins a room.
func (w *World) Join(room id.RoomID, user id.UserID) {
	w.T.Helper()
	Must(w, w.JoinRoom, api.JoinRoomRequest{RequestKey: w.key(), UserID: user, RoomIDOrAlias: string(room)})
}

// Do changes a membership.
func (w *World) Do(action string, room id.RoomID, sender, target id.UserID) id.EventID {
	w.T.Helper()
	return Must(w, w.ChangeMembership, api.ChangeMembershipRequest{RequestKey: w.key(), Action: action, RoomID: room, Sender: sender, Target: target}).EventID
}

// Bodies are the messages among events; of other events it is the type.
func Bodies(events []api.Event) []string {
	all := []string{}
	for _, e := range events {
		if body, is := pdu.String(pdu.Member(e.PDU.Content(), "body")); is {
			all = append(all, body)
		} else {
			all = append(all, e.PDU.Type())
		}
	}
	return all
}

// Messages selects events of type m.room.message.
func Messages() *api.EventFilter { return &api.EventFilter{Types: []string{"m.room.message"}} }

// History are the messages that a viewer sees, oldest first, page by page.
func (w *World) History(room id.RoomID, viewer api.Viewer) []string {
	w.T.Helper()
	all := []string{}
	req := api.QueryMessagesRequest{Viewer: viewer, RoomID: room, Limit: 3, Filter: Messages()}
	for {
		res, err := w.QueryMessages(context.WithoutCancel(w.T.Context()), req)
		if mxerr.Is(err, "M_FORBIDDEN") {
			return []string{"M_FORBIDDEN"}
		}
		w.must(err)
		all = append(all, Bodies(res.Chunk)...)
		if req.From = res.End; res.End == nil {
			return all
		}
	}
}
