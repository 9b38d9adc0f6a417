package answer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// kind is how a room comes into an answer, and so what the client knows of it already.
type kind int

const (
	joined    kind = iota // the user was joined all the time since the token
	joinedNew             // joined since the token, again or for the first time: nothing builds on what the client has
	left                  // joined at the token, and left since
	leftNew               // joined and left since the token, or left at any time where the client knows nothing
	outside               // not joined at any time that the answer is about: all that they see is their own membership
	invited
	knocked
)

// Sections of an answer.
const (
	join   = "join"
	leave  = "leave"
	invite = "invite"
	knock  = "knock"
)

func (k kind) section() string {
	switch k {
	case joined, joinedNew:
		return join
	case invited:
		return invite
	case knocked:
		return knock
	}
	return leave
}

// anew tells whether the client knows nothing of the room that it could build on.
func (k kind) anew() bool { return k == joinedNew || k == leftNew }

// source is where a part of a room comes from.
type source int

const (
	nothing  source = iota // there is nothing new
	inMemory               // the Hub has it
	stored                 // it has to be read
)

// room is what an answer says of a room.
type room struct {
	id   id.RoomID
	kind kind
	// membership is up to which the user sees the room: their own, now, or the one by which they left it.
	membership *storage.Membership
	// own is the user's membership now, as far as it is shown. It is not membership where that changed after they had left, as by a ban after
	// a kick: this change is all that they see of the time since.
	own  *storage.Membership
	full bool // the client gets the whole state

	rowsFrom, receiptsFrom source
	rows                   []storage.TimelineRow // of the timeline; before settle all after the token, or the newest
	limited                bool
	rootSince              *roomserver.Root // state that the client has, where it has one that is known
	unsure                 bool             // it has one, of which it is not known from when it is
	root                   roomserver.Root  // state at the end
	lastOrder              roomserver.OrderKey
	now                    *storage.Room
	receipts               []storage.Receipt
	typing                 *stream.Typing
	accountData            []storage.AccountData
	unread                 *storage.Unread // if it is known without reading
	counts                 *storage.Counts
	threads                map[id.EventID]storage.Counts

	timeline []*roomserver.Event // of rows, one for each
	// later is what the state became after the start of the timeline, where the timeline does not show all of it.
	later    later
	state    []*roomserver.Event
	summary  *summary
	stripped []json.RawMessage
	sent     []id.UserID // members whose events the answer has, when they are lazily loaded
}

// plan decides which rooms the answer may have.
func (a *answering) plan() {
	w := a.window
	switch {
	case a.initial(), a.FullState, w.Changed(storage.KindMemberships, a.DeviceID):
		for name := range w.View.Rooms {
			a.planRoom(name)
		}
	default:
		for name := range w.Rooms {
			a.planRoom(name)
		}
	}
	for i := range w.Presence {
		p := &w.Presence[i]
		_, ignored := w.View.Ignored[p.UserID]
		f := a.Filter.Presence
		if p.UserID != a.UserID && !ignored && f.MatchesType("m.presence") && f.MatchesSender(p.UserID) &&
			p.SharesRoom(w.View) {
			a.presence = append(a.presence, *p)
		}
	}
	for i := range w.Typing {
		t := &w.Typing[i]
		f := a.Filter.Room.Ephemeral
		if a.initial() && len(t.Users) == 0 || !a.Filter.WantsRoom(t.RoomID) || !f.MatchesType("m.typing") ||
			!f.MatchesRoom(t.RoomID) {
			continue
		}
		if r := a.joinedRoom(t.RoomID); r != nil {
			r.typing = t
		}
	}
}

// joinedRoom finds or adds a joined room.
func (a *answering) joinedRoom(name id.RoomID) *room {
	if r := a.rooms[name]; r != nil {
		return r
	}
	m := a.window.View.MembershipAt(name, a.next.Pos)
	if m == nil || m.Membership != join || !a.Filter.WantsRoom(name) {
		return nil
	}
	r := &room{id: name, membership: m, own: m}
	a.rooms[name] = r
	return r
}

func (a *answering) planRoom(name id.RoomID) {
	now := a.window.View.ShownAt(name, a.window.UpTo)
	if now == nil || !a.Filter.WantsRoom(name) {
		return
	}
	r := &room{id: name, membership: now, own: now, full: a.FullState || a.initial()}
	var wanted bool
	switch now.Membership {
	case join:
		wanted = a.planJoined(r)
	case invite, knock:
		wanted = a.planInvited(r)
	default:
		wanted = a.planLeft(r)
	}
	if wanted {
		a.rooms[name] = r
	}
}

func (a *answering) planJoined(r *room) bool {
	if _, stayed := a.joinedSince(r.id); !stayed {
		r.kind, r.full, r.rowsFrom, r.receiptsFrom = joinedNew, true, stored, stored
		return true
	}
	if !a.window.Complete {
		r.rowsFrom, r.receiptsFrom = stored, stored
		return true
	}
	changes, has := a.window.Rooms[r.id]
	r.rows, r.rowsFrom = changes.Timeline, sourceOf(changes.TimelineChanged, changes.TimelineKnown)
	r.receipts, r.receiptsFrom = changes.Receipts, sourceOf(changes.ReceiptsChanged, changes.ReceiptsKnown)
	r.unread = changes.Unread
	return has || r.full
}

