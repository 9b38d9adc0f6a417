package routing

import (
	"context"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

const (
	redaction      = "m.room.redaction"
	canonicalAlias = "m.room.canonical_alias"
	member         = "m.room.member"

	// usualTyping is how long somebody types who does not say how long.
	usualTyping = 30 * time.Second
	maxTyping   = 2 * time.Minute
)

// send is PUT /rooms/{roomId}/send/{eventType}/{txnId}.
func (e *endpoints) send(ctx context.Context, r *httputil.Request) (any, error) {
	room, content, err := contentOf(r)
	if err != nil {
		return nil, err
	}
	eventType, txnID := r.Var("type"), r.Var("txnID")
	event := roomserver.SendEventRequest{RequestKey: txnKey(r, "send", string(room), eventType, txnID), RoomID: room, TransactionID: txnID, Type: eventType,
		Content: content}
	if eventType == redaction {
		// Which event is redacted is part of the content of newer room versions, and so of this body in all of them.
		if target := gjson.GetBytes(content, "redacts"); target.Exists() {
			if event.Redacts, err = id.ParseEventID(target.String()); err != nil {
				return nil, mxerr.InvalidParam("redacts: %v", err)
			}
		}
	}
	return e.sendEvent(ctx, r, event)
}

// redact is PUT /rooms/{roomId}/redact/{eventId}/{txnId}.
func (e *endpoints) redact(ctx context.Context, r *httputil.Request) (any, error) {
	room, target, err := eventOf(r)
	if err != nil {
		return nil, err
	}
	content, err := r.Object()
	if err != nil {
		return nil, err
	}
	if reason := gjson.GetBytes(content, "reason"); reason.Exists() && reason.Type != gjson.String {
		return nil, mxerr.BadJSON("reason must be a string")
	}
	txnID := r.Var("txnID")
	return e.sendEvent(ctx, r, roomserver.SendEventRequest{RequestKey: txnKey(r, "redact", string(room), string(target), txnID), RoomID: room,
		TransactionID: txnID, Type: redaction, Content: content, Redacts: target})
}

// putState is PUT /rooms/{roomId}/state/{eventType}/{stateKey}.
func (e *endpoints) putState(ctx context.Context, r *httputil.Request) (any, error) {
	room, content, err := contentOf(r)
	if err != nil {
		return nil, err
	}
	eventType, stateKey := r.Var("type"), r.Var("stateKey")
	if eventType == member && gjson.GetBytes(content, "membership").Str == "invite" {
		if err := e.mayInvite(ctx, r, id.UserID(stateKey)); err != nil {
			return nil, err
		}
	}
	return e.sendEvent(ctx, r, roomserver.SendEventRequest{RequestKey: newKey(), RoomID: room, Type: eventType, StateKey: &stateKey, Content: content})
}

func (e *endpoints) sendEvent(ctx context.Context, r *httputil.Request, event roomserver.SendEventRequest) (any, error) {
	var err error
	if event.Timestamp, err = timestamp(r); err != nil {
		return nil, err
	}
	if event.Type == "" {
		return nil, mxerr.InvalidParam("the event type is empty")
	}
	if event.StateKey == nil && event.TransactionID == "" {
		return nil, mxerr.InvalidParam("the transaction id is empty: " +
			"the next event with none would be taken for this one")
	}
	event.Sender, event.DeviceID, event.Guest = r.Caller.UserID, r.Caller.DeviceID, r.Caller.Guest
	event.Suspended = r.Caller.Suspended
	delay, later, err := delayOf(r)
	if err != nil {
		return nil, err
	}
	if later {
		return e.delayEvent(ctx, r, &event, delay)
	}
	sent, err := e.Room.SendEvent(ctx, event)
	if err != nil {
		return nil, err
	}
	e.stopTyping(ctx, &event)
	return httputil.Object{"event_id": sent.EventID}, nil
}

// stopTyping ends the typing of who has sent a message.
func (e *endpoints) stopTyping(ctx context.Context, event *roomserver.SendEventRequest) {
	switch event.Type {
	case "m.room.message", "m.room.encrypted", "m.sticker":
	default:
		return
	}
	if event.StateKey != nil || !e.Typists.Types(event.RoomID, event.Sender) {
		return
	}
	// The message is sent. Where this fails, the typing ends by itself.
	_, _ = e.Typing.SetTyping(ctx, typingserver.SetTypingRequest{RoomID: event.RoomID, UserID: event.Sender})
}

// typing is PUT /rooms/{roomId}/typing/{userId}.
func (e *endpoints) typing(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	if user != r.Caller.UserID {
		return nil, mxerr.Forbidden("you can type for yourself only")
	}
	var body struct {
		Typing  *bool  `json:"typing"`
		Timeout *int64 `json:"timeout"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Typing == nil {
		return nil, mxerr.MissingParam("typing is missing")
	}
	timeout := usualTyping
	if body.Timeout != nil {
		if *body.Timeout < 0 {
			return nil, mxerr.InvalidParam("timeout must be a number of milliseconds of at least 0")
		}
		timeout = time.Duration(min(*body.Timeout, maxTyping.Milliseconds())) * time.Millisecond
	}
	if err := e.mustBeJoined(ctx, room, user); err != nil {
		return nil, err
	}
	_, err = e.Typing.SetTyping(ctx, typingserver.SetTypingRequest{RoomID: room, UserID: user, Typing: *body.Typing, Timeout: timeout})
	return nil, err
}

func (e *endpoints) mustBeJoined(ctx context.Context, room id.RoomID, user id.UserID) error {
	found, err := e.Room.QueryMembership(ctx, roomserver.QueryMembershipRequest{RoomID: room, UserID: user})
	if err != nil {
		return err
	}
	if found.Membership != "join" {
		return mxerr.Forbidden("you are not in the room %s", room)
	}
	return nil
}
