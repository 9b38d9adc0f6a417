package stateres

import (
	"errors"
	"slices"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

// iterativeAuthChecks applies events in order to the state, without those that the rules do not allow (§ Iterative auth
// checks).
func (r *resolver) iterativeAuthChecks(nids []EventNID) error {
	for _, nid := range nids {
		e := r.events[nid]
		key, isState := keyOf(e.PDU)
		if !isState {
			continue // an auth event of hostile making
		}
		allowed, err := r.allowed(e, stateBefore{r, e})
		if err != nil {
			return err
		}
		if allowed {
			r.state[key] = nid
		}
	}
	return nil
}

func (r *resolver) allowed(e *Event, s auth.State) (bool, error) {
	err := auth.Check(e.PDU, s)
	if verdict := (*auth.Error)(nil); errors.As(err, &verdict) {
		return false, nil
	}
	return err == nil, err
}

// current is the entry of the state resolved so far: what was resolved, or in algorithms that begin from there what is
// unconflicted. Unconflicted entries must have been looked up before.
func (r *resolver) current(key auth.Key) *Event {
	if nid, resolved := r.state[key]; resolved {
		return r.events[nid]
	}
	// The create event is implied by the room id of versions whose events do not refer to it.
	if r.props.StateResolution != roomversion.StateResV21 || r.props.RoomIDIsCreateHash && key == (auth.Key{Type: pdu.TypeCreate}) {
		return r.events[r.lookedUp[key]]
	}
	return nil
}

// stateBefore is the state that an event is checked against: the resolved one, and where that has no entry the event's own
// auth events.
type stateBefore struct {
	r *resolver
	e *Event
}

// Get implements auth.State.
func (s stateBefore) Get(key auth.Key) (*pdu.Event, error) {
	if found := s.r.current(key); found != nil {
		return found.PDU, nil
	}
	i := slices.IndexFunc(s.e.Auth, func(nid EventNID) bool {
		a := s.r.events[nid]
		return a != nil && !a.Rejected && a.PDU.Is(key.Type, key.StateKey)
	})
	if i < 0 {
		return nil, nil
	}
	return s.r.events[s.e.Auth[i]].PDU, nil
}
