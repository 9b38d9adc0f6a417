package input

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// received is a PDU of another server on its way through the checks.
type received struct {
	origin  id.ServerName
	event   *pdu.Event
	outlier bool // it is wanted for what refers to it; its place in the room is not known
	staged  bool // it waits in the table already
	result  api.InputPDUResult
	decided bool
	failed  error // why it could not be checked now
}

func (r *received) decide(outcome string, why error) {
	r.decided = true
	r.result.Outcome, r.result.Error = outcome, ""
	if why != nil {
		r.result.Error = why.Error()
	}
}

// InputPDUs takes events that another server sent. Each is stored, rejected, staged or dropped before it answers. An error says that some
// could not be checked now, and must be sent again; the others are taken all the same.
func (in *Input) InputPDUs(ctx context.Context, req api.InputPDUsRequest) (api.InputPDUsResponse, error) {
	room, err := in.Reader.Room(ctx, req.RoomID)
	if err != nil {
		return api.InputPDUsResponse{}, err
	}
	all := make([]*received, len(req.PDUs))
	for i, raw := range req.PDUs {
		all[i] = &received{origin: req.Origin}
		if room == nil {
			all[i].decide(api.OutcomeInvalid, errors.New("this server is not in the room"))
			continue
		}
		all[i].failed = in.receive(ctx, room, all[i], raw)
	}
	if err := in.take(ctx, req.RoomID, all); err != nil {
		return api.InputPDUsResponse{}, err
	}
	response := api.InputPDUsResponse{Results: make([]api.InputPDUResult, len(all))}
	for i, r := range all {
		response.Results[i] = r.result
	}
	return response, nil
}

// take hands PDUs that have passed the checks which need no room to the room's worker.
func (in *Input) take(ctx context.Context, roomID id.RoomID, all []*received) error {
	open := slices.DeleteFunc(slices.Clone(all), func(r *received) bool { return r.decided || r.failed != nil })
	if len(open) > 0 {
		more, err := in.submit(ctx, roomID, &job{run: func(ctx context.Context, d *draft) (any, error) {
			for _, r := range open {
				r.decided = false
				r.failed = in.checkOne(ctx, d, r)
			}
			if len(d.events)+len(d.aside) == 0 {
				return false, nil // nothing has come that a staged event could have waited for
			}
			return in.takeStaged(ctx, d)
		}})
		if err != nil {
			return err
		}
		if more == true {
			if err := in.takeAllStaged(ctx, roomID); err != nil {
				return err
			}
		}
	}
	var failed []error
	for _, r := range all {
		failed = append(failed, r.failed)
	}
	return errors.Join(failed...)
}

// checkOne is check, leaving no trace in the draft of an event that could not be checked.
func (in *Input) checkOne(ctx context.Context, d *draft, r *received) error {
	before := d.mark()
	err := in.check(ctx, d, r)
	if err != nil {
		d.undo(before)
		return fmt.Errorf("event %s could not be checked: %w", r.event.ID(), err)
	}
	return nil
}

// receive applies steps 1 to 3, outside the room's worker: they may ask other servers for keys.
func (in *Input) receive(ctx context.Context, room *storage.Room, r *received, raw json.RawMessage) error {
	// Step 1: it is a valid event.
	event, err := pdu.Parse(room.Version, raw)
	if err != nil {
		r.decide(api.OutcomeInvalid, fmt.Errorf("step 1: %w", err))
		return nil
	}
	r.event, r.result.EventID = event, event.ID()
	if event.RoomID() != room.ID {
		r.decide(api.OutcomeInvalid, errors.New("step 1: it is an event of another room"))
		return nil
	}
	// Step 2: it passes signature checks.
	if in.Keys == nil {
		return mxerr.Forbidden("this server does not federate yet")
	}
	if err := in.Keys.VerifyPDU(ctx, event); err != nil {
		if _, verdict := errors.AsType[*InvalidSignature](err); verdict {
			r.decide(api.OutcomeInvalid, fmt.Errorf("step 2: %w", err))
			return nil
		}
		return fmt.Errorf("signatures of %s could not be checked: %w", event.ID(), err)
	}
	// Step 3: it passes hash checks, otherwise it is redacted.
	if !event.CheckContentHash() {
		r.event = event.Redact()
	}
	return nil
}

