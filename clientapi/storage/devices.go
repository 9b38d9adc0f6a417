package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Device is a row of clientapi_devices.
type Device struct {
	UserID      id.UserID
	DeviceID    id.DeviceID
	DisplayName string
	CreatedMS   int64
	LastSeenMS  int64
	LastSeenIP  string
	Dehydrated  bool // nobody uses it yet (MSC3814)
}

type deviceStatements struct {
	surplusDevices, insertDevice, selectDevice, selectDevices, renameDevice, touchDevice, deleteDevices,
	deleteOtherDevices *sqlutil.Stmt
}

func prepareDevices(db *sqlutil.DB) deviceStatements {
	return deviceStatements{
		insertDevice: db.Stmt(`INSERT INTO clientapi_devices (user_id, device_id, display_name, created_ms, last_seen_ms,
				last_seen_ip, dehydrated) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, device_id)
			DO UPDATE SET last_seen_ms = excluded.last_seen_ms, last_seen_ip = excluded.last_seen_ip`),
		selectDevice: db.Stmt(`SELECT user_id, device_id, display_name, created_ms, last_seen_ms, last_seen_ip, dehydrated
			FROM clientapi_devices WHERE user_id = $1 AND device_id = $2`),
		selectDevices: db.Stmt(`SELECT user_id, device_id, display_name, created_ms, last_seen_ms, last_seen_ip, dehydrated
			FROM clientapi_devices WHERE user_id = $1 ORDER BY created_ms, device_id`),
		surplusDevices: db.Stmt(`SELECT device_id FROM clientapi_devices
			WHERE user_id = $1 AND device_id <> $2 AND dehydrated = FALSE ORDER BY last_seen_ms DESC, device_id LIMIT 1000000 OFFSET $3`),
		renameDevice: db.Stmt(`UPDATE clientapi_devices SET display_name = $3
			WHERE user_id = $1 AND device_id = $2 AND display_name <> $3`),
		touchDevice: db.Stmt(`UPDATE clientapi_devices SET last_seen_ms = $3, last_seen_ip = $4
			WHERE user_id = $1 AND device_id = $2 AND last_seen_ms < $3`),
		deleteDevices: db.Stmt(`DELETE FROM clientapi_devices
			WHERE user_id = $1 AND device_id = ANY($2) RETURNING device_id`),
		deleteOtherDevices: db.Stmt(`DELETE FROM clientapi_devices WHERE user_id = $1 AND device_id <> $2
			AND (dehydrated = FALSE OR $3 = TRUE) RETURNING device_id`),
	}
}

// PutDevice adds a device. One that exists keeps its name and is marked as seen.
func (s *Store) PutDevice(ctx context.Context, tx *sqlutil.Tx, d Device) error {
	_, err := s.insertDevice.Exec(ctx, tx, d.UserID, d.DeviceID, d.DisplayName, d.CreatedMS, d.LastSeenMS,
		d.LastSeenIP, d.Dehydrated)
	return err
}

// SurplusDevices returns those devices of a user, but for one and for dehydrated ones, that were not seen for the
// longest time, beyond so many with that one.
func (s *Store) SurplusDevices(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keep id.DeviceID,
	most int) ([]id.DeviceID, error) {
	rows, err := s.surplusDevices.Query(ctx, tx, user, keep, most-1)
	return sqlutil.Collect(rows, err, scanOne[id.DeviceID])
}

// Device returns one device; nil if there is none.
func (s *Store) Device(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) (*Device, error) {
	d := new(Device)
	err := s.selectDevice.QueryRow(ctx, tx, user, device).Scan(&d.UserID, &d.DeviceID, &d.DisplayName, &d.CreatedMS,
		&d.LastSeenMS, &d.LastSeenIP, &d.Dehydrated)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return d, err
}

// Devices returns all devices of a user, oldest first.
func (s *Store) Devices(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Device, error) {
	rows, err := s.selectDevices.Query(ctx, tx, user)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (d Device, err error) {
		err = rows.Scan(&d.UserID, &d.DeviceID, &d.DisplayName, &d.CreatedMS, &d.LastSeenMS, &d.LastSeenIP, &d.Dehydrated)
		return d, err
	})
}

// RenameDevice returns false if there is no such device that has another name.
func (s *Store) RenameDevice(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID,
	name string) (bool, error) {
	n, err := s.renameDevice.Exec(ctx, tx, user, device, name)
	return n == 1, err
}

// TouchDevice notes when and where a device was seen.
func (s *Store) TouchDevice(ctx context.Context, tx *sqlutil.Tx, d Device) error {
	_, err := s.touchDevice.Exec(ctx, tx, d.UserID, d.DeviceID, d.LastSeenMS, d.LastSeenIP)
	return err
}

// DeleteDevices removes devices of a user, and returns those that were there.
func (s *Store) DeleteDevices(ctx context.Context, tx *sqlutil.Tx, user id.UserID,
	devices []id.DeviceID) ([]id.DeviceID, error) {
	rows, err := s.deleteDevices.Query(ctx, tx, user, sqlutil.Array(devices))
	return sqlutil.Collect(rows, err, scanOne[id.DeviceID])
}

// DeleteOtherDevices removes all devices of a user but one, and returns them. An empty keep keeps none. Dehydrated
// devices stay, unless they are wanted too.
func (s *Store) DeleteOtherDevices(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keep id.DeviceID,
	dehydrated bool) ([]id.DeviceID, error) {
	rows, err := s.deleteOtherDevices.Query(ctx, tx, user, keep, dehydrated)
	return sqlutil.Collect(rows, err, scanOne[id.DeviceID])
}
