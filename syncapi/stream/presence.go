package stream

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// presenceTopic is the ephemeral topic on which replicas tell each other what their clients make of their users.
const presenceTopic = "syncapi_presence"

const (
	presenceCheck  = 5 * time.Second        // how often it is looked for whom it became too late
	presencePause  = 200 * time.Millisecond // what changes within it is announced together
	presenceRepeat = 20 * time.Second       // how often a replica tells all that it knows
	presenceEnds   = 70 * time.Second       // when what another replica told is forgotten
	offlineKept    = 24 * time.Hour         // for clients that have not heard of it
	presenceOfOne  = 500                    // users of a message
	// quietRoom is a room where so many sync that a change of presence wakes nobody: they hear of it when something else happens.
	quietRoom = 200
)

// Presence is what a user is, for those who share a room with them.
type Presence struct {
	UserID    id.UserID
	State     presence.State
	Active    int64 // when they last did something, ms
	StatusMsg string
	rooms     []id.RoomID
}

// Rooms are those that the user is joined to. They are shared: they are only read.
func (p *Presence) Rooms() []id.RoomID { return p.rooms }

// SharesRoom tells whether the user is in one of the rooms in which the viewer is.
func (p *Presence) SharesRoom(v *View) bool {
	return slices.ContainsFunc(p.rooms, func(room id.RoomID) bool {
		history := v.Rooms[room]
		return len(history) > 0 && history[len(history)-1].Membership == "join"
	})
}

// presenceMessage is what a replica tells. A status is told where it changes.
type presenceMessage struct {
	Replica string             `json:"replica"`
	Device  id.DeviceID        `json:"device,omitempty"` // with which a status was set
	Number  int64              `json:"number"`           // of the change, the same for all replicas, µs
	Users   []presence.Update  `json:"users,omitempty"`
	Status  []storage.Presence `json:"status,omitempty"`
}

// presenceState is what all replicas have told. Numbers are those of ephemeral things, of which typing is the other.
type presenceState struct {
	users   map[id.UserID]*present
	first   int64            // all numbers here are greater, those of a process that was here before are smaller
	changes []presenceChange // by number; superseded ones too
	pending map[id.UserID]struct{}
	awake   chan struct{}
	kept    map[id.UserID]presence.State // in the database, as far as this replica knows; runPresence's own
}

type presenceChange struct {
	number int64
	user   id.UserID
}

type present struct {
	Presence
	by       map[string]told // by replica
	heard    int64           // number of what was told last
	statusAt int64
	known    bool // rooms and status are
	moves    int  // how often the rooms have changed
	number   int64
	at       time.Time // of the last change
	mine     bool      // this replica has told the last change
}

type told struct {
	presence.Update
	at time.Time
}

// Online says that a client syncs, until the result is called.
func (h *Hub) Online(name id.UserID, device id.DeviceID, state presence.State) (end func()) {
	if h.o.Presence == nil {
		return func() {}
	}
	changes, end := h.o.Presence.Poll(name, device, state)
	if changes {
		h.announceLater()
	}
	return end
}

func (h *Hub) announceLater() { nudge(h.presence.awake) }

// SetPresence is what a user has set with a client. Who asks this replica afterwards hears of it.
func (h *Hub) SetPresence(ctx context.Context, device id.DeviceID, p *storage.Presence) {
	if h.o.Presence == nil {
		return
	}
	h.o.Presence.Set(p.UserID, device, p.State)
	h.tellPresence(ctx, presenceMessage{Replica: h.replica, Device: device, Users: h.o.Presence.Changed(false), Status: []storage.Presence{*p}})
	h.announce(ctx)
}

// PresenceOf is what is known of a user, of whom set is what they have set last. It may be that only another replica has heard of it.
func (h *Hub) PresenceOf(set *storage.Presence) *Presence {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &Presence{UserID: set.UserID, State: presence.Offline, Active: set.TS, StatusMsg: set.StatusMsg}
	one := h.presence.users[set.UserID]
	switch {
	case one != nil && one.statusAt >= set.TS:
		p.State, p.Active, p.StatusMsg = one.State, one.Active, one.StatusMsg
	case h.o.Presence != nil && time.Since(time.UnixMilli(set.TS)) < presence.GoneAfter:
		p.State = set.State
	case one != nil:
		p.State, p.Active = one.State, max(one.Active, set.TS)
	}
	return p
}