// check applies steps 4 to 7 and puts the event where it belongs. An error means that it could not be checked now.
func (in *Input) check(ctx context.Context, d *draft, r *received) error {
	known, err := in.event(ctx, d, r.event.ID())
	if err != nil {
		return err
	}
	var nid stateres.EventNID
	if known != nil {
		if r.outlier || known.Outcome != storage.Outlier && known.Outcome != storage.RejectedOutlier {
			r.decide(outcomeName(known.Outcome), nil)
			d.done(r)
			return nil
		}
		if known.PDU.ReferenceHash() != r.event.ReferenceHash() { // in room versions whose event ids are no hashes
			r.decide(api.OutcomeInvalid, errors.New("step 1: it has the id of another event"))
			d.done(r)
			return nil
		}
		nid = known.NID // the one transition that there is: from an outlier to an event with a place
	}
	refs, err := in.references(ctx, d, r)
	if err != nil {
		return err
	}
	if len(refs.missing) > 0 {
		d.stageOne(r, refs.missing)
		return nil
	}
	e := &storage.NewEvent{Event: storage.Event{NID: nid, RoomNID: d.room.NID, PDU: r.event}}
	for _, a := range refs.auth {
		if a.RoomNID == d.room.NID {
			e.Auth = append(e.Auth, a.NID)
		}
	}
	if nid == 0 {
		if e.NID, err = in.Storage.NewEventNIDs(ctx, 1); err != nil {
			return err
		}
	} else {
		d.replaced = append(d.replaced, nid)
		d.aside = slices.DeleteFunc(slices.Clone(d.aside), func(e *storage.NewEvent) bool { return e.NID == nid })
		if known.RedactedBy != "" {
			e.PDU, e.RedactedBy = e.PDU.Redact(), known.RedactedBy
		}
	}
	verdict, err := in.judge(ctx, d, r, e, refs)
	if err != nil {
		return err
	}
	d.done(r)
	if err := in.redactPending(ctx, d, e); err != nil {
		return err
	}
	switch {
	case verdict.err != nil:
		e.Outcome = verdict.outcome
		d.aside = append(d.aside, e)
		d.byID.put(e.PDU.ID(), &e.Event)
		r.decide(outcomeName(e.Outcome), fmt.Errorf("step %d: %w", verdict.step, verdict.err))
		return nil
	case r.outlier:
		e.Outcome = storage.Outlier
		d.aside = append(d.aside, e)
		d.byID.put(e.PDU.ID(), &e.Event)
		r.decide(api.OutcomeAccepted, nil)
		return nil
	}
	r.decide(api.OutcomeAccepted, nil)
	return in.appendRemote(ctx, d, e, refs.prev)
}

// verdict says at which step an event failed, and why; err is nil if it did not.
type verdict struct {
	outcome storage.Outcome
	step    int
	err     error
}

func (in *Input) judge(ctx context.Context, d *draft, r *received, e *storage.NewEvent, refs references) (verdict, error) {
	rejected := storage.Rejected
	if r.outlier {
		rejected = storage.RejectedOutlier
	} else {
		// A rejected event has a state before it too: others may refer to the event, and do if their servers know better (§ Rejection).
		var err error
		if e.Root, err = in.stateBefore(ctx, d, refs.prev); err != nil {
			return verdict{}, err
		}
	}
	// Step 4: it is allowed by its auth events.
	var bodies []*pdu.Event
	var refused []id.EventID
	for _, a := range refs.auth {
		bodies = append(bodies, a.PDU)
		if a.Outcome == storage.Rejected || a.Outcome == storage.RejectedOutlier {
			refused = append(refused, a.PDU.ID())
		}
	}
	create, err := d.One(ctx, pdu.TypeCreate, "")
	if err != nil {
		return verdict{}, err
	}
	if e.PDU.Properties().RoomIDIsCreateHash && create != nil {
		bodies = append(bodies, create.PDU)
	}
	if v, err := ruled(4, rejected, auth.CheckAuthEvents(e.PDU, bodies, refused...)); v.err != nil || err != nil {
		return v, err
	}
	if r.outlier {
		return verdict{}, nil
	}
	// Step 5: it is allowed by the state before it. The rules do not speak of parents in other rooms, nor of a room that has begun: the
	// create event "is the first event in a room and cannot be changed".
	if refs.foreign {
		return verdict{rejected, 5, errors.New("a parent of the event is in another room")}, nil
	}
	if create != nil && e.PDU.Is(pdu.TypeCreate, "") {
		return verdict{rejected, 5, errors.New("the room has another create event")}, nil
	}
	if v, err := ruled(5, rejected, auth.Check(e.PDU, d.stateAt(ctx, e.Root))); v.err != nil || err != nil {
		return v, err
	}
	// Step 6: it is allowed by the current state.
	if v, err := ruled(6, storage.SoftFailed, auth.Check(e.PDU, d.current(ctx))); v.err != nil || err != nil {
		return v, err
	}
	// Step 7: the room's policy server has signed it.
	err = d.checkPolicy(ctx, e.PDU)
	if refusal, is := errors.AsType[*policyError](err); is {
		return verdict{storage.SoftFailed, 7, refusal}, nil
	}
	return verdict{}, err
}

