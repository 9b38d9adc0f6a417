package consumers

import (
	"context"
	"fmt"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// User follows clientapi's log of users and devices. onGone is told when devices were deleted.
func User(
	ctx context.Context, deps component.Deps, client *clientapi.ClientAPI, db *storage.Database, onGone func(),
) (*eventlog.Consumer, error) {
	consumer, err := follow(ctx, deps, db, log{
		name: "user", topic: clientapi.Topic,
		read: func(ctx context.Context, q eventlog.ReadRequest) (eventlog.ReadResponse, error) {
			return client.ReadLog(ctx, q)
		},
		heads: func(ctx context.Context, q eventlog.HeadsRequest) (eventlog.HeadsResponse, error) {
			return client.Heads(ctx, q)
		},
	}, func(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
		return applyUsers(db, records, onGone)
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of clientapi's log: %w", err)
	}
	return consumer, nil
}

// gone are devices that are logged out, and users who are erased, with what else is said of keys.
type gone struct {
	devices []*clientapi.OutputDevice
	erased  []id.UserID
	keys    keyChanges
}

// applyUsers removes the pushers of devices that are logged out (Client-Server API, § Push Notifications) and what is
// sent to them, and everything that is kept of users who are erased, and keeps what is said of keys.
func applyUsers(db *storage.Database, records []eventlog.Record, onGone func()) (eventlog.Apply, error) {
	var g gone
	for i := range records {
		if err := g.keys.take(&records[i]); err != nil {
			return nil, err
		}
		switch records[i].Type {
		case clientapi.TypeDeviceDeleted:
			device, err := eventlog.Decode[clientapi.OutputDevice](&records[i])
			if err != nil {
				return nil, err
			}
			g.devices = append(g.devices, device)
			g.keys.end(device)
		case clientapi.TypeErased:
			user, err := eventlog.Decode[clientapi.OutputErased](&records[i])
			if err != nil {
				return nil, err
			}
			g.erased = append(g.erased, user.UserID)
		}
	}
	if g.devices == nil && g.erased == nil && g.keys.isNothing() {
		return nil, nil
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error {
		add := storage.AddReading
		if g.devices == nil && g.erased == nil && g.keys.updated == nil {
			add = storage.Add // nothing is looked up or removed: its rows need no statement of their own
		}
		add(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*storage.Changes, error) {
			return g.drop(ctx, tx, db, pos)
		})
		if g.devices != nil {
			tx.AfterCommit(onGone)
		}
		return nil
	}, nil
}

// drop removes what they have set. It takes its turn among their own writes, so that none is left.
func (g *gone) drop(
	ctx context.Context, tx *sqlutil.Tx, db *storage.Database, pos int64,
) (*storage.Changes, error) {
	if err := db.Erase(ctx, tx, g.erased); err != nil {
		return nil, err
	}
	if err := db.PutGone(ctx, tx, inboxesOf(g.devices, pos)); err != nil {
		return nil, err
	}
	changes := new(storage.Changes)
	for _, device := range g.devices {
		touched, err := db.DropPushersOf(ctx, tx, device.UserID, device.DeviceID)
		if err != nil {
			return nil, err
		}
		changes.Touched = append(changes.Touched, touched...)
		if err := db.DropDeviceKeys(ctx, tx, device.UserID, device.DeviceID); err != nil {
			return nil, err
		}
		counts := storage.Touched{Kind: storage.KindKeyCounts, User: device.UserID, Device: device.DeviceID}
		changes.Touched = append(changes.Touched, counts)
	}
	return changes, g.keys.addTo(ctx, tx, db, pos, changes)
}
