package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// View is what a user is, as far as every sync of theirs needs it. It is shared and never changes; a new one takes its place.
type View struct {
	// Rooms has the changes of the user's membership in each room, oldest first.
	Rooms   map[id.RoomID][]storage.Membership
	Joined  []id.RoomID
	Rules   *pushrules.Document
	Ignored map[id.UserID]struct{} // senders whom the user ignores
	// BlocksInvites says that the user wants to see no invites.
	BlocksInvites bool
}

// MembershipAt is what the user was in a room at a position; nil if nothing yet.
func (v *View) MembershipAt(room id.RoomID, pos int64) *storage.Membership {
	history := v.Rooms[room]
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Pos <= pos {
			return &history[i]
		}
	}
	return nil
}

// LeftAt is the change of membership by which the user, who is not joined at a position, ceased to be; nil if they never were.
func (v *View) LeftAt(room id.RoomID, pos int64) *storage.Membership {
	history := v.Rooms[room]
	var left *storage.Membership
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Pos > pos {
			continue
		}
		if history[i].Membership == "join" {
			return left
		}
		left = &history[i]
	}
	return nil
}

// ShownAt is what the user was in a room at a position as far as their clients are told; nil if nothing yet. Invites by
// whom they ignore now (Client-Server API, § Ignoring Users), and all where they block them (§ Invite permission), are
// not shown: the room is what it was before.
func (v *View) ShownAt(room id.RoomID, pos int64) *storage.Membership {
	history := v.Rooms[room]
	for i := len(history) - 1; i >= 0; i-- {
		m := &history[i]
		_, ignored := v.Ignored[m.Sender]
		if hidden := m.Membership == "invite" && (ignored || v.BlocksInvites); m.Pos <= pos && !hidden {
			return m
		}
	}
	return nil
}

// joinedAfter tells whether the user, who is joined, was not at a position.
func (v *View) joinedAfter(room id.RoomID, pos int64) bool {
	history := v.Rooms[room]
	first := len(history) - 1
	for first > 0 && history[first-1].Membership == "join" {
		first--
	}
	return first >= 0 && history[first].Pos > pos
}

func (h *Hub) loadView(ctx context.Context, name id.UserID) (*View, int64, error) {
	v := &View{Rooms: make(map[id.RoomID][]storage.Membership), Rules: new(pushrules.Document)}
	var at int64
	err := h.o.Storage.Read(ctx, "user of a sync", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if at, err = h.o.Storage.PositionIn(ctx, tx); err != nil {
			return err
		}
		history, err := h.o.Storage.History(ctx, tx, name)
		if err != nil {
			return err
		}
		for _, m := range history {
			v.Rooms[m.RoomID] = append(v.Rooms[m.RoomID], m)
		}
		data, err := h.o.Storage.AccountDataOf(ctx, tx, name, storage.PushRules, storage.IgnoredUsers, storage.InvitePermission)
		if err != nil {
			return err
		}
		if rules := data[storage.PushRules]; rules != nil {
			if err := json.Unmarshal(rules, v.Rules); err != nil {
				return fmt.Errorf("push rules: %w", err)
			}
		}
		v.Ignored = make(map[id.UserID]struct{})
		for _, user := range storage.IgnoredIn(data[storage.IgnoredUsers]) {
			v.Ignored[user] = struct{}{}
		}
		v.BlocksInvites = storage.BlocksInvites(data[storage.InvitePermission])
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("user %s: %w", name, err)
	}
	for room, history := range v.Rooms {
		shown := v.ShownAt(room, math.MaxInt64)
		for i := range history {
			if &history[i] != shown {
				history[i].Stripped = nil // only the last that is shown may be an invite of which clients are told
			}
		}
		if history[len(history)-1].Membership == "join" {
			v.Joined = append(v.Joined, room)
		}
	}
	return v, at, nil
}

// dropView makes a user's view be read again.
func (h *Hub) dropView(name id.UserID, u *user) {
	if u.view == nil {
		return
	}
	for _, room := range u.view.Joined {
		delete(h.inRoom[room], name)
		if len(h.inRoom[room]) == 0 {
			delete(h.inRoom, room)
		}
	}
	u.view, u.counts = nil, nil
}

// offerView keeps a view that was read at a position, if everything is known since and it still holds.
func (h *Hub) offerView(name id.UserID, v *View, at int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.user(name)
	changed := max(u.changes.of(storage.KindAccountData), u.changes.of(storage.KindMemberships), h.floorOf(u))
	if u.view == nil && changed <= at {
		h.keepView(name, v)
	}
}