// runPresence announces what changes, until ctx ends.
func (h *Hub) runPresence(ctx context.Context) error {
	check := time.NewTicker(presenceCheck)
	defer check.Stop()
	repeated := time.Now()
	h.restorePresent(ctx)
	for {
		late := false
		select {
		case <-ctx.Done():
			return nil
		case <-h.presence.awake:
		case <-check.C:
			late = true
			h.endPresence()
		}
		h.tellPresence(ctx, presenceMessage{Replica: h.replica, Users: h.o.Presence.Changed(late)})
		h.announce(ctx)
		if late {
			h.keepPresent(ctx)
		}
		if late && !h.o.Sole && time.Since(repeated) >= presenceRepeat {
			repeated = time.Now()
			for users := range slices.Chunk(h.o.Presence.Present(), presenceOfOne) {
				h.tellPresence(ctx, presenceMessage{Replica: h.replica, Users: users})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(presencePause):
		}
	}
}

// tellPresence tells this replica and all others.
func (h *Hub) tellPresence(ctx context.Context, m presenceMessage) {
	if len(m.Users)+len(m.Status) == 0 {
		return
	}
	m.Number = time.Now().UnixMicro()
	h.hearPresence(m)
	if h.o.Sole {
		return
	}
	message, err := json.Marshal(m)
	if err == nil {
		err = h.o.Transport.Publish(ctx, presenceTopic, h.replica, message)
	}
	if err != nil && ctx.Err() == nil {
		h.o.Log.WithError(err).Warn("other replicas could not be told of presence: they will be with the next repetition")
	}
}

func (h *Hub) hearPresence(m presenceMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for _, u := range m.Users {
		p := h.presentUser(u.UserID)
		delete(p.by, predecessor)
		p.by[m.Replica], p.heard, p.mine = told{u, now}, m.Number, m.Replica == h.replica
		h.combine(p)
	}
	for i := range m.Status {
		s := &m.Status[i]
		if p := h.presentUser(s.UserID); s.TS > p.statusAt {
			p.statusAt, p.Active, p.heard, p.mine = s.TS, max(p.Active, s.TS), m.Number, m.Replica == h.replica
			if p.StatusMsg != s.StatusMsg {
				p.StatusMsg = s.StatusMsg
				h.presence.pending[s.UserID] = struct{}{}
			}
		}
	}
}

func (h *Hub) presentUser(name id.UserID) *present {
	p := h.presence.users[name]
	if p == nil {
		p = &present{Presence: Presence{UserID: name, State: presence.Offline}, by: make(map[string]told), at: time.Now()}
		h.presence.users[name] = p
	}
	return p
}

// combine makes one of what replicas have told of a user, to be announced if it is new.
func (h *Hub) combine(p *present) {
	if p.combine() {
		h.presence.pending[p.UserID] = struct{}{}
	}
}

// combine tells whether the user is something else by it.
func (p *present) combine() (changed bool) {
	state := presence.Offline
	for _, t := range p.by {
		p.Active = max(p.Active, t.Active)
		if t.State.Before(state) {
			state = t.State
		}
	}
	changed = p.State != state
	p.State = state
	return changed
}

// endPresence forgets what replicas told that have ended, and who has been offline for long.
func (h *Hub) endPresence() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for name, p := range h.presence.users {
		for replica, t := range p.by {
			if t.State == presence.Offline || replica != h.replica && now.Sub(t.at) > presenceEnds {
				delete(p.by, replica)
				p.mine = p.mine || t.State != presence.Offline // the replica that would tell has ended
			}
		}
		if h.combine(p); p.State == presence.Offline && now.Sub(p.at) > offlineKept {
			delete(h.presence.users, name)
		}
	}
}

// announce gives what is pending its numbers, wakes those who share a room with one of the users, and hands on what this replica
// has told.
func (h *Hub) announce(ctx context.Context) {
	if changed := h.announced(ctx); len(changed) > 0 && h.o.PresenceChanged != nil {
		h.o.PresenceChanged(ctx, changed)
	}
}

