package routing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strconv"
	"time"

	"github.com/matrix-org/dendrite/clientapi/delayed"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// delayOf is how long an event is to be delayed (MSC4140); false if it is to be sent now.
func delayOf(r *httputil.Request) (time.Duration, bool, error) {
	const name = delayed.Prefix + "delay"
	text := r.Query(name)
	if text == "" {
		return 0, false, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return 0, false, mxerr.InvalidParam("%s must be a number of milliseconds of at least 0", name)
	}
	return time.Duration(min(ms, int64(delayed.MaxDelay/time.Millisecond)+1)) * time.Millisecond, true, nil
}

// delayEvent has an event sent later. The id of the delay is a secret; a request that is repeated gets the same.
func (e *endpoints) delayEvent(ctx context.Context, r *httputil.Request, event *roomserver.SendEventRequest, delay time.Duration) (any, error) {
	delayID := rand.Text()
	if event.TransactionID != "" {
		secret, err := e.Accounts.Store.Secret(ctx, "delayed events", []byte(rand.Text()))
		if err != nil {
			return nil, err
		}
		delayID = httputil.Digest(string(secret), string(event.RequestKey))
	}
	if err := e.mustBeJoined(ctx, event.RoomID, event.Sender); err != nil {
		return nil, err
	}
	content, err := withRedacts(event.Content, event.Redacts)
	if err != nil {
		return nil, err
	}
	err = e.Delayed.Put(ctx, &storage.Delayed{ID: delayID, UserID: event.Sender, DeviceID: event.DeviceID,
		RoomID: event.RoomID, Type: event.Type, StateKey: event.StateKey, Content: content}, delay)
	return httputil.Object{"delay_id": delayID}, err
}

// withRedacts is content that says which event is redacted, as the content of newer room versions does: from there it
// is taken when the event is sent.
func withRedacts(content json.RawMessage, target id.EventID) (json.RawMessage, error) {
	if target == "" {
		return content, nil
	}
	members := make(map[string]json.RawMessage)
	if err := json.Unmarshal(content, &members); err != nil {
		return nil, mxerr.BadJSON("the content is not an object: %v", err)
	}
	var err error
	if members["redacts"], err = json.Marshal(target); err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// delayedEvents is GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events.
func (e *endpoints) delayedEvents(ctx context.Context, r *httputil.Request) (any, error) {
	found, err := e.Delayed.List(ctx, r.Caller.UserID)
	if err != nil {
		return nil, err
	}
	all := make([]httputil.Object, len(found))
	for i, d := range found {
		all[i] = httputil.Object{"delay_id": d.ID, "room_id": d.RoomID, "type": d.Type, "delay": d.DelayMS, "running_since": d.SinceMS, "content": json.RawMessage(d.Content)}
		if d.StateKey != nil {
			all[i]["state_key"] = *d.StateKey
		}
	}
	return httputil.Object{"delayed_events": all}, nil
}

// updateDelayed is POST …/delayed_events/{delay_id}, with the action in the body, and …/delayed_events/{delay_id}/{action}.
func (e *endpoints) updateDelayed(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Action string `json:"action"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if action := r.Var("action"); action != "" {
		body.Action = action
	}
	if body.Action == "" {
		return nil, mxerr.MissingParam("action is missing")
	}
	return nil, e.Delayed.Update(ctx, r.Var("delayID"), body.Action, r.Caller.UserID)
}
