package query

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QueryMembers is of the contract.
func (q *Query) QueryMembers(ctx context.Context, req api.QueryMembersRequest) (res api.QueryMembersResponse, err error) {
	room, v, err := q.view(ctx, req.RoomID, req.Viewer)
	if err != nil {
		return res, err
	}
	at, err := v.State()
	if err != nil {
		return res, err
	}
	if until, bounded := v.Until(); req.At != nil && (!bounded || req.At.Compare(until) < 0) {
		if at, err = q.stateAt(ctx, room, v, *req.At); err != nil {
			return res, err
		}
	}
	nids, err := q.rooms.Entries(ctx, room.NID, at.Root, statetrie.Members)
	if err != nil {
		return res, err
	}
	selects := func(e *pdu.Event) bool {
		is := e.Membership()
		switch {
		case req.Membership == "" && req.NotMembership == "":
			return true
		case req.Membership == "":
			return is != req.NotMembership
		case req.NotMembership == "":
			return is == req.Membership
		}
		return is == req.Membership || is != req.NotMembership
	}
	events, err := q.load(ctx, nids, func(e *storage.Event) bool {
		return selects(e.PDU) && (at.After == nil || !sameKey(e.PDU, at.After.PDU))
	})
	if err != nil {
		return res, err
	}
	if at.After != nil && at.After.PDU.Type() == pdu.TypeMember && selects(at.After.PDU) {
		events = append(events, at.After)
	}
	res.Events, err = v.Show(ctx, events)
	return res, err
}

// QueryServerMembers is of the contract.
func (q *Query) QueryServerMembers(ctx context.Context, req api.QueryServerMembersRequest) (res api.QueryServerMembersResponse, err error) {
	room, err := q.room(ctx, req.RoomID)
	if err != nil {
		return res, err
	}
	nids, err := q.rooms.Entries(ctx, room.NID, req.Root, statetrie.Members)
	if err != nil {
		return res, err
	}
	err = q.rooms.Scan(ctx, nids, func(e *storage.Event) {
		stateKey, _ := e.PDU.StateKey()
		if user := id.UserID(stateKey); e.PDU.Membership() == "join" && user.Server() == req.Server {
			res.Users = append(res.Users, user)
		}
	})
	return res, err
}

// QueryVisibleUsers is of the contract.
func (q *Query) QueryVisibleUsers(ctx context.Context, req api.QueryVisibleUsersRequest) (res api.QueryVisibleUsersResponse, err error) {
	res.Visible, err = q.rooms.Storage.VisibleUsers(ctx, req.Viewer, req.UserIDs)
	if slices.Contains(req.UserIDs, req.Viewer) && !slices.Contains(res.Visible, req.Viewer) {
		res.Visible = append(res.Visible, req.Viewer)
	}
	return res, err
}

// stateAt is the state of the room at a gap in its timeline: that after the event before the gap.
func (q *Query) stateAt(ctx context.Context, room *storage.Room, v *visibility.View, at api.OrderKey) (visibility.State, error) {
	if at.Compare(room.Last) >= 0 {
		return visibility.State{Root: room.Root}, nil
	}
	page, _, err := q.rooms.Timeline(ctx, room.NID, at, oldest(), true, 1, pageBytes)
	if err != nil || len(page) == 0 {
		return visibility.State{}, err
	}
	seen, err := v.Filter(ctx, page)
	if err == nil && len(seen) == 0 {
		err = mxerr.Forbidden("you may not see who was in the room at that time: leave out at to get the members of now")
	}
	return visibility.StateAfter(page[0]), err
}

// QueryMemberships is of the contract.
func (q *Query) QueryMemberships(ctx context.Context, req api.QueryMembershipsRequest) (res api.QueryMembershipsResponse, err error) {
	all, err := q.rooms.Storage.UserRooms(ctx, req.UserID)
	if err != nil {
		return res, err
	}
	res.Rooms = slices.DeleteFunc(all, func(r api.UserRoom) bool {
		if req.Memberships == nil {
			return r.Forgotten
		}
		return !slices.Contains(req.Memberships, r.Membership)
	})
	return res, nil
}

// QueryMembership is of the contract.
func (q *Query) QueryMembership(ctx context.Context, req api.QueryMembershipRequest) (res api.QueryMembershipResponse, err error) {
	room, err := q.rooms.Room(ctx, req.RoomID)
	if err != nil || room == nil {
		return res, err
	}
	m, err := q.rooms.Storage.Membership(ctx, room.NID, req.UserID)
	return api.QueryMembershipResponse{RoomExists: true, Membership: m.Membership, EventID: m.EventID, Forgotten: m.Forgotten}, err
}

// QueryRooms is of the contract.
func (q *Query) QueryRooms(ctx context.Context, req api.QueryRoomsRequest) (res api.QueryRoomsResponse, err error) {
	if len(req.RoomIDs) == 0 {
		return res, nil
	}
	var found []api.RoomSummary
	if req.HeroesFor == "" {
		found, err = q.rooms.Storage.Summaries(ctx, req.RoomIDs)
	} else {
		found, err = q.rooms.Storage.SummariesWithHeroes(ctx, req.RoomIDs, req.HeroesFor)
	}
	if err != nil {
		return res, err
	}
	byID := make(map[id.RoomID]api.RoomSummary, len(found))
	for _, r := range found {
		byID[r.RoomID] = r
	}
	for _, roomID := range req.RoomIDs {
		if r, has := byID[roomID]; has {
			res.Rooms = append(res.Rooms, r)
		}
	}
	return res, nil
}