func (h *Hub) keepView(name id.UserID, v *View) {
	h.user(name).view = v
	for _, room := range v.Joined {
		if h.inRoom[room] == nil {
			h.inRoom[room] = make(map[id.UserID]struct{})
		}
		h.inRoom[room][name] = struct{}{}
	}
}

// Window is what a Hub knows of the time after a token, at one moment.
type Window struct {
	UpTo int64 // the position that everything is answered up to
	View *View
	// Complete: the Hub knows every change since the token. Otherwise the rooms that have changed are the database's to tell.
	Complete bool
	Rooms    map[id.RoomID]Room // joined rooms that have changed, if Complete
	Typing   []Typing           // changes in joined rooms
	// Presence are the users whose presence has changed, whether they share a room with this one or not.
	Presence []Presence
	// Number is that of the last change of what is ephemeral.
	Number int64

	// Moved are whose keys or memberships have changed in joined rooms.
	Moved Moved

	changes changes // of the user, if Complete
	keys    map[id.DeviceID]*storage.DeviceKeys
}

// Changed tells whether something of a kind may have changed for a device of the user.
func (w *Window) Changed(kind storage.Kind, device id.DeviceID) bool {
	return !w.Complete || w.changes.has(kind, device)
}

// Room is what has changed in a room. What is not known is the database's to tell.
type Room struct {
	Timeline                       []storage.TimelineRow
	Receipts                       []storage.Receipt
	TimelineChanged, TimelineKnown bool
	ReceiptsChanged, ReceiptsKnown bool
	Unread                         *storage.Unread
}

// Look tells what a user may find new after a position and a number of what is ephemeral.
func (h *Hub) Look(ctx context.Context, name id.UserID, since, ephemeral int64) (*Window, error) {
	for {
		if w := h.look(name, since, ephemeral); w != nil {
			return w, nil
		}
		known := h.Position()
		view, at, err := h.loadView(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := h.catchUp(ctx, known, at); err != nil {
			return nil, err
		}
		h.offerView(name, view, at)
	}
}

func (h *Hub) look(name id.UserID, since, ephemeral int64) *Window {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[name]
	if u == nil || u.view == nil {
		return nil
	}
	w := &Window{UpTo: h.pos, View: u.view, Complete: since >= h.floorOf(u), changes: u.changes.after(since)}
	w.Moved, w.keys = h.movedSince(name, u, w, since), u.keys.known
	w.Number = h.typing.seen()
	joins := make(map[id.RoomID]struct{})
	for _, name := range u.view.Joined {
		joining := u.view.joinedAfter(name, since)
		if joining && since > 0 {
			joins[name] = struct{}{}
		}
		if t := h.typing.since(name, ephemeral, joining); t != nil {
			w.Typing = append(w.Typing, *t)
		}
		r := h.rooms[name]
		if !w.Complete || r == nil || r.lastTimeline <= since && r.lastReceipt <= since {
			continue
		}
		if w.Rooms == nil {
			w.Rooms = make(map[id.RoomID]Room)
		}
		changes := r.since(since)
		if unread, has := u.counts[name]; has {
			if n := len(r.timeline); n > 0 {
				unread.ForAll = unread.ForAll.Plus(r.timeline[n-1].All.Minus(unread.Total))
			}
			changes.Unread = &unread
		}
		w.Rooms[name] = changes
	}
	w.Presence = h.presence.since(min(ephemeral, h.typing.number), joins)
	return w
}

func (r *room) since(pos int64) Room {
	out := Room{TimelineChanged: r.lastTimeline > pos, TimelineKnown: r.timelineFrom <= pos,
		ReceiptsChanged: r.lastReceipt > pos, ReceiptsKnown: r.receiptsFrom <= pos}
	if out.TimelineChanged && out.TimelineKnown {
		from := len(r.timeline)
		for from > 0 && r.timeline[from-1].Pos > pos {
			from--
		}
		out.Timeline = slices.Clip(r.timeline[from:])
	}
	if out.ReceiptsChanged && out.ReceiptsKnown {
		from := len(r.receipts)
		for from > 0 && r.receipts[from-1].Pos > pos {
			from--
		}
		out.Receipts = slices.Clip(r.receipts[from:])
	}
	return out
}
