package answer

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// parallelStates is how many rooms' states one sync asks for at a time.
const parallelStates = 8

// fetchStates gets what the timelines do not say of the state, and drops rooms of which there is nothing to say then.
func (a *answering) fetchStates(ctx context.Context) error {
	if err := a.summarize(ctx); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelStates)
	for _, r := range a.rooms {
		if r.section == join || r.section == leave {
			group.Go(func() error { return a.fetchState(groupCtx, r) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for name, r := range a.rooms {
		if a.silent(r) {
			delete(a.rooms, name)
		}
	}
	return nil
}

// silent tells whether nothing about a room is worth an answer.
func (a *answering) silent(r *room) bool {
	if r.section == join && !r.full {
		return len(r.timeline)+len(r.state)+len(r.accountData) == 0 && r.typing == nil && !a.showsReceipts(r) && !a.hasRead(r) && r.summary == nil
	}
	return false
}

func (a *answering) fetchState(ctx context.Context, r *room) error {
	if r.onlyLeave || r.section == leave && !r.full && !r.changed {
		return nil
	}
	lazy := a.Filter.LazyLoadMembers()
	// The state goes to the start of the timeline. If it changed in ways that the timeline does not show, what is right at
	// the end goes first, but for what the timeline shows.
	to, less := r.root, false
	if !a.StateAfter {
		if len(r.rows) > 0 && !r.complex {
			to = r.rows[0].RootBefore
		} else {
			less = true
		}
	}
	var err error
	if r.full {
		r.state, err = a.Events.State(ctx, r.id, to, lazy, append(a.membersOf(r), a.UserID))
	} else {
		r.state, err = a.difference(ctx, r, to)
		if lazy && err == nil {
			err = a.addMembers(ctx, r, to)
		}
	}
	if err != nil {
		return err
	}
	if a.StateAfter && r.ban != nil {
		r.state = slices.DeleteFunc(slices.Clone(r.state), func(e *roomserver.Event) bool {
			user, _ := e.PDU.StateKey()
			return e.PDU.Type() == member && user == string(a.UserID)
		})
		for _, e := range r.timeline {
			if e.PDU.ID() == r.ban.EventID {
				r.state = append(r.state, e)
			}
		}
	}
	shown := make(map[id.EventID]bool, len(r.timeline))
	if less {
		for _, e := range r.timeline {
			shown[e.PDU.ID()] = true
		}
	}
	f := a.Filter.Room.State
	r.state = slices.DeleteFunc(slices.Clone(r.state), func(e *roomserver.Event) bool { return shown[e.PDU.ID()] || !f.Matches(e.PDU) })
	if lazy {
		for _, e := range slices.Concat(r.state, r.timeline) {
			if user, isState := e.PDU.StateKey(); isState && e.PDU.Type() == member {
				r.sent = append(r.sent, id.UserID(user))
			}
		}
	}
	return nil
}

const member = "m.room.member"

// difference is what changed from the state that the client has to another. A key that is gone cannot be said.
func (a *answering) difference(ctx context.Context, r *room, to roomserver.Root) ([]*roomserver.Event, error) {
	if r.rootSince == nil || *r.rootSince == to {
		return nil, nil
	}
	answer, err := a.Room.QueryStateDiff(ctx, roomserver.QueryStateDiffRequest{RoomID: r.id, From: *r.rootSince, To: to})
	if err != nil {
		return nil, fmt.Errorf("state of %s since the last sync: %w", r.id, err)
	}
	var ids []id.EventID
	for i := range answer.Changes {
		if c := &answer.Changes[i]; c.New != "" {
			ids = append(ids, c.New)
		}
	}
	found, err := a.Events.Get(ctx, ids)
	if err != nil {
		return nil, err
	}
	var state []*roomserver.Event
	for _, eventID := range ids {
		if e := found[eventID]; e != nil {
			state = append(state, e)
		}
	}
	return state, nil
}

// membersOf lists whose member events a client needs that loads them lazily: the senders', and the heroes'.
func (a *answering) membersOf(r *room) []id.UserID {
	var users []id.UserID
	for _, e := range r.timeline {
		if sender := e.PDU.Sender(); !slices.Contains(users, sender) {
			users = append(users, sender)
		}
	}
	if r.summary != nil {
		for _, hero := range r.summary.heroes {
			if !slices.Contains(users, hero) {
				users = append(users, hero)
			}
		}
	}
	return users
}

// addMembers adds the member events that a client needs and was not sent before.
func (a *answering) addMembers(ctx context.Context, r *room, root roomserver.Root) error {
	has := make(map[id.UserID]bool)
	for _, e := range r.state {
		if user, _ := e.PDU.StateKey(); e.PDU.Type() == member {
			has[id.UserID(user)] = true
		}
	}
	missing := slices.DeleteFunc(a.membersOf(r), func(user id.UserID) bool {
		return has[user] || !r.limited && !a.Filter.IncludeRedundantMembers() && a.lazy.sent(a.UserID, a.DeviceID, r.id, user, a.since.Pos)
	})
	members, err := a.Events.Members(ctx, r.id, root, missing)
	if err != nil {
		return err
	}
	r.state = append(slices.Clone(r.state), members...)
	return nil
}

// showsReceipts tells whether the client gets receipts of a room.
func (a *answering) showsReceipts(r *room) bool {
	f := a.Filter.Room.Ephemeral
	if !f.MatchesType("m.receipt") || !f.MatchesRoom(r.id) {
		return false
	}
	return slices.ContainsFunc(r.receipts, func(receipt storage.Receipt) bool { return a.seesReceipt(&receipt) })
}

func (a *answering) seesReceipt(r *storage.Receipt) bool {
	if _, ignored := a.window.View.Ignored[r.UserID]; ignored {
		return false
	}
	return r.Type == storage.Read || r.UserID == a.UserID
}
