package query

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

const (
	typeSpace      = "m.space"
	typeSpaceChild = "m.space.child"
	// maxHierarchy bounds the rooms that one walk through a tree looks at.
	maxHierarchy = 5000
)

// acquaintance is what one viewer may know of rooms that they are not in.
type acquaintance struct {
	q           *Query
	memberships map[id.RoomID]string
}

func (q *Query) acquaintance(ctx context.Context, viewer api.Viewer) (*acquaintance, error) {
	a := &acquaintance{q, make(map[id.RoomID]string)}
	if viewer.UserID == "" {
		return a, nil
	}
	rooms, err := q.rooms.Storage.UserRooms(ctx, viewer.UserID)
	for _, r := range rooms {
		a.memberships[r.RoomID] = r.Membership
	}
	return a, err
}

// summary is what the viewer may know of a room; nil if that is nothing (§ Discovering rooms within spaces).
func (a *acquaintance) summary(ctx context.Context, roomID id.RoomID) (*api.QueryRoomSummaryResponse, error) {
	found, err := a.q.rooms.Storage.Summaries(ctx, []id.RoomID{roomID})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	s := &api.QueryRoomSummaryResponse{RoomSummary: found[0], Membership: a.memberships[roomID]}
	mayJoin := s.Membership == "join" || s.Membership == "invite"
	switch s.JoinRule {
	case "public", "knock", "knock_restricted":
		mayJoin = true
	}
	if s.JoinRule == "restricted" || s.JoinRule == "knock_restricted" {
		if s.Allowed, err = a.allowed(ctx, &found[0]); err != nil {
			return nil, err
		}
		mayJoin = mayJoin || slices.ContainsFunc(s.Allowed, func(room id.RoomID) bool { return a.memberships[room] == "join" })
	}
	if !mayJoin && s.HistoryVisibility != "world_readable" {
		return nil, nil
	}
	return s, nil
}

func (a *acquaintance) allowed(ctx context.Context, s *api.RoomSummary) ([]id.RoomID, error) {
	room, err := a.q.room(ctx, s.RoomID)
	if err != nil {
		return nil, err
	}
	rules, err := a.q.rooms.One(ctx, room.NID, room.Root, auth.Key{Type: pdu.TypeJoinRules})
	if err != nil || rules == nil {
		return nil, err
	}
	return state.AllowedRooms(rules.PDU), nil
}

// QueryRoomSummary is of the contract.
func (q *Query) QueryRoomSummary(ctx context.Context, req api.QueryRoomSummaryRequest) (res api.QueryRoomSummaryResponse, err error) {
	a, err := q.acquaintance(ctx, req.Viewer)
	if err != nil {
		return res, err
	}
	s, err := a.summary(ctx, req.RoomID)
	if err == nil && s == nil {
		err = mxerr.NotFound("there is no room %s that you may know of", req.RoomID)
	}
	if err != nil {
		return res, err
	}
	return *s, nil
}

// QueryHierarchy is of the contract.
func (q *Query) QueryHierarchy(ctx context.Context, req api.QueryHierarchyRequest) (res api.QueryHierarchyResponse, err error) {
	a, err := q.acquaintance(ctx, req.Viewer)
	if err != nil {
		return res, err
	}
	top, err := a.summary(ctx, req.RoomID)
	if err == nil && (top == nil || top.Membership == "ban") {
		err = mxerr.Forbidden("you may not look into the room %s", req.RoomID)
	}
	if err != nil {
		return res, err
	}
	w := &tree{acquaintance: a, req: &req, res: &res, visited: map[id.RoomID]bool{req.RoomID: true}}
	return res, w.visit(ctx, top, 0)
}

// tree is a walk through a tree of spaces.
type tree struct {
	*acquaintance
	req     *api.QueryHierarchyRequest
	res     *api.QueryHierarchyResponse
	seen    int // rooms so far, of earlier pages too
	bytes   int // of the children of those in the answer
	visited map[id.RoomID]bool
}

// visit adds a room and what is below it.
func (t *tree) visit(ctx context.Context, s *api.QueryRoomSummaryResponse, depth int) error {
	var children []child
	if s.RoomType == typeSpace {
		var err error
		if children, err = t.children(ctx, s.RoomID); err != nil {
			return err
		}
	}
	if t.seen++; t.seen > t.req.Skip {
		if len(t.res.Rooms) == t.req.Limit || t.bytes >= pageBytes {
			t.res.More = true
			return nil
		}
		room := api.HierarchyRoom{QueryRoomSummaryResponse: *s, Children: make([]json.RawMessage, len(children))}
		for i := range children {
			room.Children[i] = children[i].stripped
			t.bytes += len(children[i].stripped)
		}
		t.res.Rooms = append(t.res.Rooms, room)
	}
	if depth == t.req.MaxDepth {
		return nil
	}
	for _, c := range children {
		if t.res.More || t.visited[c.room] || len(t.visited) == maxHierarchy {
			continue // loops are broken at the room where they close
		}
		t.visited[c.room] = true
		below, err := t.summary(ctx, c.room)
		if err != nil {
			return err
		}
		if below == nil {
			continue
		}
		if err := t.visit(ctx, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// child is an m.space.child event.
type child struct {
	room     id.RoomID
	order    string // empty if it has none that is valid
	sent     int64
	stripped json.RawMessage
}

// children lists the valid children of a space, in their order (§ Ordering of children within a space).
func (t *tree) children(ctx context.Context, roomID id.RoomID) ([]child, error) {
	room, err := t.q.room(ctx, roomID)
	if err != nil {
		return nil, err
	}
	nids, err := t.q.rooms.Entries(ctx, room.NID, room.Root, statetrie.Others)
	if err != nil {
		return nil, err
	}
	events, err := t.q.rooms.Fresh(ctx, nids)
	if err != nil {
		return nil, err
	}
	var all []child
	for _, nid := range nids {
		e := events[nid].PDU
		stateKey, _ := e.StateKey()
		name, err := id.ParseRoomID(stateKey)
		if e.Type() != typeSpaceChild || err != nil || !hasVia(e) || t.req.SuggestedOnly && gjson.GetBytes(e.Content(), "suggested").Type != gjson.True {
			continue
		}
		stripped := e.Stripped()
		stripped = append(strconv.AppendInt(append(slices.Clone(stripped[:len(stripped)-1]), `,"origin_server_ts":`...), e.OriginServerTS(), 10), '}')
		all = append(all, child{name, validOrder(state.ContentString(e, "order")), e.OriginServerTS(), stripped})
	}
	slices.SortFunc(all, func(a, b child) int {
		if (a.order == "") != (b.order == "") {
			return cmp.Compare(b.order, a.order) // those without come last
		}
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.sent, b.sent), cmp.Compare(a.room, b.room))
	})
	return all, nil
}

func hasVia(e *pdu.Event) bool {
	return slices.ContainsFunc(gjson.GetBytes(e.Content(), "via").Array(), func(v gjson.Result) bool { return v.Type == gjson.String })
}

// validOrder is an order if it has at most 50 characters, all of them from space to tilde.
func validOrder(order string) string {
	if len(order) > 50 || slices.ContainsFunc([]byte(order), func(c byte) bool { return c < 0x20 || c > 0x7e }) {
		return ""
	}
	return order
}
