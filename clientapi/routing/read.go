package routing

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

const (
	usualEvents = 10
	maxEvents   = 1000
)

// state is GET /rooms/{roomId}/state.
func (e *endpoints) state(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	state, err := e.Room.QueryState(ctx, roomserver.QueryStateRequest{Viewer: viewer(r), RoomID: room})
	if err != nil {
		return nil, err
	}
	return clientEvents(r, state.Events), nil
}

// stateEvent is GET /rooms/{roomId}/state/{eventType}/{stateKey}.
func (e *endpoints) stateEvent(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	format := r.Query("format")
	if err := oneOf("format", format, "content", "event"); err != nil {
		return nil, err
	}
	key := roomserver.StateKeyTuple{Type: r.Var("type"), StateKey: r.Var("stateKey")}
	state, err := e.Room.QueryState(ctx, roomserver.QueryStateRequest{Viewer: viewer(r), RoomID: room, Keys: []roomserver.StateKeyTuple{key}})
	if err != nil {
		return nil, err
	}
	if len(state.Events) == 0 {
		return nil, mxerr.NotFound("the room has no state of type %q with the state key %q", key.Type, key.StateKey)
	}
	if format == "event" {
		return clientEvent(r, &state.Events[0]), nil
	}
	return state.Events[0].PDU.Content(), nil
}

// event is GET /rooms/{roomId}/event/{eventId}.
func (e *endpoints) event(ctx context.Context, r *httputil.Request) (any, error) {
	room, eventID, err := eventOf(r)
	if err != nil {
		return nil, err
	}
	var found roomserver.QueryEventsResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		found, err = e.Room.QueryEvents(ctx, roomserver.QueryEventsRequest{Viewer: v, RoomID: room, EventIDs: []id.EventID{eventID}, Aggregate: true})
		return found.Events, err
	})
	if err != nil {
		return nil, err
	}
	if len(found.Events) == 0 {
		return nil, mxerr.NotFound("there is no event %s that you may see", eventID)
	}
	return clientEvent(r, &found.Events[0]), nil
}

// eventFilter is the filter parameter, a RoomEventFilter.
func eventFilter(r *httputil.Request, limit int) (*roomserver.EventFilter, int, error) {
	filter, err := roomserver.ParseEventFilter([]byte(r.Query("filter")))
	if err == nil && filter != nil && filter.Limit > 0 {
		limit = min(limit, filter.Limit)
	}
	return filter, limit, err
}

// context is GET /rooms/{roomId}/context/{eventId}.
func (e *endpoints) context(ctx context.Context, r *httputil.Request) (any, error) {
	room, eventID, err := eventOf(r)
	if err != nil {
		return nil, err
	}
	n, err := r.QueryInt("limit", usualEvents)
	if err != nil {
		return nil, err
	}
	filter, n, err := eventFilter(r, min(n, maxEvents))
	if err != nil {
		return nil, err
	}
	var found roomserver.QueryContextResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		found, err = e.Room.QueryContext(ctx, roomserver.QueryContextRequest{Viewer: v, RoomID: room, EventID: eventID, Limit: n, Filter: filter})
		return slices.Concat([]roomserver.Event{found.Event}, found.Before, found.After), err
	})
	if err != nil {
		return nil, err
	}
	return httputil.Object{
		"start": found.Start.Token(), "end": found.End.Token(),
		"event":         clientEvent(r, &found.Event),
		"events_before": clientEvents(r, found.Before),
		"events_after":  clientEvents(r, found.After),
		"state":         clientEvents(r, found.State),
	}, nil
}

// messages is GET /rooms/{roomId}/messages.
func (e *endpoints) messages(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	dir := r.Query("dir")
	if dir == "" {
		return nil, mxerr.MissingParam("dir is missing: b for backwards, f for forwards")
	}
	if err := oneOf("dir", dir, "b", "f"); err != nil {
		return nil, err
	}
	query := roomserver.QueryMessagesRequest{RoomID: room, Backward: dir == "b"}
	if query.Limit, err = limit(r, usualEvents, maxEvents); err != nil {
		return nil, err
	}
	if query.Filter, query.Limit, err = eventFilter(r, query.Limit); err != nil {
		return nil, err
	}
	if query.From, err = e.place(ctx, r, "from", room); err != nil {
		return nil, err
	}
	if query.To, err = e.place(ctx, r, "to", room); err != nil {
		return nil, err
	}
	var page roomserver.QueryMessagesResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		query.Viewer = v
		page, err = e.Room.QueryMessages(ctx, query)
		return page.Chunk, err
	})
	if err != nil {
		return nil, err
	}
	answer := httputil.Object{"start": page.Start.Token(), "chunk": clientEvents(r, page.Chunk)}
	if page.End != nil {
		answer["end"] = page.End.Token()
	}
	if len(page.State) > 0 {
		answer["state"] = clientEvents(r, page.State)
	}
	return answer, nil
}

// place is a parameter that names a place in a room: by a token of a room's history, or by one of /sync. nil if it is absent.
func (e *endpoints) place(ctx context.Context, r *httputil.Request, name string, room id.RoomID) (*roomserver.OrderKey, error) {
	token := r.Query(name)
	if token == "" {
		return nil, nil
	}
	if order, err := roomserver.ParseOrderToken(token); err == nil {
		return &order, nil
	}
	translated, err := e.Sync.TranslateToken(ctx, syncapi.TranslateTokenRequest{RoomID: room, Token: token})
	if err != nil {
		return nil, err
	}
	return &translated.Order, nil
}

// members is GET /rooms/{roomId}/members.
func (e *endpoints) members(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	query := roomserver.QueryMembersRequest{Viewer: viewer(r), RoomID: room, Membership: r.Query("membership"), NotMembership: r.Query("not_membership")}
	memberships := []string{"join", "invite", "knock", "leave", "ban"}
	if err := oneOf("membership", query.Membership, memberships...); err != nil {
		return nil, err
	}
	if err := oneOf("not_membership", query.NotMembership, memberships...); err != nil {
		return nil, err
	}
	if query.At, err = e.place(ctx, r, "at", room); err != nil {
		return nil, err
	}
	found, err := e.Room.QueryMembers(ctx, query)
	if err != nil {
		return nil, err
	}
	return httputil.Object{"chunk": clientEvents(r, found.Events)}, nil
}

// joinedMembers is GET /rooms/{roomId}/joined_members.
func (e *endpoints) joinedMembers(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	members, err := e.joinedFor(ctx, r, room)
	if err != nil {
		return nil, err
	}
	joined := make(map[string]json.RawMessage, len(members))
	for i := range members {
		member := members[i].PDU
		user, _ := member.StateKey()
		if joined[user], err = memberInfo(member.Content()); err != nil {
			return nil, err
		}
	}
	return httputil.Object{"joined": joined}, nil
}

// memberInfo is what joined_members says of a member. What is no string in the member's event is left out.
func memberInfo(content json.RawMessage) (json.RawMessage, error) {
	info := make(map[string]string)
	for from, to := range map[string]string{"displayname": "display_name", "avatar_url": "avatar_url"} {
		if value := gjson.GetBytes(content, from); value.Type == gjson.String {
			info[to] = value.Str
		}
	}
	return httputil.Marshal(info)
}
