// Package stateres is state resolution (Room Versions, § State resolution of each version): it merges the states of a room
// that its forks have led to.
//
// Three algorithms exist: that of room version 1, version 2 (room versions 2 to 11), and version 2 as room version 12 changes
// it, "2.1" here. They work on numeric event ids, and ask for events in batches, through Source. Events that are the same in
// all states are not looked at, except for those that an authorization check needs; so a large room costs no more than a small
// one. The result depends on the states alone, not on the order in which they or their entries are given.
//
// Auth events that are absent, or that form a cycle, are an error; no input makes the package panic or take more than
// O(n log n) steps for n events of the conflicted part and their auth chains.
package stateres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

// EventNID is the numeric id of an event. It is positive.
type EventNID int64

// Event is an event with the numeric ids of its auth events.
type Event struct {
	NID      EventNID
	PDU      *pdu.Event
	Auth     []EventNID
	Rejected bool
}

// Source loads events of the room.
type Source interface {
	// Events returns these events, in any order.
	Events(context.Context, []EventNID) ([]Event, error)
	// Auth returns the auth events of each of these events, in the order asked. It is for walking auth chains, which can be
	// long; the events themselves are not needed there.
	Auth(context.Context, []EventNID) ([][]EventNID, error)
}

// Unconflicted is the part of the states that is the same in all of them.
type Unconflicted interface {
	// Get returns the entries with these keys; those that it does not have are left out.
	Get(context.Context, []auth.Key) (map[auth.Key]EventNID, error)
	// Covers tells which of these events are in the auth chain of any entry. The function Covers does it for a list of
	// entries.
	Covers(context.Context, []EventNID) (map[EventNID]bool, error)
}

// StateSet is a room state, or a part of one.
type StateSet = map[auth.Key]EventNID

var (
	// ErrMissing says that an event is referred to and absent. The resolution may succeed when it has been fetched.
	ErrMissing = errors.New("an event is missing")
	// ErrCycle says that events are in their own auth chain.
	ErrCycle = errors.New("the auth events form a cycle")
)

// Resolve merges whole states.
func Resolve(ctx context.Context, v id.RoomVersion, sets []StateSet, src Source) (StateSet, error) {
	unconflicted, conflicted := split(sets)
	result, err := ResolveConflicted(ctx, v, conflicted, &inMemory{unconflicted, src}, src)
	if err != nil {
		return nil, err
	}
	for key, nid := range unconflicted {
		result[key] = nid
	}
	return result, nil
}

// ResolveConflicted merges the parts in which states differ. sets are the conflicted entries of each state: a key is in one of
// them if its value is not the same in all states, or if it is absent from some. The result has the entries of keys that are
// not unconflicted; a conflicted key that it lacks has no entry in the merged state.
func ResolveConflicted(ctx context.Context, v id.RoomVersion, sets []StateSet, u Unconflicted, src Source) (StateSet, error) {
	props, known := roomversion.Get(v)
	if !known {
		return nil, fmt.Errorf("resolving state: room version %q is not supported", v)
	}
	r := resolver{
		ctx: ctx, props: props, src: src, unconflicted: u,
		events: map[EventNID]*Event{}, state: StateSet{}, lookedUp: map[auth.Key]EventNID{},
	}
	var err error
	if props.StateResolution == roomversion.StateResV1 {
		err = r.resolveV1(sets)
	} else {
		err = r.resolveV2(sets)
	}
	if err != nil {
		return nil, fmt.Errorf("resolving state of a room of version %s: %w", v, err)
	}
	return r.state, nil
}

// split separates what all states agree on. Each conflicted set has the entries of one state.
func split(sets []StateSet) (unconflicted StateSet, conflicted []StateSet) {
	unconflicted = StateSet{}
	conflicted = make([]StateSet, len(sets))
	agree := map[auth.Key]int{}
	for i, set := range sets {
		conflicted[i] = StateSet{}
		for key, nid := range set {
			if sets[0][key] == nid {
				agree[key]++
			}
		}
	}
	for i, set := range sets {
		for key, nid := range set {
			if agree[key] == len(sets) {
				unconflicted[key] = nid
			} else {
				conflicted[i][key] = nid
			}
		}
	}
	return unconflicted, conflicted
}

