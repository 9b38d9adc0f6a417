package answer

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// room is what an answer says of a room.
type room struct {
	id         id.RoomID
	membership *storage.Membership // the user's, now; of a room that was left, up to which they saw it
	// ban is what became of the user's membership after they had left, such as a ban after a kick: it is all that they see of
	// the time since.
	ban     *storage.Membership
	section string // join, leave, invite or knock
	// anew: the client knows nothing of the room that it could build on. full: it gets the whole state.
	anew, full bool
	// onlyLeave: the user was not joined, so the change of membership is all that they see.
	onlyLeave bool

	rows          []storage.TimelineRow // after the token, or the newest; more than the limit if there are more
	rowsKnown     bool
	changed       bool // the timeline may have something new
	limited       bool
	complex       bool             // the state changed in a way that the timeline does not show
	rootSince     *roomserver.Root // state at the token
	root          roomserver.Root  // state at the end
	lastOrder     roomserver.OrderKey
	now           *storage.Room
	receipts      []storage.Receipt
	receiptsKnown bool
	typing        *typingserver.OutputTyping
	accountData   []storage.AccountData
	unread        *storage.Unread // if it is known without reading
	counts        *storage.Counts
	threads       map[id.EventID]storage.Counts

	timeline []*roomserver.Event
	state    []*roomserver.Event
	summary  *summary
	stripped []json.RawMessage
	sent     []id.UserID // members whose events the answer has, when they are lazily loaded
}

// Sections of an answer.
const (
	join   = "join"
	leave  = "leave"
	invite = "invite"
	knock  = "knock"
)

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
		if p.UserID != a.UserID && !ignored && a.Filter.Presence.MatchesType("m.presence") && a.Filter.Presence.MatchesSender(p.UserID) && p.SharesRoom(w.View) {
			a.presence = append(a.presence, *p)
		}
	}
	for i := range w.Typing {
		t := &w.Typing[i]
		if a.initial() && len(t.Users) == 0 || !a.Filter.WantsRoom(t.RoomID) || !a.Filter.Room.Ephemeral.MatchesType("m.typing") ||
			!a.Filter.Room.Ephemeral.MatchesRoom(t.RoomID) {
			continue
		}
		if r := a.joined(t.RoomID); r != nil {
			r.typing = t
		}
	}
}

// joined finds or adds a joined room.
func (a *answering) joined(name id.RoomID) *room {
	if r := a.rooms[name]; r != nil {
		return r
	}
	m := a.window.View.MembershipAt(name, a.next.Pos)
	if m == nil || m.Membership != join || !a.Filter.WantsRoom(name) {
		return nil
	}
	r := &room{id: name, membership: m, section: join, rowsKnown: true, receiptsKnown: true}
	a.rooms[name] = r
	return r
}

func (a *answering) planRoom(name id.RoomID) {
	view := a.window.View
	now := view.MembershipAt(name, a.window.UpTo)
	if now == nil || !a.Filter.WantsRoom(name) {
		return
	}
	r := &room{id: name, membership: now, full: a.FullState || a.initial()}
	isNew := a.initial() || now.Pos > a.since.Pos
	wasJoined, stayed := a.joinedSince(name)
	switch now.Membership {
	case join:
		r.section = join
		r.anew = !stayed
		r.full = r.full || r.anew
		if !r.anew && a.window.Complete {
			changes, has := a.window.Rooms[name]
			if !has && !r.full {
				return
			}
			r.changed, r.rows, r.rowsKnown = changes.TimelineChanged, changes.Timeline, changes.TimelineKnown || !changes.TimelineChanged
			r.unread = changes.Unread
			r.receipts, r.receiptsKnown = changes.Receipts, changes.ReceiptsKnown || !changes.ReceiptsChanged
		} else {
			r.changed = true
		}
	case invite, knock:
		if _, ignored := view.Ignored[now.Sender]; !isNew || ignored || view.BlocksInvites && now.Membership == invite {
			return
		}
		r.section, r.stripped, r.rowsKnown, r.receiptsKnown = now.Membership, now.Stripped, true, true
	default:
		if a.initial() && !a.Filter.Room.IncludeLeave || !isNew && !(a.FullState && a.Filter.Room.IncludeLeave) {
			return
		}
		r.section, r.receiptsKnown = leave, true
		r.changed = isNew
		if !a.initial() {
			r.onlyLeave = !wasJoined
			r.anew = wasJoined && !a.joinedAt(name, a.since.Pos)
		} else {
			r.onlyLeave = !everJoined(view.Rooms[name])
			r.anew = !r.onlyLeave
		}
		if left := view.LeftAt(name, a.window.UpTo); !r.onlyLeave && left.Pos != now.Pos {
			r.membership, r.ban = left, now
		}
		r.full = (r.full || r.anew) && !r.onlyLeave
		if r.membership.EventID == "" && !a.initial() {
			r.rowsKnown, r.full = true, false // the state was reset: there is no event that says so
		}
	}
	a.rooms[name] = r
}

func (a *answering) joinedAt(name id.RoomID, pos int64) bool {
	m := a.window.View.MembershipAt(name, pos)
	return m != nil && m.Membership == join
}

// joinedSince tells whether the user was joined at some time since the token, and whether they were all the time.
func (a *answering) joinedSince(name id.RoomID) (atSomeTime, always bool) {
	if a.initial() {
		return everJoined(a.window.View.Rooms[name]), false
	}
	atSomeTime = a.joinedAt(name, a.since.Pos)
	always = atSomeTime
	for _, m := range a.window.View.Rooms[name] {
		if m.Pos > a.since.Pos && m.Pos <= a.window.UpTo {
			atSomeTime = atSomeTime || m.Membership == join
			always = always && m.Membership == join
		}
	}
	return atSomeTime, always
}

func everJoined(history []storage.Membership) bool {
	for i := range history {
		if history[i].Membership == join {
			return true
		}
	}
	return false
}

// dropForgotten leaves out rooms that the user has left and forgotten.
func (a *answering) dropForgotten(ctx context.Context) error {
	if !a.Filter.Room.IncludeLeave || !a.initial() && !a.FullState {
		return nil
	}
	answer, err := a.Room.QueryMemberships(ctx, roomserver.QueryMembershipsRequest{UserID: a.UserID, Memberships: []string{leave, "ban"}})
	if err != nil {
		return fmt.Errorf("forgotten rooms: %w", err)
	}
	for _, room := range answer.Rooms {
		if r := a.rooms[room.RoomID]; r != nil && r.section == leave && room.Forgotten {
			delete(a.rooms, room.RoomID)
		}
	}
	return nil
}

// empty tells whether there is nothing to say.
func (a *answering) empty() bool { return len(a.rooms)+len(a.accountData)+len(a.presence) == 0 }
