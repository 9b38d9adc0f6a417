package query

import (
	"context"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// maxMutual is how many rooms a page of mutual rooms has.
const maxMutual = 500

// QueryMutualRooms is of the contract (Client-Server API, § Mutual Rooms). A token is the last room of its page, and
// stays valid.
func (q *Query) QueryMutualRooms(ctx context.Context, req api.QueryMutualRoomsRequest) (
	res api.QueryMutualRoomsResponse, err error) {
	if req.Other == req.UserID {
		return res, mxerr.InvalidParam("user_id must be of another user")
	}
	limit := maxMutual
	if req.Limit > 0 {
		limit = min(req.Limit, maxMutual)
	}
	res.Rooms, res.Count, err = q.rooms.Storage.MutualRooms(ctx, req.UserID, req.Other, req.After, limit+1)
	if len(res.Rooms) > limit {
		res.Rooms = res.Rooms[:limit]
		res.Next = res.Rooms[limit-1]
	}
	return res, err
}