func sourceOf(changed, known bool) source {
	switch {
	case !changed:
		return nothing
	case known:
		return inMemory
	}
	return stored
}

func (a *answering) planInvited(r *room) bool {
	r.kind, r.stripped = knocked, r.own.Stripped
	if r.own.Membership == invite {
		r.kind = invited
	}
	return a.isNew(r)
}

func (a *answering) planLeft(r *room) bool {
	whole := a.Filter.Room.IncludeLeave && (a.initial() || a.FullState)
	if a.initial() && !whole || !a.isNew(r) && !whole {
		return false
	}
	wasJoined, _ := a.joinedSince(r.id)
	leaving := a.window.View.LeftAt(r.id, a.window.UpTo)
	switch {
	case leaving == nil || !wasJoined && !whole:
		r.kind, r.full = outside, false
	case !a.initial() && a.joinedAt(r.id, a.since.Pos):
		r.kind, r.membership = left, leaving
	default:
		r.kind, r.membership, r.full = leftNew, leaving, true
	}
	if a.isNew(r) {
		r.rowsFrom = stored
	}
	if r.membership.EventID == "" && !a.initial() {
		r.rowsFrom, r.full = nothing, false // the state was reset: there is no event that says so
	}
	return true
}

// isNew tells whether the client does not know the user's membership yet.
func (a *answering) isNew(r *room) bool { return a.initial() || r.own.Pos > a.since.Pos }

func (a *answering) joinedAt(name id.RoomID, pos int64) bool {
	m := a.window.View.MembershipAt(name, pos)
	return m != nil && m.Membership == join
}

// joinedSince tells whether the user was joined at some time since the token, and whether they were all the time.
// Without a token they never were all the time.
func (a *answering) joinedSince(name id.RoomID) (atSomeTime, always bool) {
	if !a.initial() {
		atSomeTime = a.joinedAt(name, a.since.Pos)
		always = atSomeTime
	}
	for _, m := range a.window.View.Rooms[name] {
		if m.Pos > a.since.Pos && m.Pos <= a.window.UpTo {
			atSomeTime = atSomeTime || m.Membership == join
			always = always && m.Membership == join
		}
	}
	return atSomeTime, always
}

// knew tells whether the client may have the state of the room from a time before the token.
func (a *answering) knew(r *room) bool {
	return a.before(r, func(m storage.Membership) bool { return m.Membership == join })
}

// leftWith is the state with which the client, which knew the room before the token, left it. It is nil where the client
// may not have been told of that: with an invite or a knock it is told nothing else, and nothing where no event says that
// the user left.
func (a *answering) leftWith(r *room) *roomserver.Root {
	leaving := a.window.View.LeftAt(r.id, a.since.Pos)
	untold := leaving.EventID == "" || slices.ContainsFunc(a.window.View.Rooms[r.id], func(m storage.Membership) bool {
		return m.Pos >= leaving.Pos && m.Pos <= a.since.Pos && (m.Membership == invite || m.Membership == knock)
	})
	if untold {
		return nil
	}
	return &leaving.Root
}

// saw tells whether the client may have got events of the room before the token, if only that of the user's own
// membership.
func (a *answering) saw(r *room) bool {
	return a.before(r, func(m storage.Membership) bool { return m.Membership != invite && m.Membership != knock })
}

// before tells whether the user had such a membership at some time before the token.
func (a *answering) before(r *room, is func(storage.Membership) bool) bool {
	return !a.initial() && slices.ContainsFunc(a.window.View.Rooms[r.id], func(m storage.Membership) bool {
		return m.Pos <= a.since.Pos && is(m)
	})
}

// dropForgotten leaves out rooms that the user has left and forgotten, but for those of which a client has yet to learn
// that they were left.
func (a *answering) dropForgotten(ctx context.Context) error {
	if !a.Filter.Room.IncludeLeave || !a.initial() && !a.FullState {
		return nil
	}
	answer, err := a.Room.QueryMemberships(ctx, roomserver.QueryMembershipsRequest{
		UserID: a.UserID, Memberships: []string{leave, "ban"}})
	if err != nil {
		return fmt.Errorf("forgotten rooms: %w", err)
	}
	for _, room := range answer.Rooms {
		r := a.rooms[room.RoomID]
		if r != nil && r.kind.section() == leave && room.Forgotten && (a.initial() || !a.isNew(r)) {
			delete(a.rooms, room.RoomID)
		}
	}
	return nil
}

// empty tells whether there is nothing to say.
func (a *answering) empty() bool {
	if len(a.rooms)+len(a.accountData)+len(a.presence) > 0 {
		return false
	}
	return a.OnlyRooms || !a.hasToDevice() && !a.hasDeviceLists() && !a.hasKeyCounts()
}
