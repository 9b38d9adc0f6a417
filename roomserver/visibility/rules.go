package visibility

import (
	"context"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const typeHistoryVisibility = "m.room.history_visibility"

// allows applies the rules (Client-Server API, § Room History Visibility, § Server behaviour).
func (v *View) allows(e *storage.Event, before states) bool {
	if v.all {
		return true
	}
	if e.Outcome != storage.Accepted || !e.InTimeline {
		return false
	}
	// The specification allows those that come from or lead to a membership with access. The others tell their user nothing
	// but what they are in this room, which a client must learn: that an invite was withdrawn, or that they are banned.
	if v.isOwn(e) {
		return true
	}
	is := func(with storage.Visibility) bool { return e.Visibility == with }
	if e.PDU.Is(typeHistoryVisibility, "") {
		after := storage.ParseVisibility(state.ContentString(e.PDU, "history_visibility"))
		is = func(with storage.Visibility) bool { return e.Visibility == with || after == with }
	}
	if is(storage.WorldReadable) {
		return true
	}
	if v.outside() || v.left != nil && e.Order.Compare(v.left.Order) > 0 {
		return false
	}
	// Whoever is joined now has joined after the event, or was joined then; and so has whoever left after it.
	if is(storage.Shared) {
		return true
	}
	membership := v.membershipBefore(e, before)
	return membership == "join" || membership == "invite" && is(storage.Invited)
}

// outside tells whether the viewer sees of the room what everybody sees: they never joined it.
func (v *View) outside() bool { return v.joined == nil && v.left == nil }

// isOwn tells whether this is a member event of the viewer.
func (v *View) isOwn(e *storage.Event) bool { return e.PDU.Is(pdu.TypeMember, string(v.viewer.UserID)) }

func (v *View) memberKey() auth.Key {
	return auth.Key{Type: pdu.TypeMember, StateKey: string(v.viewer.UserID)}
}

// surelyJoined tells whether an event that may be seen anyway comes after the viewer's join, so that nothing need be looked up
// to say that they were joined then. In rooms with a narrower visibility the order does not tell enough: an event of a fork that
// does not know of the join may come after it.
func (v *View) surelyJoined(e *storage.Event) bool {
	return v.joined != nil && v.joined.InTimeline && e.InTimeline && e.Order.Compare(v.joined.Order) > 0 &&
		(e.Visibility == storage.Shared || e.Visibility == storage.WorldReadable)
}

// membershipBefore is what the viewer was at an event, without what the event itself changes.
func (v *View) membershipBefore(e *storage.Event, before states) string {
	if v.surelyJoined(e) {
		return "join"
	}
	if member := before[e.Root][v.memberKey()]; member != nil {
		return member.PDU.Membership()
	}
	return "leave"
}

// states has the entries that were looked up of the states before events.
type states map[api.Root]map[auth.Key]*storage.Event

// lookUp reads of the states before events the viewer's member event, where the rules or the answer need it, and if replaced is
// set what state events replaced.
func (v *View) lookUp(ctx context.Context, events []*storage.Event, replaced bool) (states, error) {
	wanted := make(map[api.Root][]auth.Key)
	membership := make(map[api.Root]bool)
	for _, e := range events {
		if !e.InTimeline || e.Root.IsZero() {
			continue
		}
		if k, is := e.PDU.StateKey(); is && replaced {
			wanted[e.Root] = append(wanted[e.Root], auth.Key{Type: e.PDU.Type(), StateKey: k})
		}
		if !v.all && !v.outside() && !v.isOwn(e) && !v.surelyJoined(e) && !membership[e.Root] {
			membership[e.Root] = true
			wanted[e.Root] = append(wanted[e.Root], v.memberKey())
		}
	}
	if len(wanted) == 0 {
		return states{}, nil
	}
	return v.checker.rooms.AtRoots(ctx, v.room.NID, wanted)
}
