package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Changes are the rows of a commit. The positions after Prev up to Pos are covered by it.
type Changes struct {
	Prev, Pos   int64
	Rooms       []Room
	Timeline    []TimelineRow
	Memberships []Membership
	Mentions    []Mention
	Frozen      []Frozen
	Receipts    []Receipt
	AccountData []AccountData
	DeviceLists []DeviceList
	DeviceKeys  []DeviceKeys
	ToDevice    []ToDevice
	// Touched is what has changed without a row here.
	Touched []Touched
	// Redacted are events whose bodies have changed.
	Redacted []id.EventID
}

func (c *Changes) add(d *Changes) {
	c.Rooms = append(c.Rooms, d.Rooms...)
	c.Timeline = append(c.Timeline, d.Timeline...)
	c.Memberships = append(c.Memberships, d.Memberships...)
	c.Mentions = append(c.Mentions, d.Mentions...)
	c.Frozen = append(c.Frozen, d.Frozen...)
	c.Receipts = append(c.Receipts, d.Receipts...)
	c.AccountData = append(c.AccountData, d.AccountData...)
	c.DeviceLists = append(c.DeviceLists, d.DeviceLists...)
	c.DeviceKeys = append(c.DeviceKeys, d.DeviceKeys...)
	c.ToDevice = append(c.ToDevice, d.ToDevice...)
	c.Touched = append(c.Touched, d.Touched...)
	c.Redacted = append(c.Redacted, d.Redacted...)
}

// insert writes all rows, each table's with one statement.
func (d *Database) insert(ctx context.Context, tx *sqlutil.Tx, c *Changes) error {
	for _, put := range []func() error{
		func() error { return d.rooms.put(ctx, tx, c.Rooms) },
		func() error { return d.timeline.put(ctx, tx, c.Timeline) },
		func() error { return d.memberships.put(ctx, tx, c.Memberships) },
		func() error { return d.mentions.put(ctx, tx, c.Mentions) },
		func() error { return d.frozen.put(ctx, tx, c.Frozen) },
		func() error { return d.receipts.put(ctx, tx, c.Receipts) },
		func() error { return d.accountData.put(ctx, tx, c.AccountData) },
		func() error { return d.deviceLists.put(ctx, tx, c.DeviceLists) },
		func() error { return d.deviceKeys.put(ctx, tx, c.DeviceKeys) },
		func() error { return d.toDevice.put(ctx, tx, c.ToDevice) },
	} {
		if err := put(); err != nil {
			return err
		}
	}
	return nil
}
