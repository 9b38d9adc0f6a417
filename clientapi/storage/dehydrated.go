package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Dehydrated is the dehydrated device of a user.
type Dehydrated struct {
	DeviceID   id.DeviceID
	DeviceData json.RawMessage
}

type dehydratedStatements struct {
	selectDehydrated, putDehydrated *sqlutil.Stmt
}

func prepareDehydrated(db *sqlutil.DB) dehydratedStatements {
	return dehydratedStatements{
		selectDehydrated: db.Stmt(`SELECT device_id, device_data FROM clientapi_devices
			WHERE user_id = $1 AND dehydrated = TRUE`),
		putDehydrated: db.Stmt(`INSERT INTO clientapi_devices (user_id, device_id, display_name, created_ms, last_seen_ms,
				last_seen_ip, dehydrated, device_data) VALUES ($1, $2, $3, $4, 0, '', TRUE, $5)
			ON CONFLICT (user_id, device_id) DO UPDATE SET device_data = excluded.device_data
			WHERE clientapi_devices.dehydrated = TRUE`),
	}
}

// Dehydrated returns the dehydrated device of a user; nil if there is none.
func (s *Store) Dehydrated(ctx context.Context, tx *sqlutil.Tx, user id.UserID) (*Dehydrated, error) {
	d := new(Dehydrated)
	var data string
	err := s.selectDehydrated.QueryRow(ctx, tx, user).Scan(&d.DeviceID, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	d.DeviceData = json.RawMessage(data)
	return d, err
}

// PutDehydrated adds a dehydrated device, or replaces the data of the one that has its id; another is a unique
// violation. It is false if the id is that of a device in use.
func (s *Store) PutDehydrated(ctx context.Context, tx *sqlutil.Tx, d Device, data json.RawMessage) (bool, error) {
	n, err := s.putDehydrated.Exec(ctx, tx, d.UserID, d.DeviceID, d.DisplayName, d.CreatedMS, string(data))
	return n == 1, err
}
