// Package stream knows what has changed lately, without asking the database: for each room and user the last positions and a
// window of rows, and who sleeps until something happens there. Every replica has one Hub. Replicas tell each other of their
// commits; each message names the position before it, so that a Hub notices when it has missed one. Then it knows nothing but
// the new position, and everything older is read from the database, which is always right.
package stream

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/presence"
	"github.com/matrix-org/dendrite/syncapi/storage"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// Limits of what is kept. Beyond them the oldest is read from the database again.
const (
	windowRows = 32     // of each room, of each kind
	maxRooms   = 20_000 // that have changed
	maxUsers   = 50_000 // that have changed or are looked at; more only while more than half of them sleep
	// maxSleepers is how many syncs of one user are answered at a time: each costs something whenever anything happens.
	maxSleepers = 100
	maxEarly    = 1000 // commits that wait for one before them
)

// patience is how long a commit may wait for the one before it, which another replica tells of.
const patience = 100 * time.Millisecond

// Options of a Hub.
type Options struct {
	Storage *storage.Database
	Events  *events.Cache
	Typing  *typingserver.TypingserverAPI
	// Presence follows the clients of this process; nil where presence is switched off.
	Presence  *presence.Tracker
	Transport eventlog.Transport
	Log       *logrus.Entry
	// Sole says that no other replica exists.
	Sole bool
	// PresenceChanged is called with what users have become by what their clients did at this replica; nil: nobody wants it.
	PresenceChanged func(context.Context, []Presence)
	// RulesChanged is called when the push rules of users, or whom they ignore, have changed; nil: it may be anybody's.
	RulesChanged func(users []id.UserID)
}

// Hub is what one replica knows.
type Hub struct {
	o        Options
	replica  string
	position Coalesced[int64]
	outbox   chan wake

	mu     sync.Mutex
	pos    int64 // everything up to here is known, from floor on
	floor  int64
	moved  chan struct{} // closed when pos grows
	rooms  map[id.RoomID]*room
	users  map[id.UserID]*user
	inRoom map[id.RoomID]map[id.UserID]struct{} // users with a view who are joined
	early  map[int64]update                     // by the position before them
	// pushers gets something when pushers may have changed.
	pushers  chan struct{}
	typing   typingState
	follower *typingserver.Follower
	presence presenceState
	people   people
	// mostRooms and mostUsers are how many are kept at present.
	mostRooms, mostUsers int
}

// room is what has happened in a room after the floor.
type room struct {
	timeline []storage.TimelineRow
	receipts []storage.Receipt
	people   []moved
	// The windows are complete after these positions.
	timelineFrom, receiptsFrom, peopleFrom int64
	lastTimeline, lastReceipt, lastMoved   int64
}

// user is what is known of a user's streams after the floor, which is the Hub's or, if that is later, the user's own.
type user struct {
	floor    int64
	changes  changes
	view     *View
	counts   map[id.RoomID]storage.Unread // as they were when they were read
	sleepers map[*Sleeper]struct{}
	keys     deviceKeys
	inboxes  inboxes
}

// update is what a commit means for a Hub.
type update struct {
	prev, pos int64
	timeline  []storage.TimelineRow
	receipts  []storage.Receipt
	touched   []storage.Touched
	redacted  []id.EventID
	keys      []storage.DeviceKeys // those of a commit of this process
}

// New makes a Hub that begins at the present position.
func New(o Options, replica string) *Hub {
	h := &Hub{o: o, replica: replica, outbox: make(chan wake, 1024), moved: make(chan struct{}),
		rooms: make(map[id.RoomID]*room), users: make(map[id.UserID]*user),
		inRoom: make(map[id.RoomID]map[id.UserID]struct{}), early: make(map[int64]update), pushers: make(chan struct{}, 1),
		mostRooms: maxRooms, mostUsers: maxUsers}
	h.people.begin(h)
	first := time.Now().UnixMicro()
	h.typing = newTypingState(first)
	h.follower = typingserver.NewFollower(typingserver.FollowerDeps{Typing: o.Typing, Transport: o.Transport, Log: o.Log, Changed: h.hearTyping})
	h.presence = presenceState{first: first, users: make(map[id.UserID]*present), pending: make(map[id.UserID]struct{}), awake: make(chan struct{}, 1),
		kept: make(map[id.UserID]presence.State)}
	return h
}

