package consumers

import (
	"context"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Room follows the roomserver's log, from when the component first starts on. idle tells that what happens in rooms is
// for nobody: unlike what the other logs say, it counts for services that come back too.
func Room(ctx context.Context, deps component.Deps, room *roomserver.RoomserverAPI, idle func() bool,
	takers ...Taker) (*eventlog.Consumer, error) {
	return follow(ctx, deps, "room", roomserver.Topic, eventlog.Newest, eventlog.Source{
		Read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
			return room.ReadLog(ctx, q)
		},
		Heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
			return room.Heads(ctx, q)
		},
	}, idle, takers)
}
