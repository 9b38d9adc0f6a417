package stream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

const typer = id.UserID("@bob:test")

// hears tells who types in a room.
func hears(h *Hub, room id.RoomID, users []id.UserID) {
	h.hearTyping(typingserver.OutputTyping{RoomID: room, Users: users, Number: time.Now().UnixMicro()})
}

func typers(w *Window) map[id.RoomID][]id.UserID {
	all := make(map[id.RoomID][]id.UserID)
	for _, t := range w.Typing {
		all[t.RoomID] = t.Users
	}
	return all
}

func TestTypingIsToldWhateverTheClocksOfTheReplicasAre(t *testing.T) {
	h := newHub(t, "!a:test", "!b:test")
	hears(h, "!a:test", []id.UserID{typer})
	since := h.look(alice, 100, h.typing.floor).Number
	h.hearTyping(typingserver.OutputTyping{RoomID: "!b:test", Users: []id.UserID{typer}, Number: since - 1000})
	w := h.look(alice, 100, since)
	if got := typers(w); len(got) != 1 || !slices.Equal(got["!b:test"], []id.UserID{typer}) {
		t.Errorf("heard %v, want what was told by a clock that is behind", got)
	}
	if again := h.look(alice, 100, w.Number); len(again.Typing) != 0 {
		t.Errorf("heard %v again", again.Typing)
	}
}

// Who has a token of a process that has ended must not show for ever who typed then.
func TestTypingEndsOverARestart(t *testing.T) {
	h := newHub(t, "!a:test", "!b:test")
	hears(h, "!b:test", []id.UserID{typer})
	w := h.look(alice, 100, h.typing.floor-1)
	got := typers(w)
	if users, told := got["!a:test"]; !told || len(users) != 0 {
		t.Errorf("heard %v, want that nobody types in the first room", got)
	}
	if !slices.Equal(got["!b:test"], []id.UserID{typer}) {
		t.Errorf("heard %v, want who types in the second room", got)
	}
	if again := h.look(alice, 100, w.Number); len(again.Typing) != 0 {
		t.Errorf("heard %v again", again.Typing)
	}
}

func TestRoomsInWhichNobodyTypesAreForgotten(t *testing.T) {
	h := newHub(t, "!a:test", "!0:test")
	h.typing.most = 4
	hears(h, "!0:test", []id.UserID{typer})
	since := h.look(alice, 100, h.typing.floor).Number
	for i := range 20 {
		hears(h, id.RoomID(fmt.Sprintf("!%d:test", i)), nil)
		if len(h.typing.rooms) > 5 {
			t.Fatalf("%d rooms are kept", len(h.typing.rooms))
		}
	}
	got := typers(h.look(alice, 100, since))
	if users, told := got["!0:test"]; !told || len(users) != 0 {
		t.Errorf("heard %v, want the end", got)
	}
}

func TestANewlyJoinedRoomShowsWhoIsThere(t *testing.T) {
	h := newHub(t, "!a:test")
	hears(h, "!a:test", []id.UserID{typer})
	hears(h, "!other:test", []id.UserID{typer})
	for user, room := range map[id.UserID]id.RoomID{typer: "!a:test", "@carol:test": "!c:test"} {
		h.presence.users[user] = &present{number: h.typing.number,
			Presence: Presence{UserID: user, State: presence.Online, rooms: []id.RoomID{room}}}
	}
	number := h.typing.number
	is := func(membership string, pos int64) storage.Membership {
		return storage.Membership{RoomID: "!a:test", UserID: alice, Membership: membership, Pos: pos}
	}
	h.users[alice].view.Rooms = map[id.RoomID][]storage.Membership{
		"!a:test": {is("leave", 90), is("join", 105), is("join", 106)}}
	w := h.look(alice, 104, number)
	if got := typers(w); len(got) != 1 || !slices.Equal(got["!a:test"], []id.UserID{typer}) {
		t.Errorf("heard %v, want who types in the room that is new", got)
	}
	if len(w.Presence) != 1 || w.Presence[0].UserID != typer {
		t.Errorf("heard of %v, want who is in the room that is new", w.Presence)
	}
	if w := h.look(alice, 105, number); len(w.Typing)+len(w.Presence) != 0 {
		t.Errorf("heard %v and %v again after a change of the profile", w.Typing, w.Presence)
	}
}

func TestWhoLeavesEndsTyping(t *testing.T) {
	h := newHub(t, "!a:test")
	expect := func(want ...typist) {
		t.Helper()
		for _, one := range want {
			select {
			case got := <-h.typing.stops:
				if got != one {
					t.Errorf("stopped %v, want %v", got, one)
				}
			default:
				t.Errorf("%v is not stopped", one)
			}
		}
		if len(h.typing.stops) > 0 {
			t.Errorf("%v is stopped", <-h.typing.stops)
		}
	}
	is := func(membership string) []storage.Membership {
		return []storage.Membership{{RoomID: "!a:test", UserID: typer, Membership: membership}}
	}
	h.typing.leave(is("leave"))
	expect() // who does not type costs no call
	hears(h, "!a:test", []id.UserID{typer})
	expect(typist{"!a:test", typer}) // a message that comes late
	h.typing.leave(is("join"))
	hears(h, "!a:test", nil)
	hears(h, "!a:test", []id.UserID{typer})
	expect()
	for _, membership := range []string{"leave", "ban"} {
		h.typing.leave(is(membership))
		expect(typist{"!a:test", typer})
	}
	for i := range 2 * leaversKept {
		user := id.UserID(fmt.Sprint("@", i, ":test"))
		h.typing.leave([]storage.Membership{{RoomID: "!a:test", UserID: user, Membership: "leave"}})
	}
	if len(h.typing.leavers) > leaversKept {
		t.Errorf("%d leavers are kept", len(h.typing.leavers))
	}
}
