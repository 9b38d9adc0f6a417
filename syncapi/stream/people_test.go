package stream

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	bob   = id.UserID("@bob:test")
	roomA = id.RoomID("!a:test")
)

func updates(user id.UserID, rooms ...id.RoomID) []storage.Touched {
	touched := []storage.Touched{{Kind: storage.KindDeviceLists, User: user}}
	for _, room := range rooms {
		touched = append(touched, storage.Touched{Kind: storage.KindDeviceLists, User: user, Room: room})
	}
	return touched
}

func movedIn(user id.UserID, room id.RoomID) []storage.Touched {
	return []storage.Touched{{Kind: storage.KindMemberships, User: user, Room: room}}
}

func (h *Hub) next(touched []storage.Touched) {
	h.receive(update{prev: h.pos, pos: h.pos + 1, touched: touched})
}

func TestWhoseKeysChangedIsKnownToThoseWhoSeeThem(t *testing.T) {
	h := newHub(t, roomA, "!b:test")
	h.keepView(bob, &View{})
	sleepers := map[id.UserID]*Sleeper{alice: asleep(t, h, alice, "PHONE")["PHONE"], bob: asleep(t, h, bob, "PHONE")["PHONE"]}
	for _, step := range []struct {
		name    string
		touched []storage.Touched
		woken   []id.UserID
		updated []id.UserID // as alice sees them
	}{
		{"in a room of alice", updates("@carol:test", roomA, "!c:test"), []id.UserID{alice}, []id.UserID{"@carol:test"}},
		{"elsewhere", updates("@dave:test", "!c:test"), nil, nil},
		{"one's own", updates(alice), []id.UserID{alice}, []id.UserID{alice}},
		{"in two rooms", updates("@carol:test", roomA, "!b:test"), []id.UserID{alice}, []id.UserID{"@carol:test"}},
	} {
		since := h.pos
		h.next(step.touched)
		for name, s := range sleepers {
			if s.isWoken() != slices.Contains(step.woken, name) {
				t.Errorf("%s: %s is woken, or is not", step.name, name)
			}
		}
		m := h.look(alice, since, 0).Moved
		if got := slices.Sorted(maps.Keys(m.Updated)); !m.Known || !slices.Equal(got, step.updated) || m.Members != nil {
			t.Errorf("%s: %+v", step.name, m)
		}
		if m := h.look(alice, h.pos, 0).Moved; !m.Known || m.Updated != nil {
			t.Errorf("%s, looked at again: %+v", step.name, m)
		}
	}
}

func TestWhoseMembershipChangedIsKnownInTheirRooms(t *testing.T) {
	h := newHub(t, roomA)
	s := asleep(t, h, alice, "PHONE")["PHONE"]
	h.next(movedIn(bob, roomA))
	h.next(movedIn(bob, "!elsewhere:test"))
	if m := h.look(alice, 100, 0).Moved; !m.Known || len(m.Members) != 1 || m.Members[bob] != 101 || !s.isWoken() {
		t.Errorf("after bob has come: %+v", m)
	}
}

// What is not known is the database's to tell.
func TestWhatIsNotKnownOfPeopleIsNotSaid(t *testing.T) {
	for name, happens := range map[string]func(h *Hub){
		"alice's own memberships": func(h *Hub) {
			h.next(movedIn(alice, "!new:test"))
			h.keepView(alice, &View{Joined: []id.RoomID{roomA, "!new:test"}})
		},
		"only alice sees it": func(h *Hub) {
			h.next([]storage.Touched{{Kind: storage.KindSignedUsers, User: alice}})
		},
		"a release before this one does not say where": func(h *Hub) { h.next(movedIn(bob, "")) },
		"a newer release tells of the room":            func(h *Hub) { h.next([]storage.Touched{{Kind: "new", Room: roomA}}) },
		"it happened in too many rooms to tell": func(h *Hub) {
			s := asleep(t, h, alice, "PHONE")["PHONE"]
			h.next(append(updates(bob), storage.Touched{Kind: storage.KindDeviceListsAnywhere, User: bob}))
			if !s.isWoken() {
				t.Error("alice, who may see bob, is not woken")
			}
		},
		"too much happened in a room": func(h *Hub) {
			for range windowRows + 1 {
				h.next(updates(bob, roomA))
			}
		},
		"too many have come": func(h *Hub) {
			h.keepView(alice, &View{Joined: []id.RoomID{roomA, "!b:test", "!c:test", "!d:test"}})
			for i := range maxMoved + 2 {
				h.next(movedIn(id.UserID(fmt.Sprintf("@%d:test", i)), []id.RoomID{roomA, "!b:test", "!c:test"}[i%3]))
			}
			h.next(movedIn(bob, "!d:test"))
		},
		"a message was missed": func(h *Hub) {
			h.mu.Lock()
			h.reset(105)
			h.mu.Unlock()
			h.keepView(alice, &View{Joined: []id.RoomID{roomA}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, roomA)
			happens(h)
			if m := h.look(alice, 100, 0).Moved; m.Known {
				t.Errorf("known: %+v", m)
			}
			since := h.pos
			h.next(updates(bob, roomA))
			if m := h.look(alice, since, 0).Moved; !m.Known || len(m.Updated) != 1 {
				t.Errorf("of the time since: %+v", m)
			}
		})
	}
}

// withStorage gives a Hub a database.
func withStorage(t *testing.T, h *Hub) {
	t.Helper()
	url := "file:" + filepath.Join(t.TempDir(), "sync.db")
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := storage.New(t.Context(), db, h.Committed)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func TestWhoHasComeIsReadOnceForAllWhoLook(t *testing.T) {
	h := newHub(t)
	h.o.Sole = true
	withStorage(t, h)
	pos := commit(t, h, &storage.Changes{Memberships: []storage.Membership{{UserID: bob, RoomID: roomA, Membership: "join"}}})
	before := h.o.Storage.DB().Count()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			people, err := h.People(t.Context(), map[id.UserID]int64{bob: pos})
			if err != nil || people[bob] == nil || len(people[bob].Rooms[roomA]) != 1 || people[bob].At < pos {
				t.Errorf("bob is known as %+v, %v", people[bob], err)
			}
		})
	}
	all.Wait()
	if cost := h.o.Storage.DB().Count().Since(before); cost.Statements != 1 {
		t.Errorf("%d statements for 100 who look, want 1", cost.Statements)
	}
	later := commit(t, h, &storage.Changes{Memberships: []storage.Membership{{UserID: bob, RoomID: roomA, Membership: "leave"}}})
	people, err := h.People(t.Context(), map[id.UserID]int64{bob: later})
	if err != nil || len(people[bob].Rooms[roomA]) != 2 {
		t.Errorf("after bob has left: %+v, %v", people[bob], err)
	}
}

// commit writes rows, all at the position that it returns.
func commit(t *testing.T, h *Hub, c *storage.Changes) (pos int64) {
	t.Helper()
	err := h.o.Storage.Write(t.Context(), "test", 1, func(_ ctx, _ *sqlutil.Tx, first int64) (*storage.Changes, error) {
		pos = first
		for i := range c.Memberships {
			c.Memberships[i].Pos = first
		}
		for i := range c.DeviceKeys {
			c.DeviceKeys[i].Pos = first
		}
		return c, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pos
}
