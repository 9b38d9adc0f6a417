package stateres_test

import (
	"cmp"
	"slices"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

type set = map[nid]bool

// reference is the algorithm of room versions 2 to 12 as the specification words it, definition by definition, without a thought
// for cost.
func (r *room) reference(states []state) state {
	unconflicted, conflicted := state{}, set{}
	for _, s := range states {
		for key, n := range s {
			if slices.ContainsFunc(states, func(other state) bool { return other[key] != n }) {
				conflicted[n] = true
			} else {
				unconflicted[key] = n
			}
		}
	}
	full := set{}
	for n := range conflicted {
		full[n] = true
	}
	// Auth difference.
	chains := make([]set, len(states))
	for i, s := range states {
		chains[i] = set{}
		for _, n := range s {
			for a := range r.chain(n) {
				chains[i][a] = true
			}
		}
	}
	for _, chain := range chains {
		for n := range chain {
			if slices.ContainsFunc(chains, func(other set) bool { return !other[n] }) {
				full[n] = true
			}
		}
	}
	if r.props.StateResolution == roomversion.StateResV21 {
		// Conflicted state subgraph.
		for n := range conflicted {
			for a := range r.chain(n) {
				for end := range r.chain(a) {
					if conflicted[end] {
						full[a] = true
					}
				}
			}
		}
	}
	// Step 1.
	x := set{}
	for n := range full {
		if e := r.pdu(n); isPower(e) {
			x[n] = true
			for a := range r.chain(n) {
				if full[a] {
					x[a] = true
				}
			}
		}
	}
	start := state{}
	if r.props.StateResolution != roomversion.StateResV21 {
		start = unconflicted
	}
	result := state{}
	for key, n := range start {
		result[key] = n
	}
	// Steps 2 to 5.
	r.apply(result, r.powerOrdering(x), unconflicted)
	var rest []nid
	for n := range full {
		if !x[n] {
			rest = append(rest, n)
		}
	}
	mainline := []nid{}
	for p := result[auth.Key{Type: pdu.TypePowerLevels}]; p != 0; p = r.cited(p, pdu.TypePowerLevels) {
		mainline = append(mainline, p)
	}
	position := func(n nid) int {
		for n = r.cited(n, pdu.TypePowerLevels); n != 0; n = r.cited(n, pdu.TypePowerLevels) {
			if i := slices.Index(mainline, n); i >= 0 {
				return i
			}
		}
		return 1 << 30
	}
	slices.SortFunc(rest, func(a, b nid) int { return cmp.Or(-cmp.Compare(position(a), position(b)), r.byTime(a, b)) })
	r.apply(result, rest, unconflicted)
	for key, n := range unconflicted {
		result[key] = n
	}
	return result
}

func (r *room) chain(n nid) set {
	chain := set{}
	for todo := r.events[n-1].Auth; len(todo) > 0; todo = todo[1:] {
		if !chain[todo[0]] {
			chain[todo[0]] = true
			todo = append(slices.Clone(todo), r.events[todo[0]-1].Auth...)
		}
	}
	return chain
}

func isPower(e *pdu.Event) bool {
	stateKey, _ := e.StateKey()
	return e.Type() == pdu.TypePowerLevels || e.Type() == pdu.TypeJoinRules ||
		e.Type() == pdu.TypeMember && (e.Membership() == "leave" || e.Membership() == "ban") && stateKey != string(e.Sender())
}

func (r *room) cited(n nid, eventType string) nid {
	for _, a := range r.events[n-1].Auth {
		if r.pdu(a).Is(eventType, "") {
			return a
		}
	}
	return 0
}

func (r *room) byTime(a, b nid) int {
	return cmp.Or(cmp.Compare(r.pdu(a).OriginServerTS(), r.pdu(b).OriginServerTS()), cmp.Compare(r.pdu(a).ID(), r.pdu(b).ID()))
}

func (r *room) powerOrdering(x set) []nid {
	level := func(n nid) int64 {
		var create, powerLevels *pdu.Event
		if a := r.cited(n, pdu.TypeCreate); a != 0 {
			create = r.pdu(a)
		} else if r.props.RoomIDIsCreateHash {
			create = r.pdu(1)
		}
		if a := r.cited(n, pdu.TypePowerLevels); a != 0 {
			powerLevels = r.pdu(a)
		}
		return auth.LevelsFrom(create, powerLevels).User(r.pdu(n).Sender())
	}
	var ordered []nid
	for done := (set{}); len(ordered) < len(x); {
		var next nid
		for n := range x {
			ready := !done[n]
			for a := range r.chain(n) {
				ready = ready && (!x[a] || done[a])
			}
			if ready && (next == 0 || cmp.Or(-cmp.Compare(level(n), level(next)), r.byTime(n, next)) < 0) {
				next = n
			}
		}
		done[next] = true
		ordered = append(ordered, next)
	}
	return ordered
}

// apply is the iterative auth checks algorithm.
func (r *room) apply(s state, nids []nid, unconflicted state) {
	for _, n := range nids {
		before := r.view(s)
		for _, a := range r.events[n-1].Auth {
			stateKey, _ := r.pdu(a).StateKey()
			if key := (auth.Key{Type: r.pdu(a).Type(), StateKey: stateKey}); before[key] == nil && !r.events[a-1].Rejected {
				before[key] = r.pdu(a)
			}
		}
		if create := (auth.Key{Type: pdu.TypeCreate}); before[create] == nil && r.props.RoomIDIsCreateHash {
			before[create] = r.pdu(1) // implied by the room id
		}
		if auth.Check(r.pdu(n), before) == nil {
			stateKey, _ := r.pdu(n).StateKey()
			s[auth.Key{Type: r.pdu(n).Type(), StateKey: stateKey}] = n
		}
	}
}
