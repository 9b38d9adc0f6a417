package input

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// batch is what consecutive records of a partition become. Positions in it count from 1, until place knows the first.
type batch struct {
	in        *Input
	partition int32
	followed  eventlog.Followed // once it is applied

	order  []entry
	events []*roomserver.OutputEvent

	rooms   map[id.RoomID]storage.Room
	threads map[threadKey]storage.Counts
	known   map[id.EventID]storage.TimelineRow // rows of events that those of the batch relate to
	parents map[id.EventID]id.EventID          // threads of the batch's own events

	positions int
	// changes are the rows. At of a mention is the negative position in the batch, if its event is one of the batch's own.
	changes storage.Changes
}

type entry struct {
	event  *roomserver.OutputEvent
	invite *roomserver.OutputInvite
}

type threadKey struct {
	room   id.RoomID
	thread id.EventID
}

// load reads what the batch builds on: the counts of its rooms, and the rows of events that are related to.
func (b *batch) load(ctx context.Context) error {
	var missing []id.RoomID
	var related []id.EventID
	b.parents = make(map[id.EventID]id.EventID)
	for _, output := range b.events {
		if _, has := b.rooms[output.RoomID]; !has {
			room, kept := b.in.rooms.Get(output.RoomID)
			if !kept || room.streak != b.followed.Streak {
				room.Room = storage.Room{RoomID: output.RoomID, Version: output.RoomVersion}
				missing = append(missing, output.RoomID)
			}
			b.rooms[output.RoomID] = room.Room
		}
		if relation := output.Event.Relation(); relation.Parent != "" && relation.Type != pdu.RelThread {
			related = append(related, relation.Parent)
		}
		if output.Redacts != "" {
			related = append(related, output.Redacts)
		}
	}
	if missing == nil && related == nil {
		return nil
	}
	return b.in.Storage.Read(ctx, "rooms of a batch", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if missing != nil {
			stored, err := b.in.Storage.Rooms(ctx, tx, missing)
			if err != nil {
				return err
			}
			for room, r := range stored {
				b.rooms[room] = r
			}
		}
		if related != nil {
			b.known, err = b.in.Storage.Events(ctx, tx, related)
		}
		return err
	})
}

// event adds what an event of a room does.
func (b *batch) event(ctx context.Context, output *roomserver.OutputEvent) error {
	e := output.Event
	changed := output.RootBefore != output.RootAfter
	hidden := output.Backfilled || output.SoftFailed
	if hidden && !changed {
		return nil
	}
	room := b.rooms[output.RoomID]
	b.positions++
	row := storage.TimelineRow{
		RoomID: output.RoomID, Pos: int64(b.positions), EventID: e.ID(), Order: output.Order, Type: e.Type(), Sender: e.Sender(),
		Flags: b.flags(output, hidden), RootBefore: output.RootBefore, RootAfter: output.RootAfter,
		Joined: output.Joined, Invited: output.Invited,
	}
	if hidden {
		row.Order = room.Order // it has no place among what clients see
	} else {
		row.Thread = b.threadOf(output)
		b.parents[row.EventID] = row.Thread
		if err := b.count(ctx, output, &row); err != nil {
			return err
		}
		if output.Redacts != "" {
			if err := b.correct(ctx, output); err != nil {
				return err
			}
		}
	}
	if err := b.addTo(ctx, &room, &row); err != nil {
		return err
	}
	b.rooms[output.RoomID] = room
	b.changes.Timeline = append(b.changes.Timeline, row)
	return b.memberships(ctx, output)
}

func (b *batch) flags(output *roomserver.OutputEvent, hidden bool) int64 {
	e := output.Event
	var flags int64
	stateKey, isState := e.StateKey()
	if isState {
		flags |= storage.State
	}
	if roomserver.HasURL(e) {
		flags |= storage.HasURL
	}
	if e.Sender().Server() == b.in.Server && !isProfile(output, stateKey) {
		flags |= storage.Local
	}
	if hidden {
		flags |= storage.Hidden
	}
	if output.StateRoot != output.RootBefore {
		flags |= storage.Forked
	}
	plain := len(output.Changes) == 0 && !isState
	if isState && len(output.Changes) == 1 {
		c := &output.Changes[0]
		plain = c.New == e.ID() && c.Type == e.Type() && c.StateKey == stateKey
	}
	if !plain || hidden {
		flags |= storage.Complex
	}
	return flags
}

// isProfile tells whether an event only changes the sender's profile. It comes in all their rooms at once, whether they have read
// these or not.
func isProfile(output *roomserver.OutputEvent, stateKey string) bool {
	e := output.Event
	return e.Type() == "m.room.member" && stateKey == string(e.Sender()) && len(output.Changes) == 1 &&
		output.Changes[0].OldMembership == output.Changes[0].NewMembership
}

