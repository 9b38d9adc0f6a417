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

const (
	// countedAtMost is how many results are counted at most: whoever has so many looks for better words.
	countedAtMost = 1000
	// searchPage is how many matches are looked up at once: mostly all that are counted.
	searchPage = countedAtMost + 1
	// searchRead is how many of them are in memory at once.
	searchRead = 100
	// matchesAtMost bounds the work for somebody who may see next to none of what matches.
	matchesAtMost = 20_000
)

// QuerySearch is of the contract. Events that the viewer may not see, or that the filter does not select, are passed
// over: they are neither counted, nor do they make a further page.
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
	after, shown, err := q.searchPlace(ctx, &req, views)
	if err != nil {
		return res, err
	}
	res.Count = shown
	limit := min(max(req.Limit, 1), maxLimit)
	most := max(countedAtMost, shown+int64(limit)+1)
	answer := searchAnswer{QuerySearchResponse: &res, limit: limit, shown: shown}
	for looked := 0; looked < matchesAtMost; looked += searchPage {
		page, err := q.rooms.Storage.Search(ctx, res.Highlights, req.Keys, rooms, req.Recent, after, searchPage)
		if err != nil {
			return res, err
		}
		for chunk := range slices.Chunk(page, searchRead) {
			seen, err := q.seenOf(ctx, &req, views, chunk)
			if err != nil {
				return res, err
			}
			for _, found := range chunk {
				if e, is := seen[found.NID]; is && res.Count < most {
					answer.add(found, e)
				}
			}
		}
		if len(page) < searchPage || res.Count >= most {
			break
		}
		after = page[searchPage-1]
	}
	return res, q.completeFound(ctx, &req, views, &answer)
}

// searchAnswer is an answer that is being made.
type searchAnswer struct {
	*api.QuerySearchResponse
	limit int
	shown int64           // results of earlier pages
	found []storage.Found // of the results
}

// add takes up what was found: as a result or, if the page is full, as what comes later.
func (a *searchAnswer) add(found storage.Found, e api.Event) {
	a.Count++
	switch {
	case len(a.Results) < a.limit:
		a.Results = append(a.Results, api.SearchResult{Rank: found.Rank, RoomID: e.PDU.RoomID(), Event: e})
		a.found = append(a.found, found)
	case a.Next == nil:
		a.end(a.limit)
	}
}

// end has the page end after so many results, and the next one begin there.
func (a *searchAnswer) end(n int) {
	a.Results = a.Results[:n]
	last := a.found[n-1]
	a.Next = &api.SearchPlace{EventID: a.Results[n-1].Event.PDU.ID(), Rank: last.Rank, Sent: last.Sent,
		Shown: a.shown + int64(n)}
}

