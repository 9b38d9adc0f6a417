package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// DeviceKeys is a row of clientapi_device_keys.
type DeviceKeys struct {
	UserID      id.UserID
	DeviceID    id.DeviceID
	PublicKey   string
	Signature   string
	JSON        string
	DisplayName string // of the device
}

type deviceKeyStatements struct {
	lockDevice, selectDeviceIDs, selectDeviceKeys, selectUsersDeviceKeys, upsertDeviceKeys, deleteDeviceKeys *sqlutil.Stmt
}

func prepareDeviceKeys(db *sqlutil.DB) deviceKeyStatements {
	return deviceKeyStatements{
		lockDevice: db.Stmt(`SELECT 1 FROM clientapi_devices WHERE user_id = $1 AND device_id = $2 FOR UPDATE`),
		selectDeviceIDs: db.Stmt(`SELECT user_id, device_id FROM clientapi_devices
			WHERE user_id = ANY($1) ORDER BY user_id, device_id`),
		selectDeviceKeys: db.Stmt(`SELECT public_key, signature, json FROM clientapi_device_keys
			WHERE user_id = $1 AND device_id = $2`),
		selectUsersDeviceKeys: db.Stmt(`SELECT k.user_id, k.device_id, k.public_key, k.signature, k.json, d.display_name
			FROM clientapi_device_keys k JOIN clientapi_devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
			WHERE k.user_id = ANY($1)`),
		upsertDeviceKeys: db.Stmt(`INSERT INTO clientapi_device_keys (user_id, device_id, public_key, signature, json)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, device_id)
			DO UPDATE SET public_key = excluded.public_key, signature = excluded.signature, json = excluded.json`),
		deleteDeviceKeys: db.Stmt(`DELETE FROM clientapi_device_keys
			WHERE user_id = $1 AND device_id = ANY($2) RETURNING device_id`),
	}
}

// LockDevice tells whether there is a device, and keeps it there, and its keys as they are, until the transaction ends.
func (s *Store) LockDevice(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) (bool, error) {
	var one int
	err := s.lockDevice.QueryRow(ctx, tx, user, device).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// DeviceIDs lists the devices of users, by their ids: UserID and DeviceID.
func (s *Store) DeviceIDs(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]Device, error) {
	rows, err := s.selectDeviceIDs.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (d Device, err error) {
		return d, rows.Scan(&d.UserID, &d.DeviceID)
	})
}

// DeviceKeys returns the identity keys of a device, without its name; nil if it has none.
func (s *Store) DeviceKeys(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) (*DeviceKeys,
	error) {
	k := &DeviceKeys{UserID: user, DeviceID: device}
	err := s.selectDeviceKeys.QueryRow(ctx, tx, user, device).Scan(&k.PublicKey, &k.Signature, &k.JSON)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return k, err
}

// UsersDeviceKeys returns the identity keys of all devices of users.
func (s *Store) UsersDeviceKeys(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]DeviceKeys, error) {
	rows, err := s.selectUsersDeviceKeys.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (k DeviceKeys, err error) {
		return k, rows.Scan(&k.UserID, &k.DeviceID, &k.PublicKey, &k.Signature, &k.JSON, &k.DisplayName)
	})
}

// PutDeviceKeys sets the identity keys of a device.
func (s *Store) PutDeviceKeys(ctx context.Context, tx *sqlutil.Tx, k DeviceKeys) error {
	_, err := s.upsertDeviceKeys.Exec(ctx, tx, k.UserID, k.DeviceID, k.PublicKey, k.Signature, k.JSON)
	return err
}

// DeleteDeviceKeys removes the identity keys of devices, and returns those devices that had some.
func (s *Store) DeleteDeviceKeys(ctx context.Context, tx *sqlutil.Tx, user id.UserID,
	devices []id.DeviceID) ([]id.DeviceID, error) {
	rows, err := s.deleteDeviceKeys.Query(ctx, tx, user, sqlutil.Array(devices))
	return sqlutil.Collect(rows, err, scanOne[id.DeviceID])
}
