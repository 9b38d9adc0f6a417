package storage

import (
	"context"
	"encoding/json"

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
	t.of = db.Stmt(`SELECT ` + t.list("k") + ` FROM syncapi_device_keys k WHERE k.user_id = $1 AND k.device_id = $2`)
	t.drop = db.Stmt(`DELETE FROM syncapi_device_keys WHERE user_id = $1 AND ($2 = '' OR device_id = $2)`)
	return t
}

// DeviceKeysOf returns what is known of a device's keys; nil if it never had any.
func (d *Database) DeviceKeysOf(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID,
) (*DeviceKeys, error) {
	return first(d.deviceKeys.read(ctx, tx, d.deviceKeys.of, user, device))
}

// DropDeviceKeys forgets the keys of a user's device, or, without one, of all of the user's.
func (d *Database) DropDeviceKeys(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	_, err := d.deviceKeys.drop.Exec(ctx, tx, user, device)
	return err
}
