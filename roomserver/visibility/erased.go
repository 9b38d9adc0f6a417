package visibility

import (
	"context"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// erased are users whose events a viewer sees as redacted where they were not joined when these came.
type erased map[id.UserID]bool

// erased finds, among the senders of visible events, those who were erased before the viewer could see their events (Client-Server API,
// § POST /account/deactivate, erase). Who was joined when the sender was erased, or for the last time before that, keeps what they could
// see.
func (v *View) erased(ctx context.Context, senders map[id.UserID]bool) (erased, error) {
	delete(senders, v.viewer.UserID)
	if len(senders) == 0 {
		return nil, nil
	}
	found, err := v.checker.rooms.Erasures(ctx, v.room.NID, slices.Collect(maps.Keys(senders)))
	if err != nil {
		return nil, err
	}
	hidden := make(erased, len(found))
	wanted := make(map[api.Root][]auth.Key)
	for _, e := range found {
		if v.left == nil || v.left.Order.Compare(e.Last) > 0 {
			hidden[e.UserID] = true
			wanted[e.Root] = []auth.Key{v.memberKey()}
		}
	}
	if v.outside() || len(wanted) == 0 {
		return hidden, nil
	}
	then, err := v.checker.rooms.AtRoots(ctx, v.room.NID, wanted)
	if err != nil {
		return nil, err
	}
	for _, e := range found {
		if m := then[e.Root][v.memberKey()]; m != nil && m.PDU.Membership() == "join" {
			delete(hidden, e.UserID)
		}
	}
	return hidden, nil
}

// before notes the senders of events at which the viewer was not joined.
func (v *View) before(senders map[id.UserID]bool, events []*storage.Event, before states) {
	for _, e := range events {
		if !v.all && before != nil && v.membershipBefore(e, before) != "join" {
			senders[e.PDU.Sender()] = true
		}
	}
}

func (h erased) hides(v *View, e *storage.Event, before states) bool {
	return h[e.PDU.Sender()] && v.membershipBefore(e, before) != "join"
}