// Start makes the Hub begin at the present position. Storage and Events of its options must be set by then.
func (h *Hub) Start(ctx context.Context, db *storage.Database) error {
	h.o.Storage = db
	h.position.Ask = func(ctx context.Context) (int64, error) {
		if err := db.Settle(ctx); err != nil {
			return 0, err
		}
		return db.Position(ctx)
	}
	pos, err := db.Position(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pos, h.floor = pos, pos
	return nil
}

// Committed tells of a commit of this process.
func (h *Hub) Committed(c storage.Changes) {
	u := update{c.Prev, c.Pos, c.Timeline, c.Receipts, c.AllTouched(), c.Redacted, c.DeviceKeys}
	if !h.o.Sole {
		select {
		case h.outbox <- wake{h.replica, u.prev, u.pos, u.touched, u.redacted}:
		default: // other replicas look at the position once a second
		}
	}
	h.receive(u)
	h.mu.Lock()
	h.typing.leave(c.Memberships)
	h.mu.Unlock()
}

// receive applies an update when those before it are applied.
func (h *Hub) receive(u update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.prev > h.pos {
		if len(h.early) == 0 {
			h.settleLater()
		}
		if h.early[u.prev] = u; len(h.early) > maxEarly {
			h.reset(h.lastEarly())
		}
		return
	}
	for known := true; known; u, known = h.early[h.pos] {
		delete(h.early, u.prev)
		if u.pos > h.pos {
			h.apply(&u)
		}
	}
}

func (h *Hub) settleLater() {
	pos := h.pos
	time.AfterFunc(patience, func() { h.settle(pos) })
}

// settle gives up waiting for what was to come before the updates that wait, if nothing of it has come since a position.
func (h *Hub) settle(pos int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.early) == 0 {
		return
	}
	if h.pos > pos {
		h.settleLater() // where many commit, something always waits
		return
	}
	h.reset(h.lastEarly())
}

// lastEarly is the last position of the updates that wait.
func (h *Hub) lastEarly() int64 {
	last := h.pos
	for _, u := range h.early {
		last = max(last, u.pos)
	}
	return last
}

// reset forgets everything up to a position, and wakes everybody: each reads what is new from the database.
func (h *Hub) reset(pos int64) {
	h.pos, h.floor = max(pos, h.pos), max(pos, h.pos)
	clear(h.rooms)
	clear(h.early)
	clear(h.inRoom)
	for name, u := range h.users {
		u.view, u.counts, u.changes, u.keys.known = nil, nil, nil, nil
		if len(u.sleepers) == 0 {
			delete(h.users, name)
			continue
		}
		u.wake("")
	}
	for name := range h.presence.users {
		h.presence.moved(name)
	}
	if len(h.presence.pending) > 0 {
		h.announceLater()
	}
	nudge(h.pushers)
	h.o.Events.Purge()
	h.o.RulesChanged(nil)
	h.advanced()
}

// PushersChanged gets something when pushers may have changed.
func (h *Hub) PushersChanged() <-chan struct{} { return h.pushers }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (h *Hub) advanced() {
	close(h.moved)
	h.moved = make(chan struct{})
}

func (h *Hub) apply(u *update) {
	h.o.Events.Drop(u.redacted)
	h.pos = u.pos
	for i := range u.timeline {
		h.addRow(&u.timeline[i])
	}
	for i := range u.receipts {
		h.addReceipt(&u.receipts[i])
	}
	h.touch(u.touched)
	h.keepCommitted(u.keys)
	if len(h.presence.pending) > 0 {
		h.announceLater()
	}
	h.advanced()
	if len(h.rooms) > h.mostRooms || len(h.users) > h.mostUsers {
		h.evict()
	}
}

func (h *Hub) addRow(row *storage.TimelineRow) {
	r := h.room(row.RoomID)
	r.timeline = slide(r.timeline, row, &r.timelineFrom, func(row *storage.TimelineRow) int64 { return row.Pos })
	r.lastTimeline = row.Pos
	if row.Has(storage.Local) {
		h.recount(row.RoomID, row.Sender) // who speaks has read
		if h.o.Presence != nil && h.o.Presence.Active(row.Sender) {
			h.announceLater()
		}
	}
}

func (h *Hub) addReceipt(receipt *storage.Receipt) {
	r := h.room(receipt.RoomID)
	r.receipts = slide(r.receipts, receipt, &r.receiptsFrom, func(r *storage.Receipt) int64 { return r.Pos })
	r.lastReceipt = receipt.Pos
	h.recount(receipt.RoomID, receipt.UserID)
}

// slide adds a row to a window. Of one that is full the older half is given up: it is complete after from.
func slide[T any](rows []T, row *T, from *int64, pos func(*T) int64) []T {
	if len(rows) == windowRows {
		*from = pos(&rows[windowRows/2-1])
		rows = append(rows[:0:0], rows[windowRows/2:]...)
	}
	return append(rows, *row)
}

// evict raises the floor so that half of the rooms, or of the users who do not sleep, are below it, and forgets these.
func (h *Hub) evict() {
	var last []int64
	users := len(h.users) > h.mostUsers
	if users {
		for _, u := range h.users {
			if len(u.sleepers) == 0 {
				last = append(last, u.last())
			}
		}
	} else {
		for _, r := range h.rooms {
			last = append(last, r.last())
		}
	}
	if len(last) > 0 {
		slices.Sort(last)
		h.floor = max(h.floor, last[len(last)/2])
	}
	for name, r := range h.rooms {
		if r.last() > h.floor {
			continue
		}
		delete(h.rooms, name)
		for user := range h.inRoom[name] {
			delete(h.users[user].counts, name) // they are brought up to date by the room's last event
		}
	}
	if users {
		for name, u := range h.users {
			u.changes.forget(h.floor)
			if len(u.sleepers) == 0 && u.last() <= h.floor {
				h.dropView(name, u)
				delete(h.users, name)
			}
		}
		h.mostUsers = max(maxUsers, 2*len(h.users))
	}
}

