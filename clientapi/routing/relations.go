package routing

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

const (
	usualRelations = 50
	maxRelations   = 100 // each may have further events in it
)

// aggregated asks for events with what relates to them. Events of those whom the user ignores do not count there; since most answers
// have no relations and most users ignore nobody, it is only then that it asks again.
func (e *endpoints) aggregated(ctx context.Context, r *httputil.Request, ask func(roomserver.Viewer) ([]roomserver.Event, error)) error {
	v := viewer(r)
	events, err := ask(v)
	if err != nil || !slices.ContainsFunc(events, func(e roomserver.Event) bool { return e.Relations != nil }) {
		return err
	}
	ignored, err := e.Sync.QueryIgnored(ctx, syncapi.QueryIgnoredRequest{UserID: v.UserID})
	if err != nil || len(ignored.Users) == 0 {
		return err
	}
	v.Ignored = ignored.Users
	_, err = ask(v)
	return err
}

// relations is GET /rooms/{roomId}/relations/{eventId}, with or without relType and eventType.
func (e *endpoints) relations(ctx context.Context, r *httputil.Request) (any, error) {
	room, parent, err := eventOf(r)
	if err != nil {
		return nil, err
	}
	dir := r.Query("dir")
	if err := oneOf("dir", dir, "b", "f"); err != nil {
		return nil, err
	}
	query := roomserver.QueryRelationsRequest{RoomID: room, EventID: parent, RelType: r.Var("relType"), EventType: r.Var("eventType"),
		Backward: dir != "f"}
	if query.Recurse, err = r.QueryBool("recurse"); err != nil {
		return nil, err
	}
	if query.Limit, err = limit(r, usualRelations, maxRelations); err != nil {
		return nil, err
	}
	if query.From, err = e.place(ctx, r, "from", room); err != nil {
		return nil, err
	}
	if query.To, err = e.place(ctx, r, "to", room); err != nil {
		return nil, err
	}
	var page roomserver.QueryPageResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		query.Viewer = v
		page, err = e.Room.QueryRelations(ctx, query)
		return page.Chunk, err
	})
	if err != nil {
		return nil, err
	}
	answer := pageOf(r, &page)
	if query.From != nil {
		answer["prev_batch"] = query.From.Token()
	}
	switch {
	case query.Recurse:
		answer["recursion_depth"] = roomserver.RelationsDepth
	case r.Query("recurse") != "":
		answer["recursion_depth"] = 1
	}
	return answer, nil
}

func pageOf(r *httputil.Request, page *roomserver.QueryPageResponse) httputil.Object {
	answer := httputil.Object{"chunk": clientEvents(r, page.Chunk)}
	if page.End != nil {
		answer["next_batch"] = page.End.Token()
	}
	return answer
}

// threads is GET /rooms/{roomId}/threads.
func (e *endpoints) threads(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	include := r.Query("include")
	if err := oneOf("include", include, "all", "participated"); err != nil {
		return nil, err
	}
	query := roomserver.QueryThreadsRequest{RoomID: room, Participated: include == "participated"}
	n, err := r.QueryInt("limit", usualRelations)
	if err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, mxerr.InvalidParam("limit must be greater than 0")
	}
	query.Limit = min(n, maxRelations)
	if token := r.Query("from"); token != "" {
		from, err := roomserver.ParseOrderToken(token)
		if err != nil {
			return nil, mxerr.InvalidParam("from is not a token of this endpoint")
		}
		query.From = &from
	}
	var page roomserver.QueryPageResponse
	err = e.aggregated(ctx, r, func(v roomserver.Viewer) ([]roomserver.Event, error) {
		query.Viewer = v
		page, err = e.Room.QueryThreads(ctx, query)
		return page.Chunk, err
	})
	if err != nil {
		return nil, err
	}
	return pageOf(r, &page), nil
}

// timestampToEvent is GET /rooms/{roomId}/timestamp_to_event.
func (e *endpoints) timestampToEvent(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"ts", "dir"} {
		if r.Query(name) == "" {
			return nil, mxerr.MissingParam("%s is missing", name)
		}
	}
	if err := oneOf("dir", r.Query("dir"), "b", "f"); err != nil {
		return nil, err
	}
	ts, err := r.QueryInt("ts", 0)
	if err != nil {
		return nil, err
	}
	found, err := e.Room.QueryTimestamp(ctx, roomserver.QueryTimestampRequest{Viewer: viewer(r), RoomID: room,
		Timestamp: int64(ts), Backward: r.Query("dir") == "b"})
	if err != nil {
		return nil, err
	}
	return httputil.Object{"event_id": found.EventID, "origin_server_ts": found.Timestamp}, nil
}
