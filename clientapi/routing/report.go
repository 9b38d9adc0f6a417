package routing

import (
	"context"
	"math"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// report reads a report's body and keeps it.
func (e *endpoints) report(ctx context.Context, r *httputil.Request, report storage.Report, needsReason bool) (any, error) {
	var body struct {
		Reason *string `json:"reason"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Reason != nil {
		report.Reason = *body.Reason
	} else if needsReason {
		return nil, mxerr.MissingParam("reason is missing: it may be empty")
	}
	report.Reporter = r.Caller.UserID
	return nil, e.Accounts.Report(ctx, report)
}

// reportRoom is POST /rooms/{roomId}/report. A room that nobody here knows can be reported too: the answer tells nothing.
func (e *endpoints) reportRoom(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	return e.report(ctx, r, storage.Report{RoomID: room}, true)
}

// reportEvent is POST /rooms/{roomId}/report/{eventId}.
func (e *endpoints) reportEvent(ctx context.Context, r *httputil.Request) (any, error) {
	room, eventID, err := eventOf(r)
	if err != nil {
		return nil, err
	}
	absent := mxerr.NotFound("there is no event %s in a room that you are in", eventID)
	if e.mustBeJoined(ctx, room, r.Caller.UserID) != nil {
		return nil, absent
	}
	found, err := e.Room.QueryEvents(ctx, roomserver.QueryEventsRequest{Viewer: viewer(r), RoomID: room, EventIDs: []id.EventID{eventID}})
	if err != nil {
		return nil, err
	}
	if len(found.Events) == 0 {
		return nil, absent
	}
	return e.report(ctx, r, storage.Report{RoomID: room, EventID: eventID, UserID: found.Events[0].PDU.Sender()}, false)
}

// reportUser is POST /users/{userId}/report.
func (e *endpoints) reportUser(ctx context.Context, r *httputil.Request) (any, error) {
	user, err := r.UserID("userID")
	if err != nil {
		return nil, err
	}
	return e.report(ctx, r, storage.Report{UserID: user}, true)
}

// reports is GET /_dendrite/admin/v1/reports: what users have reported, newest first.
func (e *endpoints) reports(ctx context.Context, r *httputil.Request) (any, error) {
	n, err := limit(r, usualEvents, maxEvents)
	if err != nil {
		return nil, err
	}
	before, err := r.QueryInt("from", math.MaxInt64)
	if err != nil {
		return nil, err
	}
	found, err := e.Accounts.Reports(ctx, r.Caller, int64(before), n)
	if err != nil {
		return nil, err
	}
	answer := httputil.Object{"reports": append([]storage.Report{}, found...)}
	if len(found) == n {
		answer["next_batch"] = found[n-1].ID
	}
	return answer, nil
}
