package performer_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/roomserver"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/roomtest"
)

const (
	alice = roomtest.Alice
	bob   = roomtest.Bob
	carol = roomtest.Carol
)

func state(room id.RoomID, sender id.UserID, eventType, stateKey, content string) api.SendEventRequest {
	return api.SendEventRequest{RequestKey: api.RequestKey(fmt.Sprint(room, sender, eventType, stateKey, content)), RoomID: room, Sender: sender,
		Type: eventType, StateKey: &stateKey, Content: json.RawMessage(content)}
}

func isMember(t *testing.T, w *roomtest.World, room id.RoomID, user id.UserID, want string) {
	t.Helper()
	if got := roomtest.Must(w, w.QueryMembership, api.QueryMembershipRequest{RoomID: room, UserID: user}).Membership; got != want {
		t.Errorf("%s is %q, want %q", user, got, want)
	}
}

// restricted makes a room for the members of another one, of which bob is one.
func restricted(w *roomtest.World) (room id.RoomID) {
	space := w.Room("shared")
	w.Join(space, bob)
	room = w.Room("shared")
	w.Set(room, alice, "m.room.join_rules", "", fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, space))
	return room
}

func TestRestrictedRooms(t *testing.T) {
	roomtest.Databases(t, func(t *testing.T, w *roomtest.World) {
		room := restricted(w)
		roomtest.Fails(w, "M_FORBIDDEN", w.JoinRoom, api.JoinRoomRequest{UserID: carol, RoomIDOrAlias: string(room)})
		w.Join(room, bob)
		isMember(t, w, room, bob, "join")
	})
}

func TestMemberEventsThatAreSentAsState(t *testing.T) {
	w := roomtest.New(t, true)
	room := restricted(w)
	const member = "m.room.member"
	// Nobody lets themselves in by naming a member who is said to have authorised it.
	roomtest.Fails(w, "M_FORBIDDEN", w.SendEvent, state(room, carol, member, string(carol),
		fmt.Sprintf(`{"membership":"join","join_authorised_via_users_server":%q}`, alice)))
	isMember(t, w, room, carol, "")
	roomtest.Must(w, w.SendEvent, state(room, bob, member, string(bob), `{"membership":"join","displayname":"Bob"}`))
	isMember(t, w, room, bob, "join")
	// A member changes their name with the content that they have, the authoriser included.
	roomtest.Must(w, w.SendEvent, state(room, bob, member, string(bob),
		`{"membership":"join","displayname":"Bobby","join_authorised_via_users_server":"@gone:elsewhere"}`))
	roomtest.Fails(w, "M_UNREACHABLE", w.SendEvent, state(room, alice, member, "@dave:elsewhere", `{"membership":"invite"}`))

	open := w.Room("shared") // a public_chat, which guests may not join
	guest := state(open, carol, member, string(carol), `{"membership":"join"}`)
	guest.Guest = true
	roomtest.Fails(w, "M_GUEST_ACCESS_FORBIDDEN", w.SendEvent, guest)
}

func TestTheSameStateIsSentOnce(t *testing.T) {
	w := roomtest.New(t, true)
	room := w.Room("shared")
	first := w.Set(room, alice, "m.room.topic", "", `{"topic":"a","n":1}`)
	if again := w.Set(room, alice, "m.room.topic", "", `{"n": 1, "topic":"\u0061"}`); again != first {
		t.Errorf("the same content made the event %s", again)
	}
	redaction := w.Redact(room, alice, first, "")
	if again := w.Set(room, alice, "m.room.topic", "", `{}`); again == first || again == redaction {
		t.Error("a redacted state event counts as one that was sent with no content")
	}
	w.Set(room, alice, "m.room.topic", "", `{"topic":"b"}`)
	w.Set(room, alice, "m.room.power_levels", "", `{"events":{"m.room.topic":0},"state_default":50}`)
	w.Join(room, bob)
	w.Set(room, bob, "m.room.topic", "", `{"topic":"of bob"}`)
	w.Do(api.ActionLeave, room, bob, bob)
	roomtest.Fails(w, "M_FORBIDDEN", w.SendEvent, state(room, bob, "m.room.topic", "", `{"topic":"of bob"}`))
}

