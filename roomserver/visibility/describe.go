package visibility

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// describe makes of events that the viewer may see what they get of them. before has the states before them, as far as they are
// to be looked at.
func (v *View) describe(ctx context.Context, seen []*storage.Event, before states) ([]api.Event, error) {
	redactions, err := v.redactions(ctx, seen)
	if err != nil {
		return nil, err
	}
	// The events that come with others are for the same viewer's eyes, and follow the same rules.
	beside := make([]*storage.Event, 0, len(redactions))
	for _, e := range redactions {
		beside = append(beside, e)
	}
	for _, e := range seen {
		if replaced := replacedBy(e, before); replaced != nil && v.membershipBefore(e, before) != "join" {
			beside = append(beside, replaced)
		}
	}
	besideBefore, err := v.lookUp(ctx, beside, false)
	if err != nil {
		return nil, err
	}
	senders := make(map[id.UserID]bool)
	v.before(senders, seen, before)
	v.before(senders, beside, besideBefore)
	gone, err := v.erased(ctx, senders)
	if err != nil {
		return nil, err
	}
	out := make([]api.Event, len(seen))
	for i, e := range seen {
		o := api.Event{PDU: e.PDU, Order: e.Order, Membership: v.membershipAt(e, before)}
		if v.viewer.UserID == "" || v.viewer.UserID == e.PDU.Sender() {
			o.DeviceID, o.TransactionID = e.DeviceID, e.TransactionID
		}
		if r := redactions[e.RedactedBy]; r != nil {
			o.RedactedBecause = r.PDU
			if !v.allows(r, besideBefore) || gone.hides(v, r, besideBefore) {
				o.RedactedBecause = r.PDU.Redact() // that it was redacted, but not the reason
			}
		}
		if replaced := replacedBy(e, before); replaced != nil {
			o.ReplacesState = replaced.PDU.ID()
			if v.membershipBefore(e, before) == "join" || v.allows(replaced, besideBefore) && !gone.hides(v, replaced, besideBefore) {
				o.PrevContent = replaced.PDU.Content()
			}
		}
		if gone.hides(v, e, before) {
			o.PDU = e.PDU.Redact()
		}
		out[i] = o
	}
	return out, nil
}

// redactions reads the events that redacted these.
func (v *View) redactions(ctx context.Context, events []*storage.Event) (map[id.EventID]*storage.Event, error) {
	var ids []id.EventID
	for _, e := range events {
		if e.RedactedBy != "" {
			ids = append(ids, e.RedactedBy)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return v.checker.rooms.EventsByID(ctx, ids, true)
}

// replacedBy is the state event that a state event replaced; nil if there was none, or if nobody looked.
func replacedBy(e *storage.Event, before states) *storage.Event {
	k, is := e.PDU.StateKey()
	if !is {
		return nil
	}
	return before[e.Root][auth.Key{Type: e.PDU.Type(), StateKey: k}]
}

// membershipAt is what the viewer was at an event, with what the event itself changed (unsigned.membership); empty where nobody
// looked.
func (v *View) membershipAt(e *storage.Event, before states) string {
	switch {
	case v.all || before == nil && !v.outside() && !v.surelyJoined(e):
		return ""
	case e.PDU.Type() == pdu.TypeMember && v.isOwn(e):
		return e.PDU.Membership()
	}
	return v.membershipBefore(e, before)
}
