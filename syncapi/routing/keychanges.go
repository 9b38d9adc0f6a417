package routing

import (
	"context"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/answer"
)

// keysChanges is GET /keys/changes.
func (s *routes) keysChanges(ctx context.Context, r *httputil.Request) (any, error) {
	var span [2]answer.Token
	for i, name := range []string{"from", "to"} {
		token, err := tokenOf(r, name)
		if err != nil {
			return nil, err
		}
		if token == nil {
			return nil, mxerr.MissingParam("%s is missing: it must be the next_batch of a /sync", name)
		}
		span[i] = *token
	}
	lists, err := s.Engine.KeysChanged(ctx, r.Caller.UserID, span[0], span[1])
	if err != nil {
		return nil, err
	}
	changed, left := append([]id.UserID{}, lists.Changed...), append([]id.UserID{}, lists.Left...)
	return httputil.Object{"changed": changed, "left": left}, nil
}
