package query

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QueryState is of the contract.
func (q *Query) QueryState(ctx context.Context, req api.QueryStateRequest) (res api.QueryStateResponse, err error) {
	var room *storage.Room
	var v *visibility.View
	var at visibility.State
	if req.Root != nil {
		if room, err = q.room(ctx, req.RoomID); err != nil {
			return res, err
		}
		v, at.Root = q.checker.Unchecked(room, req.Viewer), *req.Root
	} else {
		if room, v, err = q.view(ctx, req.RoomID, req.Viewer); err != nil {
			return res, err
		}
		if at, err = v.State(); err != nil {
			return res, err
		}
	}
	events, err := q.state(ctx, room.NID, at, part{keys: req.Keys, filter: req.Filter, members: req.Members})
	if err != nil {
		return res, err
	}
	res.Root = at.Root
	res.Events, err = v.Show(ctx, events)
	return res, err
}

// part is what is wanted of a state.
type part struct {
	keys    []api.StateKeyTuple // nil for all
	filter  *api.EventFilter
	members []id.UserID // with a filter that loads members lazily
}

// state reads a part of a state.
func (q *Query) state(ctx context.Context, roomNID int64, at visibility.State, p part) ([]*storage.Event, error) {
	nids, err := q.stateNIDs(ctx, roomNID, at.Root, p)
	if err != nil {
		return nil, err
	}
	events, err := q.load(ctx, nids, func(e *storage.Event) bool {
		return p.filter.Matches(e.PDU) && (at.After == nil || !sameKey(e.PDU, at.After.PDU))
	})
	if err != nil || at.After == nil || !p.wants(at.After.PDU) {
		return events, err
	}
	return append(events, at.After), nil
}

func (q *Query) stateNIDs(ctx context.Context, roomNID int64, root api.Root, p part) ([]stateres.EventNID, error) {
	lazy := p.filter != nil && p.filter.LazyLoadMembers
	var nids []stateres.EventNID
	var single []auth.Key
	if p.keys == nil {
		which := statetrie.All
		if lazy || !p.filter.MatchesType(pdu.TypeMember) {
			which = statetrie.Others
		}
		var err error
		if nids, err = q.rooms.Entries(ctx, roomNID, root, which); err != nil {
			return nil, err
		}
	}
	for _, k := range p.keys {
		single = append(single, auth.Key(k))
	}
	if lazy {
		for _, user := range p.members {
			single = append(single, auth.Key{Type: pdu.TypeMember, StateKey: string(user)})
		}
	}
	if len(single) == 0 {
		return nids, nil
	}
	entries, err := q.rooms.NIDs(ctx, roomNID, root, single)
	for _, nid := range entries {
		nids = append(nids, nid)
	}
	return nids, err
}

// wants tells whether an event belongs to the part.
func (p part) wants(e *pdu.Event) bool {
	if !p.filter.Matches(e) {
		return false
	}
	stateKey, _ := e.StateKey()
	if p.filter != nil && p.filter.LazyLoadMembers && e.Type() == pdu.TypeMember {
		for _, user := range p.members {
			if string(user) == stateKey {
				return true
			}
		}
		if p.keys == nil {
			return false
		}
	}
	if p.keys == nil {
		return true
	}
	for _, k := range p.keys {
		if e.Is(k.Type, k.StateKey) {
			return true
		}
	}
	return false
}

func sameKey(a, b *pdu.Event) bool {
	stateKey, _ := b.StateKey()
	return a.Is(b.Type(), stateKey)
}

// QueryStateDiff is of the contract.
func (q *Query) QueryStateDiff(ctx context.Context, req api.QueryStateDiffRequest) (res api.QueryStateDiffResponse, err error) {
	room, err := q.room(ctx, req.RoomID)
	if err != nil {
		return res, err
	}
	res.Changes, err = q.rooms.Diff(ctx, room.NID, req.From, req.To)
	return res, err
}

// strippedTypes are the types of stripped state (Client-Server API, § Stripped state). The create event comes first: it must be
// there, the others help to show the room.
func strippedTypes() []string {
	return []string{pdu.TypeCreate, "m.room.name", "m.room.avatar", "m.room.topic", pdu.TypeJoinRules, "m.room.canonical_alias", "m.room.encryption"}
}

// QueryStrippedState is of the contract. The member event of who invites comes before that of the user, which is the last.
func (q *Query) QueryStrippedState(ctx context.Context, req api.QueryStrippedStateRequest) (res api.QueryStrippedStateResponse, err error) {
	room, err := q.room(ctx, req.RoomID)
	if err != nil {
		return res, err
	}
	var keys []auth.Key
	for _, eventType := range strippedTypes() {
		keys = append(keys, auth.Key{Type: eventType})
	}
	if req.Sender != "" && req.Sender != req.UserID {
		keys = append(keys, auth.Key{Type: pdu.TypeMember, StateKey: string(req.Sender)})
	}
	keys = append(keys, auth.Key{Type: pdu.TypeMember, StateKey: string(req.UserID)})
	entries, err := q.rooms.NIDs(ctx, room.NID, req.Root, keys)
	if err != nil {
		return res, err
	}
	var nids []stateres.EventNID
	for _, k := range keys {
		if nid, has := entries[k]; has {
			nids = append(nids, nid)
		}
	}
	events, err := q.load(ctx, nids, func(*storage.Event) bool { return true })
	for _, e := range events {
		res.State = append(res.State, e.PDU.Stripped())
	}
	return res, err
}
