// Package typing keeps who is typing in which room, in memory only, and tells of each change (Client-Server API, §
// Typing Notifications).
//
// A room is one replica's: that to which its callers turn. When they turn to another one, because a replica has ended
// or has come back, that takes the room over with those of whom it has heard from the one before.
package typing

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/typingserver/api"
)

// Limits of what is kept. Who would be one too many is not shown to type.
const (
	// MaxTimeout is the longest that one request makes somebody type.
	MaxTimeout = 2 * time.Minute
	maxInRoom  = 100
	maxTypists = 50_000 // in all rooms
)

// endsEvery is how often it is looked for who has ended, at most: so late may an end be told.
const endsEvery = 100 * time.Millisecond

// Options of a Tracker.
type Options struct {
	Replica string
	Server  id.ServerName
	// Announce tells all subscribers of a change. Outputs of a room may overtake each other: their numbers tell.
	Announce func(context.Context, api.OutputTyping)
	Now      func() time.Time
}

// Tracker is the state of this replica. Its methods may be called from everywhere.
type Tracker struct {
	Options
	started time.Time
	changed chan struct{} // wakes Run: an earlier end may have come in

	mu      sync.Mutex
	rooms   map[id.RoomID]*room // in which somebody types
	typists int
	number  int64     // of the last change, by any replica
	next    time.Time // when Run looks for ends
}

// room is one in which somebody types.
type room struct {
	number int64                   // of its last change
	users  map[id.UserID]time.Time // until when
	own    bool                    // this replica tells who ends; else the one does that has told of them
}

// New makes a Tracker in which nobody types.
func New(o Options) *Tracker {
	now := o.Now()
	return &Tracker{Options: o, started: now, changed: make(chan struct{}, 1),
		rooms: make(map[id.RoomID]*room), next: now.Add(MaxTimeout)}
}

// Set begins, prolongs or ends that a user types. Only a beginning or an end is announced: a prolongation changes
// nothing that a client sees. It returns the number of the last change.
func (t *Tracker) Set(ctx context.Context, name id.RoomID, user id.UserID, typing bool, timeout time.Duration) int64 {
	output, number := t.set(name, user, typing && timeout > 0, min(timeout, MaxTimeout))
	if output != nil {
		t.Announce(ctx, *output)
	}
	return number
}

func (t *Tracker) set(name id.RoomID, user id.UserID, typing bool, timeout time.Duration) (*api.OutputTyping, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	r := t.rooms[name]
	was, took := false, false
	if r != nil {
		_, was = r.users[user]
		r.own, took = true, !r.own
	}
	switch {
	case typing && !was && (t.typists >= maxTypists || r != nil && len(r.users) >= maxInRoom):
		return nil, t.number
	case typing:
		if r == nil {
			r = &room{users: make(map[id.UserID]time.Time), own: true}
			t.rooms[name] = r
		}
		if !was {
			t.typists++
		}
		until := now.Add(timeout)
		if r.users[user] = until; until.Before(t.next) {
			t.wake()
		}
	case was:
		t.drop(name, user)
	case now.Sub(t.started) > MaxTimeout:
		return nil, t.number
	default:
		// The replica to which the room belonged before this one began may have it otherwise.
		return t.output(name, api.Change{UserID: user}), t.number
	}
	var output *api.OutputTyping
	switch {
	case was != typing:
		output = t.output(name, api.Change{UserID: user, Typing: typing})
	case took: // the replica before this one must not end who goes on here
		output = t.output(name)
	}
	return output, t.number
}

func (t *Tracker) wake() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Hear takes over what another replica tells of a room: callers have turned to that one.
func (t *Tracker) Hear(output *api.OutputTyping) {
	if output.Replica == t.Replica {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number = max(t.number, output.Number)
	if r := t.rooms[output.RoomID]; r != nil {
		if r.number >= output.Number {
			return
		}
		t.typists -= len(r.users)
		delete(t.rooms, output.RoomID)
	}
	now := t.Now()
	r := &room{number: output.Number, users: make(map[id.UserID]time.Time)}
	for i, user := range output.Users[:min(len(output.Users), len(output.Until), maxInRoom)] {
		until := time.UnixMilli(output.Until[i])
		if latest := now.Add(MaxTimeout); until.After(latest) {
			until = latest
		}
		if until.After(now) && t.typists+len(r.users) < maxTypists {
			r.users[user] = until
		}
	}
	if len(r.users) > 0 {
		t.rooms[output.RoomID] = r
		t.typists += len(r.users)
	}
}

// Rooms lists who types in these rooms, or in all where somebody does.
func (t *Tracker) Rooms(names []id.RoomID) []api.OutputTyping {
	t.mu.Lock()
	defer t.mu.Unlock()
	if names == nil {
		for name := range t.rooms {
			names = append(names, name)
		}
	}
	var out []api.OutputTyping
	for _, name := range names {
		if r := t.rooms[name]; r != nil {
			o := api.OutputTyping{RoomID: name, Number: r.number, Replica: t.Replica}
			o.Users, o.Until = r.list()
			out = append(out, o)
		}
	}
	return out
}

// Run ends the typing of those whose time is over, until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.changed:
		case <-timer.C:
		}
		ended, next := t.expire()
		for i := range ended {
			t.Announce(ctx, ended[i])
		}
		timer.Reset(next)
	}
}

// expire drops what is over, and tells how long it is until the next end.
func (t *Tracker) expire() (ended []api.OutputTyping, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Now()
	next = MaxTimeout
	for name, r := range t.rooms {
		var gone []api.Change
		for user, until := range r.users {
			if left := until.Sub(now); left > 0 {
				next = min(next, left)
				continue
			}
			t.drop(name, user)
			gone = append(gone, api.Change{UserID: user})
		}
		if len(gone) > 0 && r.own {
			ended = append(ended, *t.output(name, gone...))
		}
	}
	next = max(next, endsEvery)
	t.next = now.Add(next)
	return ended, next
}

func (t *Tracker) drop(name id.RoomID, user id.UserID) {
	r := t.rooms[name]
	delete(r.users, user)
	t.typists--
	if len(r.users) == 0 {
		delete(t.rooms, name)
	}
}

// output is what is told of a room after changes of users, of whom those of this server are named.
func (t *Tracker) output(name id.RoomID, changes ...api.Change) *api.OutputTyping {
	t.number = max(t.number+1, t.Now().UnixMicro())
	o := &api.OutputTyping{RoomID: name, Users: []id.UserID{}, Number: t.number, Replica: t.Replica}
	if r := t.rooms[name]; r != nil {
		r.number = t.number
		o.Users, o.Until = r.list()
	}
	for _, change := range changes {
		if change.UserID.Server() == t.Server {
			o.Changes = append(o.Changes, change)
		}
	}
	return o
}

func (r *room) list() (users []id.UserID, until []int64) {
	users = make([]id.UserID, 0, len(r.users))
	for user := range r.users {
		users = append(users, user)
	}
	slices.Sort(users)
	for _, user := range users {
		until = append(until, r.users[user].UnixMilli())
	}
	return users, until
}
