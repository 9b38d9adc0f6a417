package query

import (
	"context"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/search"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
	"github.com/matrix-org/dendrite/roomserver/visibility"
)

// QuerySearch is of the contract.
func (q *Query) QuerySearch(ctx context.Context, req api.QuerySearchRequest) (res api.QuerySearchResponse, err error) {
	res.Highlights = search.Words(req.Term)
	if len(res.Highlights) == 0 {
		return res, nil
	}
	if err := q.index.CatchUp(ctx); err != nil {
		return res, err
	}
	views, rooms, err := q.searched(ctx, &req)
	if err != nil || len(rooms) == 0 {
		return res, err
	}
	limit := min(max(req.Limit, 1), maxLimit)
	skip := req.Skip
	for range pagesAtMost {
		size := max(limit+1, furtherPage)
		page, total, err := q.rooms.Storage.Search(ctx, res.Highlights, req.Keys, rooms, req.Recent, size, skip)
		if err != nil {
			return res, err
		}
		res.Count = total
		full, used, err := q.takeFound(ctx, &req, views, page, limit, &res)
		if err != nil {
			return res, err
		}
		skip += used
		if full {
			if used < len(page) || len(page) == size {
				res.Next = skip
			}
			break
		}
		if len(page) < size {
			break
		}
	}
	return res, q.completeFound(ctx, &req, views, &res)
}

// searchedRoom is a room that a search looks through.
type searchedRoom struct {
	room *storage.Room
	view *visibility.View
}

// searched are the rooms that the user is or was in, which the filter selects, and which are not encrypted.
func (q *Query) searched(ctx context.Context, req *api.QuerySearchRequest) (map[int64]searchedRoom, []int64, error) {
	own, err := q.rooms.Storage.UserRooms(ctx, req.Viewer.UserID)
	if err != nil {
		return nil, nil, err
	}
	var ids []id.RoomID
	for _, r := range own {
		if !r.Forgotten && req.Filter.MatchesRoom(r.RoomID) {
			ids = append(ids, r.RoomID)
		}
	}
	summaries, err := q.rooms.Storage.Summaries(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	ids = ids[:0]
	for i := range summaries {
		if summaries[i].Encryption == "" {
			ids = append(ids, summaries[i].RoomID)
		}
	}
	rooms, err := q.rooms.Rooms(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	views := make(map[int64]searchedRoom, len(rooms))
	nids := make([]int64, 0, len(rooms))
	for _, room := range rooms {
		views[room.NID] = searchedRoom{room: room}
		nids = append(nids, room.NID)
	}
	return views, nids, nil
}

// view is what the user may see of a room, looked up once.
func (q *Query) searchedView(ctx context.Context, viewer api.Viewer, views map[int64]searchedRoom, nid int64) (searchedRoom, error) {
	r := views[nid]
	if r.view == nil {
		var err error
		if r.view, err = q.checker.View(ctx, r.room, viewer); err != nil {
			return r, err
		}
		views[nid] = r
	}
	return r, nil
}

// takeFound adds those of a page that the user may see and the filter selects, and tells how many of the page it has used.
func (q *Query) takeFound(ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom, page []storage.Found, limit int,
	res *api.QuerySearchResponse) (full bool, used int, err error) {
	nids := make([]stateres.EventNID, len(page))
	for i := range page {
		nids[i] = page[i].NID
	}
	read, err := q.rooms.Fresh(ctx, nids)
	if err != nil {
		return false, 0, err
	}
	for _, found := range page {
		if len(res.Results) == limit {
			return true, used, nil
		}
		used++
		e := read[found.NID]
		if e.RedactedBy != "" || !req.Filter.Matches(e.PDU) {
			continue
		}
		r, err := q.searchedView(ctx, req.Viewer, views, e.RoomNID)
		if err != nil {
			return false, 0, err
		}
		seen, err := r.view.Filter(ctx, []*storage.Event{e})
		if err != nil {
			return false, 0, err
		}
		if len(seen) == 0 || seen[0].PDU != e.PDU { // not seen, or without the words that were looked for
			continue
		}
		if err := q.aggregate(ctx, r.room, r.view, req.Viewer, seen); err != nil {
			return false, 0, err
		}
		res.Results = append(res.Results, api.SearchResult{Rank: found.Rank, RoomID: r.room.ID, Event: seen[0]})
	}
	return len(res.Results) == limit, used, nil
}

// completeFound adds what else is wanted: the events around each result, the profiles of their senders, and the state of their rooms.
func (q *Query) completeFound(ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom, res *api.QuerySearchResponse) error {
	for i := range res.Results {
		result := &res.Results[i]
		room, err := q.room(ctx, result.RoomID)
		if err != nil {
			return err
		}
		r, err := q.searchedView(ctx, req.Viewer, views, room.NID)
		if err != nil {
			return err
		}
		if req.IncludeState && res.State[room.ID] == nil {
			now, err := q.QueryState(ctx, api.QueryStateRequest{Viewer: req.Viewer, RoomID: room.ID})
			if err != nil {
				return err
			}
			if res.State == nil {
				res.State = make(map[id.RoomID][]api.Event)
			}
			res.State[room.ID] = now.Events
		}
		if !req.Context {
			continue
		}
		found, err := q.rooms.EventsByID(ctx, []id.EventID{result.Event.PDU.ID()}, false)
		if err != nil {
			return err
		}
		middle := found[result.Event.PDU.ID()]
		around := &api.SearchContext{}
		last, err := q.around(ctx, r.room, r.view, middle, req.Before, req.After, nil, &around.QueryContextResponse)
		if err != nil {
			return err
		}
		if req.IncludeProfile {
			shown := slices.Concat([]api.Event{result.Event}, around.Before, around.After)
			if around.Profiles, err = q.profiles(ctx, r, last, shown); err != nil {
				return err
			}
		}
		result.Context = around
	}
	return nil
}

// profiles are what the members that sent events said of themselves at the newest one of these.
func (q *Query) profiles(ctx context.Context, r searchedRoom, newest *storage.Event, events []api.Event) (map[id.UserID]api.Profile, error) {
	members, err := q.senders(ctx, r.room, r.view, newest, events)
	profiles := make(map[id.UserID]api.Profile, len(members))
	for i := range members {
		e := members[i].PDU
		user, _ := e.StateKey()
		if e.Type() == pdu.TypeMember {
			profiles[id.UserID(user)] = api.Profile{DisplayName: state.ContentString(e, "displayname"), AvatarURL: gjson.GetBytes(e.Content(), "avatar_url").Str}
		}
	}
	return profiles, err
}