func TestTheCreateEventCannotBeRedacted(t *testing.T) {
	w := roomtest.New(t, true)
	room := w.Room("shared")
	created := "$" + id.EventID(room[1:])
	roomtest.Fails(w, "M_FORBIDDEN", w.SendEvent, api.SendEventRequest{RoomID: room, Sender: alice, Type: pdu.TypeRedaction, Redacts: created, Content: json.RawMessage(`{}`)})
}

func TestTheDirectorysRulesHoldForCreateRoom(t *testing.T) {
	w := roomtest.New(t, true, config.DirectoryRule{User: string(bob), Action: "deny"})
	roomtest.Fails(w, "M_FORBIDDEN", w.CreateRoom, api.CreateRoomRequest{RequestKey: "1", Creator: bob, Visibility: "public"})
	roomtest.Must(w, w.CreateRoom, api.CreateRoomRequest{RequestKey: "2", Creator: bob})
	roomtest.Must(w, w.CreateRoom, api.CreateRoomRequest{RequestKey: "3", Creator: alice, Visibility: "public"})
}

// replicas are two roomservers on the same tables.
func replicas(t *testing.T) (a, b *roomtest.World) {
	t.Helper()
	url := test.Postgres(t)
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []*roomtest.World
	for range 2 {
		db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url, MaxOpenConns: 5}, sqlutil.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		c, err := roomserver.New(t.Context(), component.Deps{
			Config: &config.Config{Matrix: config.Matrix{ServerName: roomtest.Server, DefaultRoomVersion: "12"}}, DB: db,
			Log: logrus.NewEntry(silent), Signer: pdu.Signer{ServerName: roomtest.Server, KeyID: "ed25519:1", PrivateKey: key},
		}, roomserver.Peers{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &roomtest.World{T: t, RoomserverAPI: c.API.(*api.RoomserverAPI)})
	}
	return all[0], all[1]
}

func TestARedactionOnOneReplicaIsSeenByTheOther(t *testing.T) {
	a, b := replicas(t)
	room := roomtest.Must(a, a.CreateRoom, api.CreateRoomRequest{RequestKey: "create", Creator: alice, Preset: "public_chat"}).RoomID
	name := roomtest.Must(b, b.SendEvent, state(room, alice, "m.room.name", "", `{"name":"secret"}`)).EventID
	roomtest.Must(a, a.SendEvent, api.SendEventRequest{RequestKey: "redact", RoomID: room, Sender: alice, Type: pdu.TypeRedaction, Redacts: name,
		Content: json.RawMessage(`{}`)})
	roomtest.Must(b, b.SendEvent, state(room, alice, "m.room.topic", "", `{"topic":"b writes the summary"}`))
	rooms := roomtest.Must(b, b.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms
	if rooms[0].Name != "" || rooms[0].Topic == "" {
		t.Errorf("the summary is %+v", rooms[0])
	}
	again := state(room, alice, "m.room.name", "", `{"name":"secret"}`)
	again.RequestKey = "again"
	if got := roomtest.Must(b, b.SendEvent, again).EventID; got == name {
		t.Error("a name is taken for unchanged that was redacted elsewhere")
	}
}

func TestOneRequestOnTwoReplicas(t *testing.T) {
	a, b := replicas(t)
	create := api.CreateRoomRequest{RequestKey: "create", Creator: alice, AliasLocalpart: "name", Visibility: "public"}
	rooms := make(chan id.RoomID, 2)
	for _, w := range []*roomtest.World{a, b} {
		go func() {
			res, err := w.CreateRoom(t.Context(), create)
			if err != nil {
				t.Error(err)
			}
			rooms <- res.RoomID
		}()
	}
	room, other := <-rooms, <-rooms
	if room != other {
		t.Fatalf("one request made the rooms %s and %s", room, other)
	}
	taken := create
	taken.RequestKey = "another"
	roomtest.Fails(b, "M_ROOM_IN_USE", b.CreateRoom, taken)
	for round := range 10 {
		events := make(chan id.EventID, 2)
		send := state(room, alice, "m.new", fmt.Sprint("key ", round), `{}`) // a key that both number
		for _, w := range []*roomtest.World{a, b} {
			go func() {
				res, err := w.SendEvent(t.Context(), send)
				if err != nil {
					t.Error(err)
				}
				events <- res.EventID
			}()
		}
		if x, y := <-events, <-events; x != y {
			t.Errorf("one request made the events %s and %s", x, y)
		}
	}
}
