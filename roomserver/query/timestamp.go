package query

import (
	"context"
	"math"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// QueryTimestamp is of the contract.
func (q *Query) QueryTimestamp(ctx context.Context, req api.QueryTimestampRequest) (res api.QueryTimestampResponse, err error) {
	room, v, err := q.view(ctx, req.RoomID, req.Viewer)
	if err != nil {
		return res, err
	}
	time, nid := req.Timestamp, stateres.EventNID(0)
	if req.Backward {
		nid = math.MaxInt64
	}
	size := 1
	for range pagesAtMost {
		page, err := q.rooms.Storage.SentAround(ctx, room.NID, time, nid, req.Backward, size)
		if err != nil {
			return res, err
		}
		seen, err := v.Filter(ctx, page)
		if err != nil {
			return res, err
		}
		if len(seen) > 0 {
			return api.QueryTimestampResponse{EventID: seen[0].PDU.ID(), Timestamp: seen[0].PDU.OriginServerTS()}, nil
		}
		if len(page) < size {
			break
		}
		last := page[len(page)-1]
		time, nid, size = last.PDU.OriginServerTS(), last.NID, maxLimit
	}
	return res, mxerr.NotFound("there is no event that you may see in this direction from %d", req.Timestamp)
}
