package storage

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// DeviceKeys is what can be claimed of a device's keys.
type DeviceKeys struct {
	UserID   id.UserID
	DeviceID id.DeviceID
	Pos      int64
	OneTime  json.RawMessage // an object: how many one-time keys are left, by algorithm
	Fallback json.RawMessage // an array: the algorithms of fallback keys that were not given yet
}

type deviceKeysTable struct {
	table[DeviceKeys]
	of, drop *sqlutil.Stmt
}

func newDeviceKeysTable(db *sqlutil.DB) deviceKeysTable {
	t := deviceKeysTable{table: table[DeviceKeys]{name: "syncapi_device_keys", key: []string{"user_id", "device_id"},
		replaces: true, columns: []column[DeviceKeys]{
			col("user_id", func(k *DeviceKeys) *id.UserID { return &k.UserID }),
			col("device_id", func(k *DeviceKeys) *id.DeviceID { return &k.DeviceID }),
			col("pos", func(k *DeviceKeys) *int64 { return &k.Pos }),
			jsonCol("one_time", func(k *DeviceKeys) *json.RawMessage { return &k.OneTime }),
			jsonCol("fallback", func(k *DeviceKeys) *json.RawMessage { return &k.Fallback }),
		}}.on(db)}
	t.of = db.Stmt(`SELECT p.pos, COALESCE(k.pos, 0), COALESCE(k.one_time, ''), COALESCE(k.fallback, '')
		FROM syncapi_position p LEFT JOIN syncapi_device_keys k ON k.user_id = $1 AND k.device_id = $2
		WHERE p.id = 1`)
	t.drop = db.Stmt(`DELETE FROM syncapi_device_keys WHERE user_id = $1 AND ($2 = '' OR device_id = $2)`)
	return t
}

// DeviceKeysOf returns what is known of a device's keys at the last position, which it returns too; nil if the device
// never had any.
func (d *Database) DeviceKeysOf(ctx context.Context, user id.UserID, device id.DeviceID,
) (keys *DeviceKeys, at int64, err error) {
	err = d.db.ReadOne(ctx, "keys of a device", func(ctx context.Context, tx *sqlutil.Tx) error {
		var oneTime, fallback string
		keys = &DeviceKeys{UserID: user, DeviceID: device}
		err := d.deviceKeys.of.QueryRow(ctx, tx, user, device).Scan(&at, &keys.Pos, &oneTime, &fallback)
		keys.OneTime, keys.Fallback = json.RawMessage(oneTime), json.RawMessage(fallback)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("keys of device %s of %s: %w", device, user, err)
	}
	if keys.Pos == 0 {
		keys = nil
	}
	return keys, at, nil
}

// DropDeviceKeys forgets the keys of a user's device, or, without one, of all of the user's.
func (d *Database) DropDeviceKeys(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	_, err := d.deviceKeys.drop.Exec(ctx, tx, user, device)
	return err
}