func (r *room) last() int64 { return max(r.lastTimeline, r.lastReceipt, r.lastMoved) }

func (u *user) last() int64 { return max(u.floor, u.changes.last()) }

// recount makes be read again what a user has unread in a room; without a user, what all have.
func (h *Hub) recount(room id.RoomID, name id.UserID) {
	forget := func(name id.UserID) {
		if u := h.users[name]; u != nil {
			u.changes.set(storage.KindCounts, "", h.pos)
			delete(u.counts, room)
		}
	}
	if name != "" {
		forget(name)
		return
	}
	for name := range h.inRoom[room] {
		forget(name)
	}
}

// KeepCounts remembers what a user has unread, as it was read when everything up to a position was known.
func (h *Hub) KeepCounts(name id.UserID, pos int64, unread []storage.Unread) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[name]
	if u == nil || u.view == nil || u.changes.of(storage.KindCounts) > pos || pos < h.floorOf(u) {
		return
	}
	if u.counts == nil {
		u.counts = make(map[id.RoomID]storage.Unread, len(unread))
	}
	for _, one := range unread {
		u.counts[one.RoomID] = one
	}
}

func (h *Hub) room(name id.RoomID) *room {
	r := h.rooms[name]
	if r == nil {
		// It has no entry, so nothing has happened there since the floor.
		r = &room{timelineFrom: h.floor, receiptsFrom: h.floor, peopleFrom: h.floor}
		h.rooms[name] = r
	}
	return r
}

func (h *Hub) user(name id.UserID) *user {
	u := h.users[name]
	if u == nil {
		u = &user{sleepers: make(map[*Sleeper]struct{})}
		h.users[name] = u
	}
	return u
}

// Position is up to where this Hub knows everything.
func (h *Hub) Position() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pos
}

// Reach waits until this Hub knows everything that was committed before, by any replica.
func (h *Hub) Reach(ctx context.Context) error {
	if h.o.Sole && !h.o.Storage.Uncertain() {
		return nil
	}
	pos, err := h.position.Get(ctx)
	if err != nil {
		return err
	}
	return h.reach(ctx, pos)
}

// catchUp waits until this Hub knows what a snapshot has, which may be ahead of what has been announced. A snapshot that
// lacks what was known before it was taken is of a database that was put back to an earlier time beneath the process:
// M_UNKNOWN with status 503 until something is written there, which has a new position.
func (h *Hub) catchUp(ctx context.Context, known, at int64) error {
	if at < known {
		return mxerr.Unavailable("the database has lost what was written last: try again later")
	}
	return h.reach(ctx, at)
}

func (h *Hub) reach(ctx context.Context, pos int64) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		if h.pos >= pos {
			h.mu.Unlock()
			return nil
		}
		moved := h.moved
		h.mu.Unlock()
		select {
		case <-moved:
		case <-deadline.C:
			h.mu.Lock()
			if h.pos < pos {
				h.reset(pos)
			}
			h.mu.Unlock()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Sleeper is a device, or what is none, that waits for something new.
type Sleeper struct {
	// C gets something when there may be something new.
	C      chan struct{}
	device id.DeviceID
}

// wake wakes one device of the user, or all that sleep.
func (u *user) wake(device id.DeviceID) {
	for s := range u.sleepers {
		if device == "" || s.device == device {
			nudge(s.C)
		}
	}
}

// Sleep registers a sleeper. Whoever sleeps registers first and looks then. M_LIMIT_EXCEEDED if the user has too many.
func (h *Hub) Sleep(name id.UserID, device id.DeviceID) (*Sleeper, error) {
	s := &Sleeper{make(chan struct{}, 1), device}
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.user(name)
	if len(u.sleepers) >= maxSleepers {
		return nil, mxerr.LimitExceeded(time.Second)
	}
	u.sleepers[s] = struct{}{}
	return s, nil
}

// Peek makes a user be woken by what happens in a room that they are not in, until the next reset or until leave is called. Whoever
// peeks has a sleeper, and peeks again before each look.
func (h *Hub) Peek(name id.UserID, room id.RoomID) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inRoom[room] == nil {
		h.inRoom[room] = make(map[id.UserID]struct{})
	}
	h.inRoom[room][name] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if u := h.users[name]; u == nil || u.view == nil || !slices.Contains(u.view.Joined, room) {
			delete(h.inRoom[room], name)
			if len(h.inRoom[room]) == 0 {
				delete(h.inRoom, room)
			}
		}
	}
}

// Leave ends a sleep.
func (h *Hub) Leave(name id.UserID, s *Sleeper) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.users[name]; u != nil {
		delete(u.sleepers, s)
	}
}