// ruled separates the verdict of a rule from an error that says that the event could not be checked.
func ruled(step int, outcome storage.Outcome, err error) (verdict, error) {
	if rule, is := errors.AsType[*auth.Error](err); is {
		return verdict{outcome, step, rule}, nil
	}
	return verdict{}, err
}

// references are the events that an event refers to.
type references struct {
	auth    []*storage.Event
	prev    []*storage.Event // those that are in the room
	foreign bool             // there are others, of other rooms
	missing []id.EventID     // that are not here
}

// references reads them. For an outlier only its auth events count.
func (in *Input) references(ctx context.Context, d *draft, r *received) (refs references, err error) {
	wanted := slices.Clone(r.event.AuthEvents())
	if !r.outlier {
		wanted = append(wanted, r.event.PrevEvents()...)
	}
	found, err := in.eventsByID(ctx, d, wanted)
	if err != nil {
		return refs, err
	}
	miss := func(eventID id.EventID) {
		if !slices.Contains(refs.missing, eventID) {
			refs.missing = append(refs.missing, eventID)
		}
	}
	for _, eventID := range r.event.AuthEvents() {
		if e := found[eventID]; e == nil {
			miss(eventID)
		} else {
			refs.auth = append(refs.auth, e)
		}
	}
	if r.outlier {
		return refs, nil
	}
	for _, eventID := range r.event.PrevEvents() {
		switch e := found[eventID]; {
		case e == nil:
			miss(eventID)
		case e.RoomNID != d.room.NID:
			refs.foreign = true
		case e.Outcome == storage.Outlier || e.Outcome == storage.RejectedOutlier:
			miss(eventID)
		default:
			refs.prev = append(refs.prev, e)
		}
	}
	return refs, nil
}

func (in *Input) eventsByID(ctx context.Context, d *draft, ids []id.EventID) (map[id.EventID]*storage.Event, error) {
	var missing []id.EventID
	for _, eventID := range ids {
		if d.byID.now[eventID] == nil {
			missing = append(missing, eventID)
		}
	}
	found, err := in.Reader.EventsByID(ctx, missing, false)
	if err != nil {
		return nil, err
	}
	for _, eventID := range ids {
		if e := d.byID.now[eventID]; e != nil {
			found[eventID] = e
		}
	}
	return found, nil
}

// maxReach bounds how many events covers looks at, with all their parents.
const maxReach = 200

// covers lists what an event replaces among the forward extremities: its parents, and what it reaches from them through events that
// were rejected or soft-failed, which are never extremities themselves.
func (in *Input) covers(ctx context.Context, d *draft, parents []*storage.Event) (map[id.EventID]bool, error) {
	covered := make(map[id.EventID]bool)
	for len(parents) > 0 && len(covered) < maxReach {
		var further []id.EventID
		for _, p := range parents {
			if covered[p.PDU.ID()] {
				continue
			}
			covered[p.PDU.ID()] = true
			if p.Outcome == storage.Rejected || p.Outcome == storage.SoftFailed {
				further = append(further, p.PDU.PrevEvents()...)
			}
		}
		found, err := in.eventsByID(ctx, d, further)
		if err != nil {
			return nil, err
		}
		parents = slices.Collect(maps.Values(found))
	}
	return covered, nil
}