// inMemory is the unconflicted part of states that are wholly in memory.
type inMemory struct {
	entries StateSet
	src     Source
}

func (m *inMemory) Get(_ context.Context, keys []auth.Key) (map[auth.Key]EventNID, error) {
	found := make(map[auth.Key]EventNID, len(keys))
	for _, key := range keys {
		if nid, is := m.entries[key]; is {
			found[key] = nid
		}
	}
	return found, nil
}

func (m *inMemory) Covers(ctx context.Context, candidates []EventNID) (map[EventNID]bool, error) {
	entries := make([]EventNID, 0, len(m.entries))
	for _, nid := range m.entries {
		entries = append(entries, nid)
	}
	return Covers(ctx, entries, candidates, m.src)
}

// resolver is one resolution.
type resolver struct {
	ctx          context.Context
	props        *roomversion.Properties
	src          Source
	unconflicted Unconflicted
	events       map[EventNID]*Event   // loaded
	lookedUp     map[auth.Key]EventNID // unconflicted entries that were asked for; 0 for absent
	state        StateSet              // resolved so far, without what is unconflicted
}

// load makes sure that these events are in memory.
func (r *resolver) load(nids []EventNID) error {
	var wanted []EventNID
	asked := make(map[EventNID]bool, len(nids))
	for _, nid := range nids {
		if r.events[nid] == nil && !asked[nid] {
			asked[nid] = true
			wanted = append(wanted, nid)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	loaded, err := r.src.Events(r.ctx, wanted)
	if err != nil {
		return err
	}
	for i := range loaded {
		if loaded[i].PDU != nil {
			r.events[loaded[i].NID] = &loaded[i]
		}
	}
	for _, nid := range wanted {
		if r.events[nid] == nil {
			return fmt.Errorf("event number %d: %w", nid, ErrMissing)
		}
	}
	return nil
}

// lookUp makes sure that the unconflicted entries with these keys are known and in memory.
func (r *resolver) lookUp(keys []auth.Key) error {
	var wanted []auth.Key
	for _, key := range keys {
		if _, known := r.lookedUp[key]; !known {
			r.lookedUp[key] = 0
			wanted = append(wanted, key)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	found, err := r.unconflicted.Get(r.ctx, wanted)
	if err != nil {
		return err
	}
	nids := make([]EventNID, 0, len(found))
	for key, nid := range found {
		r.lookedUp[key] = nid
		nids = append(nids, nid)
	}
	return r.load(nids)
}

// loadForChecks loads the unconflicted entries that checking these events can need.
func (r *resolver) loadForChecks(nids []EventNID, sets []StateSet) error {
	create := auth.Key{Type: pdu.TypeCreate}
	keys := []auth.Key{create, {Type: pdu.TypePowerLevels}}
	for _, nid := range nids {
		keys = append(keys, auth.Needed(r.events[nid].PDU)...)
	}
	if err := r.lookUp(keys); err != nil {
		return err
	}
	if r.lookedUp[create] == 0 && !slices.ContainsFunc(sets, func(s StateSet) bool { return s[create] != 0 }) {
		return fmt.Errorf("the room's m.room.create: %w", ErrMissing)
	}
	return nil
}

// loadAuthEvents loads the auth events of events.
func (r *resolver) loadAuthEvents(nids []EventNID) error {
	var all []EventNID
	for _, nid := range nids {
		all = append(all, r.events[nid].Auth...)
	}
	return r.load(all)
}

// keyOf is the state key of an event; false if it is no state event.
func keyOf(e *pdu.Event) (auth.Key, bool) {
	stateKey, is := e.StateKey()
	return auth.Key{Type: e.Type(), StateKey: stateKey}, is
}
