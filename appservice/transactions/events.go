package transactions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/rpc"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// asks is how often the roomserver is asked for an event that it fails to give before that is left out: for about a
// minute, so that a database in trouble loses no event.
const asks = 12

// Events reads the events of a transaction.
type Events struct {
	Query rpc.Call[roomserver.QueryEventsRequest, roomserver.QueryEventsResponse]
	Now   func() time.Time
}

// rendered is an event as a service gets it; Body is nil for one that is not there.
type rendered struct {
	body   json.RawMessage
	sender id.UserID
	target id.UserID // of a member event
}

// read makes what a service gets of the events that wait for it, in their order. A row that the roomserver cannot
// answer for fails alone: the others are read all the same, and bad lists it.
func (r *Events) read(ctx context.Context, rows []storage.Event) (all []rendered, bad map[int64]error, err error) {
	var ask []id.EventID
	for i := range rows {
		if e := &rows[i]; e.Invite == nil || e.Invite.Event == nil {
			ask = append(ask, e.EventID)
		}
	}
	found, failed, err := r.find(ctx, ask)
	if err != nil {
		return nil, nil, err
	}
	all, bad = make([]rendered, len(rows)), make(map[int64]error)
	for i := range rows {
		e := &rows[i]
		event := found[e.EventID]
		if e.Invite != nil && e.Invite.Event != nil {
			event = &roomserver.Event{PDU: e.Invite.Event}
		}
		if event == nil {
			if bad[e.Number] = failed[e.EventID]; bad[e.Number] == nil {
				bad[e.Number] = errMissing
			}
			continue
		}
		all[i] = render(event, e.Invite)
	}
	return all, bad, nil
}

var errMissing = errors.New("the roomserver does not have the event")

// find asks the roomserver for all events in one call or, if that fails although the roomserver is there, for each.
func (r *Events) find(ctx context.Context, ids []id.EventID) (found map[id.EventID]*roomserver.Event,
	failed map[id.EventID]error, err error) {
	found, failed = make(map[id.EventID]*roomserver.Event, len(ids)), make(map[id.EventID]error)
	if len(ids) == 0 {
		return found, failed, nil
	}
	add := func(ids []id.EventID) error {
		answer, err := r.Query(ctx, roomserver.QueryEventsRequest{EventIDs: ids})
		for i := range answer.Events {
			found[answer.Events[i].PDU.ID()] = &answer.Events[i]
		}
		return err
	}
	all := add(ids)
	if all == nil {
		return found, failed, nil
	}
	if ctx.Err() != nil || errors.Is(all, mxerr.ErrUnavailable) {
		return nil, nil, fmt.Errorf("events of a transaction: %w", all)
	}
	for _, one := range ids {
		if err := add([]id.EventID{one}); err != nil {
			if ctx.Err() != nil || errors.Is(err, mxerr.ErrUnavailable) {
				return nil, nil, fmt.Errorf("event %s of a transaction: %w", one, err)
			}
			failed[one] = err
		}
	}
	if len(found) > 0 {
		return found, failed, nil
	}
	// Nothing can be read. Either these events are bad, or the roomserver is: then it cannot look for another one
	// either.
	if err := add([]id.EventID{"$"}); err != nil {
		return nil, nil, fmt.Errorf("events of a transaction: %w", all)
	}
	return found, failed, nil
}

// render makes the client form of an event (Client-Server API, § Room event format), and the stripped state of an
// invite in its unsigned.
func render(e *roomserver.Event, invite *storage.Invite) rendered {
	r := rendered{sender: e.PDU.Sender()}
	if stateKey, is := e.PDU.StateKey(); is && e.PDU.Type() == pdu.TypeMember {
		r.target = id.UserID(stateKey)
	}
	r.body = e.AppendClient(nil, roomserver.Viewer{}, pdu.ClientOptions{WithRoomID: true})
	if invite == nil || len(invite.State) == 0 {
		return r
	}
	// unsigned comes last, and is never empty.
	w := &writer{}
	w.b.Write(r.body[:len(r.body)-2])
	fmt.Fprintf(&w.b, `,"%s_room_state":`, e.PDU.Membership())
	w.list(invite.State)
	w.b.WriteString("}}")
	r.body = w.b.Bytes()
	return r
}
