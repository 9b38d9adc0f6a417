package routing

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	usualHierarchy = 50
	maxHierarchy   = 100
	maxDepth       = 50
)

// roomSummary is what clients get of a room that they may not be in.
type roomSummary struct {
	publicRoom
	AllowedRoomIDs []id.RoomID       `json:"allowed_room_ids,omitempty"`
	Encryption     string            `json:"encryption,omitempty"`
	RoomVersion    id.RoomVersion    `json:"room_version"`
	Membership     string            `json:"membership,omitempty"`
	ChildrenState  []json.RawMessage `json:"children_state,omitzero"`
}

func summaryOf(s *roomserver.QueryRoomSummaryResponse) roomSummary {
	return roomSummary{publicRoom: publicRoomOf(&s.RoomSummary), AllowedRoomIDs: s.Allowed, Encryption: s.Encryption, RoomVersion: s.RoomVersion}
}

// roomSummary is GET /room_summary/{roomIdOrAlias}.
func (e *endpoints) roomSummary(ctx context.Context, r *httputil.Request) (any, error) {
	room, _, err := e.roomNamed(ctx, r)
	if err != nil {
		return nil, err
	}
	if _, err := via(r.Values()); err != nil {
		return nil, err
	}
	query := roomserver.QueryRoomSummaryRequest{RoomID: room}
	if r.Caller.UserID != "" {
		query.Viewer = viewer(r)
	}
	found, err := e.Room.QueryRoomSummary(ctx, query)
	if err != nil {
		return nil, err
	}
	summary := summaryOf(&found)
	if r.Caller.UserID != "" {
		if summary.Membership = found.Membership; summary.Membership == "" {
			summary.Membership = "leave"
		}
	}
	return summary, nil
}

// hierarchy is GET /rooms/{roomId}/hierarchy. A token has the parameters that may not change, and how many rooms came before.
func (e *endpoints) hierarchy(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	query := roomserver.QueryHierarchyRequest{Viewer: viewer(r), RoomID: room}
	if query.SuggestedOnly, err = r.QueryBool("suggested_only"); err != nil {
		return nil, err
	}
	n, err := r.QueryInt("limit", usualHierarchy)
	if err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, mxerr.InvalidParam("limit must be greater than 0")
	}
	query.Limit = min(n, maxHierarchy)
	if query.MaxDepth, err = r.QueryInt("max_depth", maxDepth); err != nil {
		return nil, err
	}
	query.MaxDepth = min(query.MaxDepth, maxDepth)
	if token := r.Query("from"); token != "" {
		var suggested bool
		var depth int
		if n, err := fmt.Sscanf(token, "%d_%d_%t", &query.Skip, &depth, &suggested); n != 3 || err != nil || query.Skip < 1 {
			return nil, mxerr.InvalidParam("from is not a token of this endpoint")
		}
		if suggested != query.SuggestedOnly || depth != query.MaxDepth {
			return nil, mxerr.InvalidParam("suggested_only and max_depth cannot change from one page to the next")
		}
	}
	page, err := e.Room.QueryHierarchy(ctx, query)
	if err != nil {
		return nil, err
	}
	rooms := make([]roomSummary, len(page.Rooms))
	for i := range page.Rooms {
		rooms[i] = summaryOf(&page.Rooms[i].QueryRoomSummaryResponse)
		rooms[i].ChildrenState = page.Rooms[i].Children
	}
	answer := httputil.Object{"rooms": rooms}
	if page.More {
		answer["next_batch"] = fmt.Sprintf("%d_%d_%t", query.Skip+len(rooms), query.MaxDepth, query.SuggestedOnly)
	}
	return answer, nil
}
