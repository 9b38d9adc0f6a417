package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// encryptionStatements are those of all that encryption needs in transactions.
type encryptionStatements struct {
	toDeviceStatements
	keyCountStatements
	sharedUserStatements
	listUserStatements
	listRoomStatements
	listChangeStatements
	listServiceStatements
	selectEncryptionWaiting *sqlutil.Stmt
}

func prepareEncryption(db *sqlutil.DB) encryptionStatements {
	return encryptionStatements{
		toDeviceStatements:    prepareToDevice(db),
		keyCountStatements:    prepareKeyCounts(db),
		sharedUserStatements:  prepareSharedUsers(db),
		listUserStatements:    prepareListUsers(db),
		listRoomStatements:    prepareListRooms(db),
		listChangeStatements:  prepareListChanges(db),
		listServiceStatements: prepareListServices(db),
		selectEncryptionWaiting: db.Stmt(`SELECT one.service FROM (SELECT service FROM appservice_list_services
				UNION SELECT service FROM appservice_to_device_last) AS one
			WHERE EXISTS (SELECT 1 FROM appservice_to_device row WHERE row.service = one.service)
			OR EXISTS (SELECT 1 FROM appservice_list_changes row WHERE row.service = one.service)
			OR EXISTS (SELECT 1 FROM appservice_key_counts row WHERE row.service = one.service AND row.version <> 0)`),
	}
}

// EncryptionWaiting lists the services for which there are messages to devices, changes of device lists or of counts of
// keys. It makes its own transaction.
func (s *Store) EncryptionWaiting(ctx context.Context) (services []string, err error) {
	err = s.DB.ReadOne(ctx, "encryption waits", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectEncryptionWaiting.Query(ctx, tx)
		services, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (service string, err error) {
			return service, rows.Scan(&service)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("services for which something of encryption waits: %w", err)
	}
	return services, nil
}
