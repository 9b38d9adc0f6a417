package input

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

func change(k auth.Key, before, after *storage.Event) api.StateChange {
	return state.Change(k, before, after)
}

// redact applies a redaction to its target, if the target is here and the redaction takes effect (Room Versions, § Handling
// redactions). A target that has not come yet is remembered.
func (in *Input) redact(ctx context.Context, d *draft, e *storage.NewEvent) (id.EventID, error) {
	if e.PDU.IsState() {
		return "", nil
	}
	targetID, err := id.ParseEventID(string(e.PDU.Redacts()))
	if err != nil {
		return "", nil // it redacts nothing that could exist
	}
	target, err := in.event(ctx, d, targetID)
	if err != nil {
		return "", err
	}
	if target == nil {
		d.pending = append(d.pending, storage.PendingRedaction{Target: targetID, Redaction: e.PDU.ID()})
		return "", nil
	}
	may, err := d.mayRedact(ctx, e.PDU, target)
	if err != nil || !may {
		return "", err
	}
	return targetID, d.applyRedaction(ctx, target, e.PDU.ID())
}

func (d *draft) applyRedaction(ctx context.Context, target *storage.Event, by id.EventID) error {
	if target.RedactedBy != "" {
		return nil // the first one counts
	}
	redacted := *target
	redacted.PDU, redacted.RedactedBy = target.PDU.Redact(), by
	if k, is := keyOf(target.PDU); is {
		now, err := d.One(ctx, k.Type, k.StateKey)
		if err != nil {
			return err
		}
		if now != nil && now.NID == target.NID {
			d.changed.put(k, &redacted)
			d.summary = d.summary || k.StateKey == "" && state.InSummary(k.Type)
		}
	}
	d.redacting = append(d.redacting, redaction{&redacted, by, target.PDU.Relation().Type != ""})
	d.redacted = append(d.redacted, &redacted)
	d.byID.put(target.PDU.ID(), &redacted)
	for i, e := range d.events {
		if e.NID == target.NID { // of the same transaction: it is written in its redacted form
			output := *e.Output
			output.Event = redacted.PDU
			d.events = slices.Clone(d.events) // a mark may have the others
			d.events[i] = &storage.NewEvent{Event: redacted, RequestKey: e.RequestKey, Output: &output}
		}
	}
	return nil
}

// mayRedact tells whether a redaction takes effect: it is by the sender's own server, or by who may redact the events of others.
func (d *draft) mayRedact(ctx context.Context, r *pdu.Event, target *storage.Event) (bool, error) {
	if target.RoomNID != d.room.NID || target.PDU.Type() == pdu.TypeCreate && target.PDU.IsState() {
		return false, nil
	}
	if r.Sender().Server() == target.PDU.Sender().Server() {
		return true, nil
	}
	levels, err := PowerLevels(ctx, d)
	return err == nil && levels.User(r.Sender()) >= levels.Redact(), err
}

// PowerLevels reads the levels of a room's current state.
func PowerLevels(ctx context.Context, v View) (*auth.PowerLevels, error) {
	create, levels := auth.Key{Type: pdu.TypeCreate}, auth.Key{Type: pdu.TypePowerLevels}
	found, err := v.State(ctx, create, levels)
	if err != nil {
		return nil, err
	}
	body := func(e *storage.Event) *pdu.Event {
		if e == nil {
			return nil
		}
		return e.PDU
	}
	return auth.LevelsFrom(body(found[create]), body(found[levels])), nil
}

// event finds an event of this draft or of the database; nil if there is none.
func (in *Input) event(ctx context.Context, d *draft, eventID id.EventID) (*storage.Event, error) {
	if e, has := d.byID.now[eventID]; has {
		return e, nil
	}
	found, err := in.Reader.EventsByID(ctx, []id.EventID{eventID}, true)
	return found[eventID], err
}