// appendRemote puts an accepted event at the end of the timeline, moves the forward extremities, and resolves the current state
// anew where the room has forked.
func (in *Input) appendRemote(ctx context.Context, d *draft, e *storage.NewEvent, parents []*storage.Event) error {
	covered, err := in.covers(ctx, d, parents)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(d.room.Extremities, func(x storage.Extremity) bool { return covered[x.EventID] })
	d.room.Extremities = append(others, storage.Extremity{NID: e.NID, EventID: e.PDU.ID(), Depth: e.PDU.Depth()})
	if len(others) == 0 && e.Root == d.room.Root {
		return in.appendAccepted(ctx, d, e)
	}
	visibility, err := d.stateAt(ctx, e.Root).Get(auth.Key{Type: typeHistoryVisibility})
	if err != nil {
		return err
	}
	e.Visibility = visibilityOf(visibility)
	redacts, err := in.redact(ctx, d, e)
	if err != nil {
		return err
	}
	own, err := d.stateWith(ctx, e.Root, &e.Event)
	if err != nil {
		return err
	}
	d.byID.put(e.PDU.ID(), &e.Event)
	roots := []api.Root{own}
	otherIDs := make([]id.EventID, len(others))
	for i, x := range others {
		otherIDs[i] = x.EventID
	}
	stored, err := in.eventsByID(ctx, d, otherIDs)
	if err != nil {
		return err
	}
	for _, x := range others {
		if stored[x.EventID] == nil {
			return fmt.Errorf("the forward extremity %s is not stored", x.EventID)
		}
		root, err := d.stateAfter(ctx, stored[x.EventID])
		if err != nil {
			return err
		}
		roots = append(roots, root)
	}
	after, err := d.resolve(ctx, roots)
	if err != nil {
		return fmt.Errorf("current state: %w", err)
	}
	changes, replacing, err := d.diff(ctx, d.room.Root, after)
	if err != nil {
		return err
	}
	d.append(e, after, changes, replacing)
	e.Output.Redacts = redacts
	return nil
}

// redactPending applies redactions that came before the event itself.
func (in *Input) redactPending(ctx context.Context, d *draft, e *storage.NewEvent) error {
	waiting, err := in.Storage.PendingRedactions(ctx, d.room.NID, []id.EventID{e.PDU.ID()})
	if err != nil {
		return err
	}
	redactions := waiting[e.PDU.ID()]
	for _, p := range d.pending { // of the same batch
		if p.Target == e.PDU.ID() {
			redactions = append(redactions, p.Redaction)
		}
	}
	if len(redactions) == 0 {
		return nil
	}
	d.settled = append(d.settled, e.PDU.ID())
	found, err := in.eventsByID(ctx, d, redactions)
	if err != nil {
		return err
	}
	for _, redactionID := range redactions {
		r := found[redactionID]
		if r == nil || e.RedactedBy != "" {
			continue
		}
		may, err := d.mayRedact(ctx, r.PDU, &e.Event)
		if err != nil {
			return err
		}
		if may {
			e.PDU, e.RedactedBy = e.PDU.Redact(), redactionID
		}
	}
	return nil
}

func outcomeName(o storage.Outcome) string {
	switch o {
	case storage.SoftFailed:
		return api.OutcomeSoftFailed
	case storage.Rejected, storage.RejectedOutlier:
		return api.OutcomeRejected
	}
	return api.OutcomeAccepted
}

// stageOne stores an event that waits for others.
func (d *draft) stageOne(r *received, missing []id.EventID) {
	r.decide(api.OutcomeStaged, fmt.Errorf("%d of the events that it refers to are not here", len(missing)))
	isThis := func(s storage.Staged) bool { return s.EventID == r.event.ID() }
	if !r.staged && !slices.ContainsFunc(d.stage, isThis) {
		d.stage = append(d.stage, storage.Staged{EventID: r.event.ID(), RoomID: d.room.ID, Version: d.room.Version, Origin: r.origin,
			Received: time.Now().UnixMilli(), Missing: missing, JSON: r.event.JSON()})
	}
}

// done takes an event out of the staging table.
func (d *draft) done(r *received) {
	if r.staged {
		d.unstage = append(d.unstage, r.event.ID())
	}
}