// searchPlace is where a page begins, and how many results came before it. The event that it comes after is one that
// the viewer still sees; else nothing of the same rank and time comes on this page.
func (q *Query) searchPlace(ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom) (
	_ storage.Found, shown int64, err error) {
	if req.From == nil {
		return storage.BeforeFound(), 0, nil
	}
	place := storage.Found{Rank: req.From.Rank, Sent: req.From.Sent}
	found, err := q.rooms.EventsByID(ctx, []id.EventID{req.From.EventID}, true)
	e := found[req.From.EventID]
	if err != nil || e == nil || views[e.RoomNID].room == nil {
		return place, req.From.Shown, err
	}
	r, err := q.searchedView(ctx, req.Viewer, views, e.RoomNID)
	if err != nil {
		return place, 0, err
	}
	seen, err := r.view.Filter(ctx, []*storage.Event{e})
	if len(seen) > 0 {
		place.NID = e.NID
	}
	return place, req.From.Shown, err
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

// seenOf are those of some matches that the user may see, with the words that were looked for, and that the filter
// selects.
func (q *Query) seenOf(ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom,
	page []storage.Found) (map[stateres.EventNID]api.Event, error) {
	var nids []stateres.EventNID
	for _, found := range page {
		r, err := q.searchedView(ctx, req.Viewer, views, found.RoomNID)
		if err != nil {
			return nil, err
		}
		if r.view.Searches(found.Order) {
			nids = append(nids, found.NID)
		}
	}
	read, err := q.rooms.Fresh(ctx, nids)
	if err != nil {
		return nil, err
	}
	inRoom := make(map[int64][]*storage.Event)
	for _, nid := range nids {
		if e := read[nid]; e.RedactedBy == "" && req.Filter.Matches(e.PDU) {
			inRoom[e.RoomNID] = append(inRoom[e.RoomNID], e)
		}
	}
	all := make(map[stateres.EventNID]api.Event, len(nids))
	for roomNID, events := range inRoom {
		seen, err := views[roomNID].view.Filter(ctx, events)
		if err != nil {
			return nil, err
		}
		shown := make(map[*pdu.Event]api.Event, len(seen))
		for _, e := range seen {
			shown[e.PDU] = e // that of an erased user is another one, without the words
		}
		for _, e := range events {
			if s, is := shown[e.PDU]; is {
				all[e.NID] = s
			}
		}
	}
	return all, nil
}

// completeFound adds what else is wanted: what relates to each result, the events around it, the profiles of their
// senders, and the state of their rooms. The page ends with the result by which it has its bytes.
func (q *Query) completeFound(
	ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom, answer *searchAnswer,
) error {
	bytes := 0
	for i := range answer.Results {
		if bytes >= pageBytes {
			answer.end(i)
			break
		}
		size, err := q.completeOne(ctx, req, views, answer.QuerySearchResponse, &answer.Results[i])
		if err != nil {
			return err
		}
		bytes += size
	}
	return nil
}

// completeOne is completeFound for one result. It returns how many bytes of events that is, about.
func (q *Query) completeOne(ctx context.Context, req *api.QuerySearchRequest, views map[int64]searchedRoom,
	res *api.QuerySearchResponse, result *api.SearchResult) (bytes int, err error) {
	room, err := q.room(ctx, result.RoomID)
	if err != nil {
		return 0, err
	}
	r, err := q.searchedView(ctx, req.Viewer, views, room.NID)
	if err != nil {
		return 0, err
	}
	shown := []api.Event{result.Event}
	if err := q.aggregate(ctx, room, r.view, req.Viewer, shown); err != nil {
		return 0, err
	}
	result.Event = shown[0]
	if req.IncludeState && res.State[room.ID] == nil {
		now, err := q.QueryState(ctx, api.QueryStateRequest{Viewer: req.Viewer, RoomID: room.ID})
		if err != nil {
			return 0, err
		}
		if res.State == nil {
			res.State = make(map[id.RoomID][]api.Event)
		}
		res.State[room.ID] = now.Events
		bytes = sizeOfAll(now.Events)
	}
	if req.Context {
		if result.Context, err = q.searchContext(ctx, req, r, result.Event); err != nil {
			return 0, err
		}
		bytes += sizeOfAll(result.Context.Before) + sizeOfAll(result.Context.After)
	}
	return bytes + sizeOf(&result.Event), nil
}

// searchContext is what surrounds a result.
func (q *Query) searchContext(ctx context.Context, req *api.QuerySearchRequest, r searchedRoom, result api.Event) (
	*api.SearchContext, error) {
	found, err := q.rooms.EventsByID(ctx, []id.EventID{result.PDU.ID()}, false)
	if err != nil {
		return nil, err
	}
	around := new(api.SearchContext)
	last, err := q.around(ctx, r.room, r.view, found[result.PDU.ID()], req.Before, req.After, nil,
		&around.QueryContextResponse)
	if err == nil && req.IncludeProfile {
		around.Profiles, err = q.profiles(ctx, r, last, slices.Concat([]api.Event{result}, around.Before, around.After))
	}
	return around, err
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
