package events

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const typeMember = "m.room.member"

// maxStateKept is how many events a state may have that is kept.
const maxStateKept = 2000

type stateKey struct {
	room id.RoomID
	root roomserver.Root
}

// keptState is what is known of a state. It never changes: one that knows more takes its place.
type keptState struct {
	events []*roomserver.Event
	// members has the member events that were asked for, where events is without them; nil for users who have none.
	members map[id.UserID]*roomserver.Event
	whole   bool // events is with all members
}

func (s *keptState) count() int { return len(s.events) + len(s.members) }

func stateSize(k stateKey, s *keptState) int {
	n := len(k.room) + int(unsafe.Sizeof(*s)) + s.count()*int(unsafe.Sizeof(s.events[0]))
	for _, e := range s.events {
		n += e.Size()
	}
	for user, e := range s.members {
		n += 2*int(unsafe.Sizeof(user)) + len(user)
		if e != nil {
			n += e.Size()
		}
	}
	return n
}

// lacks are those of the users of whom it is not known whether they are members.
func (s *keptState) lacks(users []id.UserID) (unknown []id.UserID) {
	if s.whole {
		return nil
	}
	for _, user := range users {
		if _, known := s.members[user]; !known && !slices.Contains(unknown, user) {
			unknown = append(unknown, user)
		}
	}
	return unknown
}

// with is the state, of whose members those are known as well that these users were asked for.
func (s *keptState) with(users []id.UserID, found []*roomserver.Event) *keptState {
	more := &keptState{events: s.events, members: make(map[id.UserID]*roomserver.Event, len(s.members)+len(users))}
	maps.Copy(more.members, s.members)
	for _, user := range users {
		more.members[user] = nil
	}
	for _, e := range found {
		user, _ := e.PDU.StateKey()
		more.members[id.UserID(user)] = e
	}
	return more
}

// lazily is the state with the member events of these users only. All of them are known.
func (s *keptState) lazily(users []id.UserID) []*roomserver.Event {
	if s.whole {
		return slices.DeleteFunc(slices.Clone(s.events), func(e *roomserver.Event) bool {
			user, _ := e.PDU.StateKey()
			return e.PDU.Type() == typeMember && !slices.Contains(users, id.UserID(user))
		})
	}
	some := make([]*roomserver.Event, 0, len(s.events)+len(users))
	some = append(some, s.events...)
	for i, user := range users {
		if e := s.members[user]; e != nil && !slices.Contains(users[:i], user) {
			some = append(some, e)
		}
	}
	return some
}

// State returns the state of a room at a root. With lazy members, only the member events of these users are among it.
func (c *Cache) State(
	ctx context.Context, room id.RoomID, root roomserver.Root, lazy bool, members []id.UserID,
) ([]*roomserver.Event, error) {
	if root.IsZero() {
		return nil, nil
	}
	key := stateKey{room, root}
	drops := c.dropped()
	kept, has := c.state.Get(key)
	switch {
	case !lazy && has && kept.whole:
		return kept.events, nil
	case !lazy:
		state, err := c.queryState(ctx, roomserver.QueryStateRequest{RoomID: room, Root: &root})
		c.keepState(drops, key, &keptState{events: state, whole: true}, err)
		return state, err
	case has:
		if unknown := kept.lacks(members); len(unknown) > 0 {
			found, err := c.Members(ctx, room, root, unknown)
			if err != nil {
				return nil, err
			}
			kept = kept.with(unknown, found)
			c.keepState(drops, key, kept, nil)
		}
		return kept.lazily(members), nil
	}
	state, err := c.queryState(ctx, roomserver.QueryStateRequest{RoomID: room, Root: &root, Members: members,
		Filter: &roomserver.EventFilter{LazyLoadMembers: true}})
	if err != nil {
		return nil, err
	}
	isMember := func(e *roomserver.Event) bool { return e.PDU.Type() == typeMember }
	found := slices.DeleteFunc(slices.Clone(state), func(e *roomserver.Event) bool { return !isMember(e) })
	others := &keptState{events: slices.DeleteFunc(slices.Clone(state), isMember)}
	c.keepState(drops, key, others.with(members, found), nil)
	return state, nil
}

// keepState keeps a state, unless something was forgotten since.
func (c *Cache) keepState(drops int64, key stateKey, state *keptState, err error) {
	if err == nil && state.count() <= maxStateKept {
		c.keep(drops, func() { c.state.Add(key, state) })
	}
}

// Members returns member events of users at a root.
func (c *Cache) Members(ctx context.Context, room id.RoomID, root roomserver.Root, users []id.UserID) ([]*roomserver.Event, error) {
	if len(users) == 0 || root.IsZero() {
		return nil, nil
	}
	keys := make([]roomserver.StateKeyTuple, len(users))
	for i, user := range users {
		keys[i] = roomserver.StateKeyTuple{Type: typeMember, StateKey: string(user)}
	}
	return c.queryState(ctx, roomserver.QueryStateRequest{RoomID: room, Root: &root, Keys: keys})
}

func (c *Cache) queryState(ctx context.Context, req roomserver.QueryStateRequest) ([]*roomserver.Event, error) {
	answer, err := c.room.QueryState(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", req.RoomID, err)
	}
	state := make([]*roomserver.Event, len(answer.Events))
	for i := range answer.Events {
		state[i] = &answer.Events[i]
	}
	return state, nil
}
