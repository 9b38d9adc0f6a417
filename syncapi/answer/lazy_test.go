package answer

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/filter"
)

// However many devices load members of however many rooms, what is remembered of it has a bound, and the newest stays.
func TestWhatIsRememberedOfLazyMembersIsBounded(t *testing.T) {
	e := new(Engine)
	f := filter.Default()
	f.Room.State = &roomserver.EventFilter{LazyLoadMembers: true}
	sent := make([]id.UserID, lazyMembersOfRoom)
	for i := range sent {
		sent[i] = id.UserID(fmt.Sprintf("@user%d:here", i))
	}
	const devices, rooms = 30, 50
	answer := func(n int) {
		a := &answering{Engine: e,
			Request: &Request{UserID: "@alice:here", DeviceID: id.DeviceID(fmt.Sprint(n)), Filter: f},
			next:    Token{Pos: 7}, rooms: make(map[id.RoomID]*room)}
		for i := range rooms {
			name := id.RoomID(fmt.Sprint("!", i))
			a.rooms[name] = &room{id: name, sent: sent}
		}
		a.remember()
	}
	for n := range devices {
		answer(n)
		if e.lazy.members > lazyMembersOfAll {
			t.Fatalf("%d members are remembered after %d devices", e.lazy.members, n+1)
		}
	}
	count := 0
	for _, d := range e.lazy.devices.Values() {
		for _, members := range d.rooms {
			count += len(members)
		}
	}
	if count != e.lazy.members {
		t.Errorf("%d members are remembered, and counted as %d", count, e.lazy.members)
	}
	newest, oldest := id.DeviceID(fmt.Sprint(devices-1)), id.DeviceID("0")
	if !e.lazy.sent("@alice:here", newest, "!1", sent[0], 7) || e.lazy.sent("@alice:here", newest, "!1", sent[0], 6) {
		t.Error("the newest device is not remembered as it was")
	}
	if e.lazy.sent("@alice:here", oldest, "!1", sent[0], 7) {
		t.Error("the oldest device is remembered in place of newer ones")
	}
}
