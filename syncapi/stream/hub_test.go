package stream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const alice = id.UserID("@alice:test")

// newHub makes a Hub at position 100 that knows alice, who is joined to the rooms.
func newHub(t *testing.T, rooms ...id.RoomID) *Hub {
	t.Helper()
	cache := events.New(&roomserver.RoomserverAPI{})
	h := New(Options{Events: cache, RulesChanged: func([]id.UserID) {}}, "here")
	h.pos, h.floor = 100, 100
	h.keepView(alice, &View{Joined: rooms})
	return h
}

func says(room id.RoomID, prev, pos int64) update {
	return update{prev: prev, pos: pos, touched: []storage.Touched{{Kind: storage.KindTimeline, Room: room}},
		timeline: []storage.TimelineRow{{RoomID: room, Pos: pos, All: storage.Counts{Notify: pos}}}}
}

func TestWhereMuchIsUnderWayNothingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, "!a:test")
		// Each commit is heard 60 ms after the one that follows it: something always waits, and never for long.
		for pos := int64(100); pos < 140; pos += 2 {
			h.receive(says("!a:test", pos+1, pos+2))
			<-time.After(60 * time.Millisecond)
			h.receive(says("!a:test", pos, pos+1))
		}
		if h.pos != 140 || h.floor != 100 {
			t.Errorf("position %d and floor %d, want 140 and 100", h.pos, h.floor)
		}
		h.receive(says("!a:test", 141, 142))
		<-time.After(2 * patience)
		synctest.Wait()
		if h.pos != 142 || h.floor != 142 {
			t.Errorf("position %d and floor %d, want 142: what was lost is not waited for for ever", h.pos, h.floor)
		}
	})
}

func TestOnlyTheOldestIsForgottenWhereThereIsTooMuch(t *testing.T) {
	var rooms []id.RoomID
	for i := range 11 {
		rooms = append(rooms, id.RoomID(fmt.Sprintf("!%d:test", i)))
	}
	h := newHub(t, rooms...)
	h.mostRooms = 10
	for i, room := range rooms[:10] {
		h.receive(says(room, 100+int64(i), 101+int64(i)))
	}
	h.KeepCounts(alice, 110, []storage.Unread{{RoomID: rooms[0], Total: storage.Counts{Notify: 101}}, {RoomID: rooms[9], Total: storage.Counts{Notify: 110}}})
	h.receive(says(rooms[10], 110, 111))
	if w := h.look(alice, 100, 0); w == nil || w.Complete {
		t.Fatalf("an old token: %+v, want what is not complete", w)
	}
	w := h.look(alice, 108, 0)
	if w == nil || !w.Complete || len(w.Rooms) != 3 {
		t.Fatalf("a new token: %+v, want the last three rooms", w)
	}
	if w.Rooms[rooms[9]].Unread == nil {
		t.Error("counts are forgotten that hold")
	}
	h.receive(says(rooms[0], 111, 112))
	if changed := h.look(alice, 111, 0).Rooms[rooms[0]]; changed.Unread != nil || len(changed.Timeline) != 1 {
		t.Errorf("a room that was forgotten has %+v", changed)
	}
}

func TestUsersWhoSleepAreNotForgotten(t *testing.T) {
	h := newHub(t, "!a:test")
	h.mostUsers = 10
	var asleep []*Sleeper
	for i := range 8 {
		name := id.UserID(fmt.Sprintf("@%d:test", i))
		s, err := h.Sleep(name, "")
		if err != nil {
			t.Fatal(err)
		}
		h.keepView(name, &View{Joined: []id.RoomID{"!a:test"}})
		asleep = append(asleep, s)
	}
	pos := h.pos
	for i := range 3 {
		idle := id.UserID(fmt.Sprintf("@idle%d:test", i))
		touched := []storage.Touched{{Kind: storage.KindAccountData, User: idle}}
		h.receive(update{prev: pos, pos: pos + 1, touched: touched})
		pos++
	}
	if h.users[alice] != nil || h.look("@0:test", pos, 0) == nil {
		t.Error("the wrong users are forgotten")
	}
	h.receive(says("!a:test", pos, pos+1))
	for i, s := range asleep {
		select {
		case <-s.C:
		default:
			t.Errorf("user %d sleeps on", i)
		}
	}
}

func TestOneUserSleepsOnlySoOften(t *testing.T) {
	h := newHub(t)
	for range maxSleepers {
		if _, err := h.Sleep(alice, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Sleep(alice, ""); !mxerr.Is(err, "M_LIMIT_EXCEEDED") {
		t.Errorf("one more: %v", err)
	}
	if _, err := h.Sleep("@bob:test", ""); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}
