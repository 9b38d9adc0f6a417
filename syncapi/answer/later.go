package answer

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// later is what of a state changes: the new event of each key, nil for a key that is gone.
type later map[roomserver.StateKeyTuple]*roomserver.Event

// keyOf is that under which an event stands in the state. That of an event which is no state event is none there.
func keyOf(e *roomserver.Event) roomserver.StateKeyTuple {
	key, isState := e.PDU.StateKey()
	if !isState {
		return roomserver.StateKeyTuple{}
	}
	return roomserver.StateKeyTuple{Type: e.PDU.Type(), StateKey: key}
}

// over is a state with the changes in it.
func (l later) over(state []*roomserver.Event) []*roomserver.Event {
	changed := make([]*roomserver.Event, 0, len(state)+len(l))
	for _, e := range state {
		if _, has := l[keyOf(e)]; !has {
			changed = append(changed, e)
		}
	}
	for _, e := range l {
		if e != nil {
			changed = append(changed, e)
		}
	}
	return changed
}

// start is the state at the start of the timeline.
func (r *room) start() roomserver.Root {
	if len(r.rows) > 0 {
		return r.rows[0].RootBefore
	}
	return r.root
}

// showsAll tells whether whoever has the state at the start of the timeline and applies its events has that at the end.
// Events that the filter leaves out or the user may not see, and those that state resolution moves, leave a gap between
// the states of two rows.
func (r *room) showsAll() bool {
	at := r.start()
	for i := range r.rows {
		row := &r.rows[i]
		if row.RootBefore != at || row.Has(storage.Complex) {
			return false
		}
		at = row.RootAfter
	}
	if n := len(r.rows); r.own != r.membership && r.own.EventID != "" &&
		(n == 0 || r.rows[n-1].EventID != r.own.EventID) {
		return false
	}
	return at == r.root
}

// mayBeStale tells whether a client that applies the timeline after the state may have a wrong state then.
func (a *answering) mayBeStale(r *room) bool {
	if r.kind == outside {
		return !a.StateAfter && len(r.rows) == 0
	}
	return !a.StateAfter && !r.showsAll()
}

// cutStale cuts a timeline that would leave its client with a wrong state: after the last event that is not the state
// at the end, where the timeline does not show what is. Clients apply the timeline after the state, so that nothing in
// the state can mend that; what is cut they get by paging back.
func (a *answering) cutStale(ctx context.Context, r *room) (err error) {
	if r.later, err = a.laterOf(ctx, r); err != nil {
		return err
	}
	if n := a.stale(r); n > 0 {
		r.cut(n)
		r.later, err = a.laterOf(ctx, r)
	}
	return err
}

// stale is how many events the timeline has up to the last one that is wrong. Where the filter of the state does not
// select what is right, nothing would be won.
func (a *answering) stale(r *room) int {
	shown := make(map[roomserver.StateKeyTuple]bool)
	f := a.Filter.Room.State
	for i := len(r.timeline) - 1; i >= 0; i-- {
		key := keyOf(r.timeline[i])
		if key.Type == "" || shown[key] {
			continue
		}
		shown[key] = true
		right := r.later[key]
		if right != nil && right.PDU.ID() == r.timeline[i].PDU.ID() {
			continue
		}
		if f.MatchesType(key.Type) && (right == nil || f.Matches(right.PDU)) {
			return i + 1
		}
	}
	return 0
}

// laterOf is what the state became between the start of the timeline and its end.
func (a *answering) laterOf(ctx context.Context, r *room) (later, error) {
	changes, err := a.changes(ctx, r, r.start(), r.root)
	if err != nil {
		return nil, err
	}
	own, err := a.ownEvent(ctx, r)
	if own != nil {
		changes[keyOf(own)] = own
	}
	return changes, err
}

// ownEvent is the user's own member event, where it is not that of the state which they see; nil otherwise.
func (a *answering) ownEvent(ctx context.Context, r *room) (*roomserver.Event, error) {
	if r.own == r.membership && r.kind != outside || r.own.EventID == "" {
		return nil, nil
	}
	found, err := a.Events.Get(ctx, []id.EventID{r.own.EventID})
	return found[r.own.EventID], err
}

// changes is what leads from one state of a room to another.
func (a *answering) changes(ctx context.Context, r *room, from, to roomserver.Root) (later, error) {
	changes := make(later)
	if from == to || r.kind == outside {
		return changes, nil
	}
	answer, err := a.Room.QueryStateDiff(ctx, roomserver.QueryStateDiffRequest{RoomID: r.id, From: from, To: to})
	if err != nil {
		return nil, fmt.Errorf("changes of the state of %s: %w", r.id, err)
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
	for i := range answer.Changes {
		c := &answer.Changes[i]
		changes[roomserver.StateKeyTuple{Type: c.Type, StateKey: c.StateKey}] = found[c.New]
	}
	return changes, nil
}
