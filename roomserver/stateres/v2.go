package stateres

import (
	"cmp"
	"container/heap"
	"maps"
	"math"
	"slices"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

// resolveV2 is the algorithm of room versions 2 to 12 (§ State resolution, § Algorithm).
func (r *resolver) resolveV2(sets []StateSet) error {
	conflicted := values(sets)
	if len(conflicted) == 0 {
		return nil
	}
	g, err := loadGraph(r.ctx, r.src, conflicted)
	if err != nil {
		return err
	}
	full, err := r.fullConflictedSet(g, sets)
	if err != nil {
		return err
	}
	if err := r.load(full); err != nil {
		return err
	}
	if err := r.loadAuthEvents(full); err != nil {
		return err
	}
	if err := r.loadForChecks(full, sets); err != nil {
		return err
	}
	// Step 1.
	power, rest, err := r.powerEvents(g, full)
	if err != nil {
		return err
	}
	// Step 2.
	if err := r.iterativeAuthChecks(power); err != nil {
		return err
	}
	// Steps 3 and 4.
	if rest, err = r.mainlineOrder(rest); err != nil {
		return err
	}
	if err := r.iterativeAuthChecks(rest); err != nil {
		return err
	}
	// Step 5: the unconflicted state wins.
	if err := r.lookUp(slices.Collect(maps.Keys(r.state))); err != nil {
		return err
	}
	maps.DeleteFunc(r.state, func(key auth.Key, _ EventNID) bool { return r.lookedUp[key] != 0 })
	return nil
}

// values are the distinct events of states.
func values(sets []StateSet) []EventNID {
	var all []EventNID
	for _, set := range sets {
		for _, nid := range set {
			all = append(all, nid)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// fullConflictedSet is the conflicted state set, the auth difference, and in version 2.1 the conflicted state subgraph.
func (r *resolver) fullConflictedSet(g *graph, sets []StateSet) ([]EventNID, error) {
	var conflicted []int32
	in := make([]bool, len(g.nids))
	chains := make([]int, len(g.nids)) // how many sets' auth chains have the event
	for _, set := range sets {
		from := make([]int32, 0, len(set))
		for _, nid := range set {
			from = append(from, g.index[nid])
		}
		for node, reached := range reach(g.auth, from) {
			if reached {
				chains[node]++
			}
		}
		for _, node := range from {
			if !in[node] {
				in[node] = true
				conflicted = append(conflicted, node)
			}
		}
	}
	if r.props.StateResolution == roomversion.StateResV21 {
		// A path between two conflicted events is what can be reached from one and reaches one.
		below, above := reach(g.auth, conflicted), reach(g.reversed(), conflicted)
		for node := range in {
			in[node] = in[node] || below[node] && above[node]
		}
	}
	var candidates, full []EventNID
	for node, nid := range g.nids {
		switch {
		case in[node]:
			full = append(full, nid)
		case chains[node] > 0 && chains[node] < len(sets):
			candidates = append(candidates, nid)
		}
	}
	if len(candidates) == 0 {
		return full, nil
	}
	// The auth chains are those of the whole states: what an unconflicted event's chain has, all of them have.
	covered, err := r.unconflicted.Covers(r.ctx, candidates)
	if err != nil {
		return nil, err
	}
	for _, nid := range candidates {
		if !covered[nid] {
			full = append(full, nid)
		}
	}
	return full, nil
}

// isPowerEvent is the definition of power events.
func isPowerEvent(e *pdu.Event) bool {
	stateKey, isState := e.StateKey()
	switch e.Type() {
	case pdu.TypePowerLevels, pdu.TypeJoinRules:
		return isState
	case pdu.TypeMember:
		return isState && (e.Membership() == "leave" || e.Membership() == "ban") && stateKey != string(e.Sender())
	}
	return false
}

// powerEvents are the power events of the full conflicted set and what their auth chains have of it, in the reverse
// topological power ordering; and the rest.
func (r *resolver) powerEvents(g *graph, full []EventNID) (power, rest []EventNID, err error) {
	var from []int32
	for _, nid := range full {
		if isPowerEvent(r.events[nid].PDU) {
			from = append(from, g.index[nid])
		}
	}
	chosen := reach(g.auth, from)
	for _, node := range from {
		chosen[node] = true
	}
	inFull := make([]bool, len(g.nids))
	for _, nid := range full {
		node := g.index[nid]
		inFull[node] = true
		if !chosen[node] {
			rest = append(rest, nid)
		}
	}
	power, err = r.powerOrder(g, chosen, inFull)
	return power, rest, err
}

// powerOrder is Kahn's algorithm over a set of events that is closed under auth events. Those that are listed take their turn
// by the comparison relation; the others only pass on the order between listed ones.
func (r *resolver) powerOrder(g *graph, nodes, listed []bool) ([]EventNID, error) {
	waiting := make([]int, len(g.nids)) // auth events that are not yet in order
	children := make([][]int32, len(g.nids))
	left := 0
	for node := range g.nids {
		if !nodes[node] {
			continue
		}
		left++
		waiting[node] = len(g.auth[node])
		for _, parent := range g.auth[node] {
			children[parent] = append(children[parent], int32(node))
		}
	}
	ready := &powerHeap{}
	var free []int32
	release := func(node int32) {
		if listed[node] {
			heap.Push(ready, r.powerKey(g.nids[node], node))
		} else {
			free = append(free, node)
		}
	}
	for node := range g.nids {
		if nodes[node] && waiting[node] == 0 {
			release(int32(node))
		}
	}
	var ordered []EventNID
	for len(free) > 0 || ready.Len() > 0 {
		var node int32
		if n := len(free); n > 0 {
			node, free = free[n-1], free[:n-1]
		} else {
			node = heap.Pop(ready).(powerKey).node
			ordered = append(ordered, g.nids[node])
		}
		left--
		for _, child := range children[node] {
			if waiting[child]--; waiting[child] == 0 {
				release(child)
			}
		}
	}
	if left > 0 {
		return nil, ErrCycle
	}
	return ordered, nil
}

// powerKey is what the reverse topological power ordering compares.
type powerKey struct {
	level int64
	e     *pdu.Event
	node  int32
}

// powerKey looks up the sender's power level in the event's auth events.
func (r *resolver) powerKey(nid EventNID, node int32) powerKey {
	e := r.events[nid]
	create, powerLevels := r.authEvent(e, pdu.TypeCreate), r.authEvent(e, pdu.TypePowerLevels)
	if r.props.RoomIDIsCreateHash {
		create = r.events[r.lookedUp[auth.Key{Type: pdu.TypeCreate}]]
	}
	return powerKey{auth.LevelsFrom(pduOf(create), pduOf(powerLevels)).User(e.PDU.Sender()), e.PDU, node}
}

func pduOf(e *Event) *pdu.Event {
	if e == nil {
		return nil
	}
	return e.PDU
}

// authEvent is the auth event of a type that is a single one in the room.
func (r *resolver) authEvent(e *Event, eventType string) *Event {
	for _, nid := range e.Auth {
		if a := r.events[nid]; a != nil && a.PDU.Is(eventType, "") {
			return a
		}
	}
	return nil
}

type powerHeap []powerKey

func (h powerHeap) Len() int      { return len(h) }
func (h powerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *powerHeap) Push(x any)   { *h = append(*h, x.(powerKey)) }
func (h *powerHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
func (h powerHeap) Less(i, j int) bool {
	return cmp.Or(-cmp.Compare(h[i].level, h[j].level), compareTime(h[i].e, h[j].e)) < 0
}

// compareTime is the end of both orderings.
func compareTime(a, b *pdu.Event) int {
	return cmp.Or(cmp.Compare(a.OriginServerTS(), b.OriginServerTS()), cmp.Compare(a.ID(), b.ID()))
}

// notInMainline is the position of events whose power levels have nothing in common with the mainline.
const notInMainline = math.MaxInt

// mainlineOrder sorts events by the mainline of the power levels that are resolved so far.
func (r *resolver) mainlineOrder(nids []EventNID) ([]EventNID, error) {
	positions, err := r.mainline()
	if err != nil {
		return nil, err
	}
	if err := r.positionsOf(nids, positions); err != nil {
		return nil, err
	}
	type placed struct {
		nid      EventNID
		position int
		e        *pdu.Event
	}
	list := make([]placed, len(nids))
	for i, nid := range nids {
		e := r.events[nid]
		list[i] = placed{nid, notInMainline, e.PDU}
		if p := r.authEvent(e, pdu.TypePowerLevels); p != nil {
			list[i].position = positions[p.NID]
		}
	}
	slices.SortFunc(list, func(a, b placed) int {
		return cmp.Or(-cmp.Compare(a.position, b.position), compareTime(a.e, b.e))
	})
	ordered := make([]EventNID, len(list))
	for i := range list {
		ordered[i] = list[i].nid
	}
	return ordered, nil
}

// mainline numbers the power levels from the resolved ones back to the first.
func (r *resolver) mainline() (map[EventNID]int, error) {
	positions := map[EventNID]int{}
	at := r.current(auth.Key{Type: pdu.TypePowerLevels})
	for at != nil {
		if _, seen := positions[at.NID]; seen {
			return nil, ErrCycle
		}
		positions[at.NID] = len(positions)
		if err := r.load(at.Auth); err != nil {
			return nil, err
		}
		at = r.authEvent(at, pdu.TypePowerLevels)
	}
	return positions, nil
}

// positionsOf adds the positions of all power levels that the events' chains of power levels pass through on the way to the
// mainline. Each is looked at once, whatever the number of events that lead to it.
func (r *resolver) positionsOf(nids []EventNID, positions map[EventNID]int) error {
	next := map[EventNID]EventNID{} // from one m.room.power_levels to the one before; 0 at the end
	var frontier []*Event
	for _, nid := range nids {
		if p := r.authEvent(r.events[nid], pdu.TypePowerLevels); p != nil {
			frontier = append(frontier, p)
		}
	}
	starts := frontier
	for len(frontier) > 0 {
		var found []*Event
		var load []EventNID
		for _, p := range frontier {
			_, placed := positions[p.NID]
			if _, seen := next[p.NID]; !placed && !seen {
				next[p.NID] = 0
				found = append(found, p)
				load = append(load, p.Auth...)
			}
		}
		if err := r.load(load); err != nil {
			return err
		}
		frontier = nil
		for _, p := range found {
			if before := r.authEvent(p, pdu.TypePowerLevels); before != nil {
				next[p.NID] = before.NID
				frontier = append(frontier, before)
			}
		}
	}
	for _, p := range starts {
		var path []EventNID
		position := notInMainline
		for at := p.NID; at != 0; at = next[at] {
			if known, placed := positions[at]; placed {
				position = known
				break
			}
			path = append(path, at)
			if len(path) > len(next) {
				return ErrCycle
			}
		}
		for _, at := range path {
			positions[at] = position
		}
	}
	return nil
}
