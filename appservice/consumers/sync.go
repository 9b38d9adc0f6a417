package consumers

import (
	"context"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	syncapi "github.com/matrix-org/dendrite/syncapi/api"
)

// Sync follows syncapi's log, of messages to devices, receipts and presence.
func Sync(ctx context.Context, deps component.Deps, sync *syncapi.SyncAPI,
	takers ...Taker) (*eventlog.Consumer, error) {
	return follow(ctx, deps, "sync", syncapi.Topic, eventlog.Oldest, eventlog.Source{
		Read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
			return sync.ReadLog(ctx, q)
		},
		Heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
			return sync.Heads(ctx, q)
		},
	}, unregistered(deps), takers)
}
