// Package typing keeps who is typing in which room, in memory only, and tells of each change (Client-Server API, § Typing
// Notifications).
package typing

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/typingserver/api"
)

// MaxTimeout is the longest that one request makes somebody type.
const MaxTimeout = 2 * time.Minute

// Tracker is the state of this replica. Its methods may be called from everywhere.
type Tracker struct {
	announce func(context.Context, api.OutputTyping)
	now      func() time.Time
	changed  chan struct{} // wakes Run: an earlier end may have come in

	mu     sync.Mutex
	rooms  map[id.RoomID]map[id.UserID]time.Time // until when
	number int64                                 // of the last change
	// numbers are of the last changes of the rooms where somebody types.
	numbers map[id.RoomID]int64
}

// New makes a Tracker that hands each change to announce, in order for each room.
func New(announce func(context.Context, api.OutputTyping), now func() time.Time) *Tracker {
	return &Tracker{announce: announce, now: now, changed: make(chan struct{}, 1), rooms: make(map[id.RoomID]map[id.UserID]time.Time),
		numbers: make(map[id.RoomID]int64)}
}

// Set begins, prolongs or ends that a user types. Only a beginning or an end is announced: a prolongation changes nothing that
// a client sees.
func (t *Tracker) Set(ctx context.Context, room id.RoomID, user id.UserID, typing bool, timeout time.Duration) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := t.rooms[room]
	_, was := users[user]
	typing = typing && timeout > 0
	switch {
	case typing && users == nil:
		users = make(map[id.UserID]time.Time)
		t.rooms[room] = users
		fallthrough
	case typing:
		users[user] = t.now().Add(min(timeout, MaxTimeout))
		select {
		case t.changed <- struct{}{}:
		default:
		}
	default:
		t.drop(room, user)
	}
	if was != typing {
		t.tell(ctx, room)
	}
	return t.number
}

// Rooms lists who types in these rooms, or in all where somebody does.
func (t *Tracker) Rooms(rooms []id.RoomID) []api.OutputTyping {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rooms == nil {
		for room := range t.rooms {
			rooms = append(rooms, room)
		}
	}
	var out []api.OutputTyping
	for _, room := range rooms {
		if len(t.rooms[room]) > 0 {
			out = append(out, t.output(room))
		}
	}
	return out
}

// Run ends the typing of those whose time is over, until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	timer := time.NewTimer(MaxTimeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		case <-timer.C:
		}
		timer.Reset(t.expire(ctx))
	}
}

// expire drops what is over and tells how long it is until the next end.
func (t *Tracker) expire(ctx context.Context) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	next := MaxTimeout
	for room, users := range t.rooms {
		gone := false
		for user, until := range users {
			if left := until.Sub(now); left > 0 {
				next = min(next, left)
				continue
			}
			t.drop(room, user)
			gone = true
		}
		if gone {
			t.tell(ctx, room)
		}
	}
	return next
}

func (t *Tracker) drop(room id.RoomID, user id.UserID) {
	delete(t.rooms[room], user)
	if len(t.rooms[room]) == 0 {
		delete(t.rooms, room)
	}
}

func (t *Tracker) tell(ctx context.Context, room id.RoomID) {
	t.number = max(t.number+1, t.now().UnixMicro())
	t.numbers[room] = t.number
	t.announce(ctx, t.output(room))
	if len(t.rooms[room]) == 0 {
		delete(t.numbers, room)
	}
}

func (t *Tracker) output(room id.RoomID) api.OutputTyping {
	users := make([]id.UserID, 0, len(t.rooms[room]))
	for user := range t.rooms[room] {
		users = append(users, user)
	}
	slices.Sort(users)
	return api.OutputTyping{RoomID: room, Users: users, Number: t.numbers[room]}
}
