package consumers

import (
	"context"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
)

// User follows clientapi's log, of devices and their keys.
func User(ctx context.Context, deps component.Deps, client *clientapi.ClientAPI,
	takers ...Taker) (*eventlog.Consumer, error) {
	return follow(ctx, deps, "user", clientapi.Topic, eventlog.Oldest, eventlog.Source{
		Read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
			return client.ReadLog(ctx, q)
		},
		Heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
			return client.Heads(ctx, q)
		},
	}, unregistered(deps), takers)
}
