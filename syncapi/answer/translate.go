package answer

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Translate finds the newest event of a room that a token covers. M_INVALID_PARAM for what is no token.
func (e *Engine) Translate(ctx context.Context, room id.RoomID, given string) (roomserver.OrderKey, error) {
	token, err := ParseToken(given)
	if err != nil {
		return roomserver.OrderKey{}, err
	}
	var at map[id.RoomID]storage.TimelineRow
	err = e.Storage.Read(ctx, "token", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		at, err = e.Storage.At(ctx, tx, []id.RoomID{room}, token.Pos)
		return err
	})
	return at[room].Order, err
}
