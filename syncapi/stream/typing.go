package stream

import (
	"context"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

const (
	// maxTyped is of how many rooms it is kept that somebody has typed there. Who has not synced since an older one is
	// told of all their rooms in which nobody types.
	maxTyped = 100_000
	// leaversKept are those who have left a room lately: a message that they type may come after.
	leaversKept = 256
	stopFor     = 5 * time.Second
	// heardWithin is how long a change may take to be heard by all replicas.
	heardWithin = 3 * time.Second
)

// WaitForTyping waits until this replica has learnt who types: some ms after its start.
func (h *Hub) WaitForTyping(ctx context.Context) { h.follower.Wait(ctx) }

// Typing is all who type in a room.
type Typing struct {
	RoomID id.RoomID
	Users  []id.UserID
}

// typingState is who types where, as the typingserver told it last.
type typingState struct {
	rooms  map[id.RoomID]typingRoom
	number int64 // the greatest, of presence too
	floor  int64 // whatever has a number up to here is not known any more
	most   int   // so many rooms are kept

	leavers []typist // the newest last
	stops   chan typist
}

// typingRoom is a change as it was heard. Its number is greater than all that were heard before, whatever the clock
// was where the change was made: who has seen a number has seen all that is below it.
type typingRoom struct {
	users  []id.UserID
	number int64
}

// typist is a user in a room.
type typist struct {
	room id.RoomID
	user id.UserID
}

func newTypingState(first int64) typingState {
	return typingState{rooms: make(map[id.RoomID]typingRoom), number: first, floor: first, most: maxTyped,
		stops: make(chan typist, 1024)}
}

// hearTyping is told who types in a room.
func (h *Hub) hearTyping(output typingserver.OutputTyping) {
	room, users := output.RoomID, output.Users
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &h.typing
	t.number = max(t.number+1, output.Number)
	t.rooms[room] = typingRoom{users, t.number}
	if len(t.rooms) > t.most {
		t.forget()
	}
	for _, left := range t.leavers {
		if left.room == room && slices.Contains(users, left.user) {
			t.stop(left)
		}
	}
	for name := range h.inRoom[room] {
		if u := h.users[name]; u != nil {
			u.wake("")
		}
	}
}

// forget forgets the older half of the rooms in which nobody types.
func (t *typingState) forget() {
	var ended []int64
	for _, room := range t.rooms {
		if len(room.users) == 0 {
			ended = append(ended, room.number)
		}
	}
	if len(ended) == 0 {
		return
	}
	slices.Sort(ended)
	t.floor = max(t.floor, ended[len(ended)/2])
	for name, room := range t.rooms {
		if len(room.users) == 0 && room.number <= t.floor {
			delete(t.rooms, name)
		}
	}
}

// seen is the number of who has seen everything. It grows with time, so that whoever has lately synced with one
// replica is not taken for somebody from before another one began.
func (t *typingState) seen() int64 {
	t.number = max(t.number, time.Now().Add(-heardWithin).UnixMicro())
	return t.number
}

// since is what is to be told of a room after a number, to who has just joined it or was there before. Nil: nothing.
func (t *typingState) since(room id.RoomID, number int64, joins bool) *Typing {
	known, has := t.rooms[room]
	switch {
	case has && known.number > min(number, t.number), joins && len(known.users) > 0:
		return &Typing{room, known.users}
	case !has && number < t.floor:
		// Somebody may have typed whose end is not known any more, as that of all who typed before this process began.
		return &Typing{RoomID: room}
	}
	return nil
}

// leave ends the typing of those who are no longer in a room, by a commit of this process.
func (t *typingState) leave(memberships []storage.Membership) {
	for i := range memberships {
		m := &memberships[i]
		one := typist{m.RoomID, m.UserID}
		t.leavers = slices.DeleteFunc(t.leavers, func(left typist) bool { return left == one })
		if m.Membership == "join" {
			continue
		}
		if len(t.leavers) == leaversKept {
			t.leavers = t.leavers[1:]
		}
		t.leavers = append(t.leavers, one)
		if slices.Contains(t.rooms[one.room].users, one.user) {
			t.stop(one)
		}
	}
}

// stop has the typingserver be told, which tells everybody. Where that lags, typing ends by itself.
func (t *typingState) stop(one typist) {
	select {
	case t.stops <- one:
	default:
	}
}

// stopTyping tells the typingserver who has left, until ctx ends.
func (h *Hub) stopTyping(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case one := <-h.typing.stops:
			stopping, cancel := context.WithTimeout(ctx, stopFor)
			_, err := h.o.Typing.SetTyping(stopping, typingserver.SetTypingRequest{RoomID: one.room, UserID: one.user})
			cancel()
			if err != nil && ctx.Err() == nil {
				h.o.Log.WithError(err).WithField("room", one.room).Warn("the typing of who has left ends only by itself")
			}
		}
	}
}