// addTo adds an event's counts to those of its room and thread.
func (b *batch) addTo(ctx context.Context, room *storage.Room, row *storage.TimelineRow) error {
	var counts storage.Counts
	if row.Has(storage.Notify) {
		counts.Notify = 1
	}
	if row.Has(storage.Highlight) {
		counts.Highlight = 1
	}
	room.All = room.All.Plus(counts)
	if row.Thread == "" {
		room.Main = room.Main.Plus(counts)
	} else {
		soFar, err := b.thread(ctx, threadKey{row.RoomID, row.Thread})
		if err != nil {
			return err
		}
		row.InThread = soFar.Plus(counts)
		b.threads[threadKey{row.RoomID, row.Thread}] = row.InThread
	}
	row.All, row.Main = room.All, room.Main
	room.Pos, room.Order, room.Root, room.Joined, room.Invited = row.Pos, row.Order, row.RootAfter, row.Joined, row.Invited
	return nil
}

func (b *batch) thread(ctx context.Context, key threadKey) (storage.Counts, error) {
	if counts, has := b.threads[key]; has {
		return counts, nil
	}
	var newest *storage.TimelineRow
	err := b.in.Storage.Read(ctx, "thread", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		newest, err = b.in.Storage.ThreadNewest(ctx, tx, key.room, key.thread)
		return err
	})
	if err != nil || newest == nil {
		return storage.Counts{}, err
	}
	return newest.InThread, nil
}

// memberships adds what changed for users of this server, by the event itself or by a resolution of state.
func (b *batch) memberships(ctx context.Context, output *roomserver.OutputEvent) error {
	for i := range output.Changes {
		c := &output.Changes[i]
		user := id.UserID(c.StateKey)
		if c.Type != "m.room.member" || user.Server() != b.in.Server {
			continue
		}
		b.in.rules.moved(output.RoomID, user)
		if c.OldMembership == c.NewMembership {
			continue
		}
		membership := c.NewMembership
		if membership == "" {
			membership = "leave"
		}
		m := storage.Membership{UserID: user, RoomID: output.RoomID, Pos: int64(b.positions), Membership: membership,
			EventID: c.New, Root: output.RootAfter}
		if c.New == output.Event.ID() {
			m.Sender = output.Event.Sender()
		} else {
			m.EventID = "" // what brought it about is not in the timeline here
		}
		if membership == "invite" || membership == "knock" {
			stripped, err := b.in.Room.QueryStrippedState(ctx, roomserver.QueryStrippedStateRequest{RoomID: output.RoomID, Root: output.RootAfter,
				UserID: user, Sender: m.Sender})
			if err != nil {
				return fmt.Errorf("stripped state of %s: %w", output.RoomID, err)
			}
			m.Stripped = smallest(stripped.State)
		}
		b.changes.Memberships = append(b.changes.Memberships, m)
	}
	return nil
}

// invite adds an invite to, or a knock on, a room that this server is not in, or the end of it.
func (b *batch) invite(output *roomserver.OutputInvite) {
	b.positions++
	m := storage.Membership{UserID: output.UserID, RoomID: output.RoomID, Pos: int64(b.positions), Membership: output.Membership}
	m.Stripped = smallest(output.StrippedState)
	if e := output.Event; e != nil {
		m.EventID, m.Sender = e.ID(), e.Sender()
		if m.Membership != "leave" && e.IsState() && !hasMember(m.Stripped, output.UserID) {
			m.Stripped = append(m.Stripped, e.Stripped())
		}
	}
	b.changes.Memberships = append(b.changes.Memberships, m)
}

func hasMember(state []json.RawMessage, user id.UserID) bool {
	return slices.ContainsFunc(state, func(raw json.RawMessage) bool {
		var e struct {
			Type     string    `json:"type"`
			StateKey id.UserID `json:"state_key"`
		}
		return json.Unmarshal(raw, &e) == nil && e.Type == "m.room.member" && e.StateKey == user
	})
}

// place gives the rows their positions. It may be called again, with another first position.
func (b *batch) place(first int64) *storage.Changes {
	shift := first - 1
	c := storage.Changes{
		Timeline: slices.Clone(b.changes.Timeline), Memberships: slices.Clone(b.changes.Memberships),
		Mentions: slices.Clone(b.changes.Mentions), Redacted: b.changes.Redacted,
	}
	for i := range c.Timeline {
		c.Timeline[i].Pos += shift
	}
	for i := range c.Memberships {
		c.Memberships[i].Pos += shift
	}
	for i := range c.Mentions {
		m := &c.Mentions[i]
		if m.Pos += shift; m.At <= 0 {
			m.At = shift - m.At
		}
	}
	last := make(map[id.RoomID]int64)
	for i := range c.Timeline {
		last[c.Timeline[i].RoomID] = c.Timeline[i].Pos
	}
	for room, pos := range last {
		r := b.rooms[room]
		r.Pos = pos
		b.rooms[room] = r
		c.Rooms = append(c.Rooms, r)
	}
	return &c
}

// remember puts the event where those who are woken look for it first. A state event is read from the roomserver once, for what
// it replaced.
func (b *batch) remember(output *roomserver.OutputEvent) {
	if output.Backfilled || output.SoftFailed || output.Event.IsState() {
		return
	}
	b.in.Events.Put(&roomserver.Event{PDU: output.Event, Order: output.Order, DeviceID: output.DeviceID, TransactionID: output.TransactionID})
}