func (h *Hub) announced(ctx context.Context) (mine []Presence) {
	h.mu.Lock()
	unknown := make(map[id.UserID]int) // with the moves
	for name := range h.presence.pending {
		p := h.presence.users[name]
		if u := h.users[name]; p != nil && p.statusAt > 0 && u != nil && u.view != nil {
			p.rooms, p.known = u.view.Joined, true
		}
		if p != nil && !p.known {
			unknown[name] = p.moves
		}
	}
	h.mu.Unlock()
	if err := h.learnPresent(ctx, unknown); err != nil {
		if ctx.Err() == nil {
			h.o.Log.WithError(err).Warn("presence cannot be announced now")
		}
		return nil // it stays pending
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	awake := make(map[id.UserID]struct{})
	next := h.typing.number + 1
	var ready []*present
	for name := range h.presence.pending {
		p := h.presence.users[name]
		if p != nil && !p.known {
			continue // its rooms have changed meanwhile
		}
		delete(h.presence.pending, name)
		if p != nil {
			p.number, p.at, p.heard = max(next, p.heard), time.Now(), 0
			ready = append(ready, p)
		}
	}
	slices.SortFunc(ready, func(a, b *present) int { return cmp.Compare(a.number, b.number) })
	for _, p := range ready {
		name := p.UserID
		h.typing.number = p.number
		if p.mine {
			mine = append(mine, p.Presence)
		}
		h.presence.changes = append(h.presence.changes, presenceChange{p.number, name})
		for _, room := range p.rooms {
			if watchers := h.inRoom[room]; len(watchers) <= quietRoom {
				maps.Copy(awake, watchers)
			}
		}
		delete(awake, name)
	}
	for name := range awake {
		if u := h.users[name]; u != nil {
			u.wake("")
		}
	}
	if len(h.presence.changes) > 1000+2*len(h.presence.users) {
		h.presence.changes = slices.DeleteFunc(h.presence.changes, func(c presenceChange) bool {
			p := h.presence.users[c.user]
			return p == nil || p.number != c.number
		})
	}
	return mine
}

// learnPresent reads the rooms and the status of users, whose moves are given: who moves meanwhile stays unknown.
func (h *Hub) learnPresent(ctx context.Context, unknown map[id.UserID]int) error {
	if len(unknown) == 0 {
		return nil
	}
	users := slices.Collect(maps.Keys(unknown))
	var rooms map[id.UserID][]id.RoomID
	var stored map[id.UserID]storage.Presence
	err := h.o.Storage.Read(ctx, "presence", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if rooms, err = h.o.Storage.JoinedRooms(ctx, tx, users); err != nil {
			return err
		}
		stored, err = h.o.Storage.Presence(ctx, tx, users)
		return err
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range users {
		p := h.presence.users[name]
		if p == nil || p.moves != unknown[name] {
			continue
		}
		p.rooms, p.known = rooms[name], true
		if s, has := stored[name]; has && s.TS > p.statusAt {
			p.StatusMsg, p.statusAt = s.StatusMsg, s.TS
		}
		p.statusAt = max(p.statusAt, 1) // that there is none is known too
	}
	return nil
}

// moved makes a user's presence known to those with whom they share a room now.
func (p *presenceState) moved(name id.UserID) {
	if one := p.users[name]; one != nil {
		one.known = false
		one.moves++
		p.pending[name] = struct{}{}
	}
}

// since lists those whose presence has changed since a number, who may share no room with the viewer, and those who are present in
// rooms that the viewer has joined since; all who are present since a number that is older than this process.
func (p *presenceState) since(number int64, joins map[id.RoomID]struct{}) []Presence {
	var all []Presence
	everybody := number < p.first
	if everybody || len(joins) > 0 {
		for _, one := range p.users {
			known := one.number > 0 && one.State != presence.Offline
			if known && (everybody || one.number <= number && one.isIn(joins)) {
				all = append(all, one.Presence)
			}
		}
	}
	if everybody {
		return all
	}
	from, _ := slices.BinarySearchFunc(p.changes, number+1, func(c presenceChange, n int64) int { return cmp.Compare(c.number, n) })
	for _, c := range p.changes[from:] {
		if one := p.users[c.user]; one != nil && one.number == c.number {
			all = append(all, one.Presence)
		}
	}
	return all
}

// isIn tells whether the user is in one of some rooms.
func (p *Presence) isIn(rooms map[id.RoomID]struct{}) bool {
	return slices.ContainsFunc(p.rooms, func(room id.RoomID) bool {
		_, is := rooms[room]
		return is
	})
}
