// Package presence decides what the clients of one process make of their users: online, unavailable or offline (Client-Server API,
// § Presence). It keeps everything in memory, and only tells what has changed.
package presence

import (
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/id"
)

// State is what a user is.
type State string

// The states.
const (
	Online      State = "online"
	Unavailable State = "unavailable"
	Offline     State = "offline"
)

// IsState tells whether s is one of the states.
func IsState(s string) bool {
	return State(s) == Online || State(s) == Unavailable || State(s) == Offline
}

// Before tells whether p counts where some of a user's clients are p and others are q.
func (p State) Before(q State) bool { return p != q && (p == Online || q == Offline) }

// GoneAfter is how long after its last request a client counts no more.
const GoneAfter = 30 * time.Second

// idleAfter is how long a user without any activity is online.
const idleAfter = 5 * time.Minute

// Update is what a user is from now on.
type Update struct {
	UserID id.UserID `json:"user_id"`
	State  State     `json:"presence"`
	Active int64     `json:"active"` // when the user last did something, ms
}

// Tracker follows the clients of this process.
type Tracker struct {
	now func() time.Time

	mu    sync.Mutex
	users map[id.UserID]*user
	dirty map[id.UserID]struct{}
}

type user struct {
	devices map[id.DeviceID]*device
	active  time.Time
	told    State
}

type device struct {
	state State
	polls int // that are under way
	seen  time.Time
}

// NewTracker makes a Tracker that knows of nobody.
func NewTracker(now func() time.Time) *Tracker {
	return &Tracker{now: now, users: make(map[id.UserID]*user), dirty: make(map[id.UserID]struct{})}
}

// Poll says that a client syncs, until end is called. It tells whether that may make its user something else.
func (t *Tracker) Poll(name id.UserID, of id.DeviceID, state State) (changes bool, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.set(name, of, state, false)
	if d != nil {
		d.polls++
	}
	_, changes = t.dirty[name]
	return changes, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if d != nil {
			d.polls--
			d.seen = t.now()
		}
	}
}

// Set says that a user has set what they are with a client.
func (t *Tracker) Set(name id.UserID, of id.DeviceID, state State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(name, of, state, true)
}

// Heard says that a user has set what they are with a client, by another process. It counts for what that client did here, too.
func (t *Tracker) Heard(name id.UserID, of id.DeviceID, state State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u := t.users[name]; u != nil && u.devices[of] != nil {
		t.set(name, of, state, true)
	}
}

func (t *Tracker) set(name id.UserID, of id.DeviceID, state State, active bool) *device {
	u := t.users[name]
	if u == nil {
		if state == Offline {
			return nil
		}
		u = &user{devices: make(map[id.DeviceID]*device), told: Offline}
		t.users[name] = u
	}
	d := u.devices[of]
	if d == nil {
		d = new(device)
		u.devices[of] = d
	}
	if active || state == Online && (d.state != Online || u.told == Offline) {
		u.active = t.now()
	}
	d.state, d.seen = state, t.now()
	if t.state(u) != u.told {
		t.dirty[name] = struct{}{}
	}
	return d
}

// Active says that a user has done something, and tells whether that makes them something else.
func (t *Tracker) Active(name id.UserID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.users[name]
	if u == nil {
		return false
	}
	u.active = t.now()
	if t.state(u) == u.told {
		return false
	}
	t.dirty[name] = struct{}{}
	return true
}

func (t *Tracker) state(u *user) State {
	now, state := t.now(), Offline
	for _, d := range u.devices {
		if (d.polls > 0 || now.Sub(d.seen) < GoneAfter) && d.state.Before(state) {
			state = d.state
		}
	}
	if state == Online && now.Sub(u.active) >= idleAfter {
		return Unavailable
	}
	return state
}

// Changed lists the users who have become something else since it was called last: of those whose clients have done something, or,
// with all, also of those for whom it became too late.
func (t *Tracker) Changed(all bool) []Update {
	t.mu.Lock()
	defer t.mu.Unlock()
	var updates []Update
	check := func(name id.UserID, u *user) {
		if state := t.state(u); state != u.told {
			u.told = state
			updates = append(updates, Update{name, state, u.active.UnixMilli()})
		}
	}
	if !all {
		for name := range t.dirty {
			check(name, t.users[name])
		}
		clear(t.dirty)
		return updates
	}
	clear(t.dirty)
	now := t.now()
	for name, u := range t.users {
		check(name, u)
		for of, d := range u.devices {
			if d.polls == 0 && now.Sub(d.seen) >= GoneAfter {
				delete(u.devices, of)
			}
		}
		if len(u.devices) == 0 {
			delete(t.users, name)
		}
	}
	return updates
}

// Present lists who is not offline, as it was told last.
func (t *Tracker) Present() []Update {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Update
	for name, u := range t.users {
		if u.told != Offline {
			all = append(all, Update{name, u.told, u.active.UnixMilli()})
		}
	}
	return all
}
