package answer

import (
	"context"
	"maps"
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
	if err := a.eachRoom(ctx, func(*room) bool { return true }, a.fetchState); err != nil {
		return err
	}
	for name, r := range a.rooms {
		if a.silent(r) {
			delete(a.rooms, name)
		}
	}
	return nil
}

// eachRoom does something for all rooms that need it, several at a time.
func (a *answering) eachRoom(ctx context.Context, needs func(*room) bool, do func(context.Context, *room) error) error {
	var rooms []*room
	for _, r := range a.rooms {
		if r.kind != invited && r.kind != knocked && needs(r) {
			rooms = append(rooms, r)
		}
	}
	if len(rooms) == 1 {
		return do(ctx, rooms[0])
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelStates)
	for _, r := range rooms {
		group.Go(func() error { return do(groupCtx, r) })
	}
	return group.Wait()
}

// silent tells whether nothing about a room is worth an answer.
func (a *answering) silent(r *room) bool {
	if r.kind.section() == join && !r.full {
		return len(r.timeline)+len(r.state)+len(r.accountData) == 0 && r.typing == nil && r.summary == nil &&
			!a.showsReceipts(r) && !a.hasRead(r)
	}
	return false
}

// fetchState gets what a client needs beside the timeline, as far as the filter of the state selects it.
func (a *answering) fetchState(ctx context.Context, r *room) (err error) {
	if a.StateAfter {
		r.state, err = a.stateAfter(ctx, r)
	} else {
		r.state, err = a.stateBefore(ctx, r)
	}
	if err != nil {
		return err
	}
	f := a.Filter.Room.State
	r.state = slices.DeleteFunc(slices.Clone(r.state), func(e *roomserver.Event) bool { return !f.Matches(e.PDU) })
	if a.Filter.LazyLoadMembers() {
		for _, e := range slices.Concat(r.state, r.timeline) {
			if user, isState := e.PDU.StateKey(); isState && e.PDU.Type() == member {
				r.sent = append(r.sent, id.UserID(user))
			}
		}
	}
	return nil
}

// stateAfter is the state at the end of the timeline, for clients that take no state from the timeline.
func (a *answering) stateAfter(ctx context.Context, r *room) ([]*roomserver.Event, error) {
	state, err := a.stateAt(ctx, r, r.root)
	if err != nil {
		return nil, err
	}
	own, err := a.ownEvent(ctx, r)
	if own == nil || err != nil {
		return state, err
	}
	return later{keyOf(own): own}.over(state), nil
}

// stateBefore is the state at the start of the timeline, and what of later changes the timeline does not show: clients
// apply it, and the events of the timeline after that.
func (a *answering) stateBefore(ctx context.Context, r *room) ([]*roomserver.Event, error) {
	state, err := a.stateAt(ctx, r, r.start())
	if err != nil || r.later == nil {
		return state, err
	}
	unseen := maps.Clone(r.later)
	for _, e := range r.timeline {
		delete(unseen, keyOf(e))
	}
	if r.full && r.rootSince == nil && !r.unsure && a.Filter.LazyLoadMembers() {
		wanted := append(a.membersOf(r), a.UserID)
		maps.DeleteFunc(unseen, func(key roomserver.StateKeyTuple, _ *roomserver.Event) bool {
			return key.Type == member && !slices.Contains(wanted, id.UserID(key.StateKey))
		})
	}
	return unseen.over(state), nil
}

// stateAt is the state at a root, or what differs there from the state that the client has.
func (a *answering) stateAt(ctx context.Context, r *room, to roomserver.Root) ([]*roomserver.Event, error) {
	lazy := a.Filter.LazyLoadMembers()
	switch {
	case r.kind == outside:
		return nil, nil
	case r.full:
		return a.wholeState(ctx, r, to)
	}
	state, err := a.difference(ctx, r, to)
	if lazy && err == nil {
		return a.addMembers(ctx, r, state, to)
	}
	return state, err
}

// wholeState is the state at a root. Members whom a lazily loading client does not need are left out, but for those who
// changed since it may have got them: the client keeps the member events that it has (Client-Server API, § Lazy-loading
// room members). Where it is not known since when, that may be all.
func (a *answering) wholeState(ctx context.Context, r *room, to roomserver.Root) ([]*roomserver.Event, error) {
	lazy := a.Filter.LazyLoadMembers() && !r.unsure
	state, err := a.Events.State(ctx, r.id, to, lazy, append(a.membersOf(r), a.UserID))
	if err != nil || !lazy || r.rootSince == nil {
		return state, err
	}
	changed, err := a.changes(ctx, r, *r.rootSince, to)
	maps.DeleteFunc(changed, func(key roomserver.StateKeyTuple, _ *roomserver.Event) bool { return key.Type != member })
	return changed.over(state), err
}

// difference is what changed from the state that the client has to another. A key that is gone cannot be said.
func (a *answering) difference(ctx context.Context, r *room, to roomserver.Root) ([]*roomserver.Event, error) {
	if r.rootSince == nil {
		return nil, nil
	}
	changes, err := a.changes(ctx, r, *r.rootSince, to)
	if err != nil {
		return nil, err
	}
	return changes.over(nil), nil
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
func (a *answering) addMembers(
	ctx context.Context, r *room, state []*roomserver.Event, root roomserver.Root,
) ([]*roomserver.Event, error) {
	has := make(map[id.UserID]bool)
	for _, e := range state {
		if user, _ := e.PDU.StateKey(); e.PDU.Type() == member {
			has[id.UserID(user)] = true
		}
	}
	redundant := !r.limited && !a.Filter.IncludeRedundantMembers()
	missing := slices.DeleteFunc(a.membersOf(r), func(user id.UserID) bool {
		return has[user] || redundant && a.lazy.sent(a.UserID, a.DeviceID, r.id, user, a.since.Pos)
	})
	members, err := a.Events.Members(ctx, r.id, root, missing)
	return append(state, members...), err
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
