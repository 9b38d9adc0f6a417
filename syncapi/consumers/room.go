package consumers

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/input"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Room follows the roomserver's log into the index of timelines.
func Room(
	ctx context.Context, deps component.Deps, room *roomserver.RoomserverAPI, db *storage.Database, in *input.Input,
) (*eventlog.Consumer, error) {
	consumer, err := follow(ctx, deps, db, log{
		name: "room", topic: roomserver.Topic,
		read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
			return room.ReadLog(ctx, q)
		},
		heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
			return room.Heads(ctx, q)
		},
	}, in.Handle)
	if err != nil {
		return nil, fmt.Errorf("consumer of the roomserver's log: %w", err)
	}
	return consumer, nil
}
