package storage

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ToDevice are messages to devices that wait for a service, in a form that is not for this package to know.
type ToDevice struct {
	Service string
	Number  int64
	Taken   int // how many of the messages are in transactions already
	Body    []byte
}

type toDeviceStatements struct {
	numberToDevice, selectToDevice, deleteToDevice, updateToDevice, trimToDevice *sqlutil.Stmt
	dropToDevice, dropToDeviceLast                                               *sqlutil.Stmt
	insertToDevice                                                               *sqlutil.Insert
}

func prepareToDevice(db *sqlutil.DB) toDeviceStatements {
	return toDeviceStatements{
		// The row stays locked until the transaction ends, so that numbers are committed in their order.
		numberToDevice: db.Stmt(`INSERT INTO appservice_to_device_last (service, number) VALUES ($1, $2::bigint)
			ON CONFLICT (service) DO UPDATE SET number = appservice_to_device_last.number + $2::bigint RETURNING number`),
		insertToDevice: db.Insert("appservice_to_device", []string{"service", "number", "taken", "size", "body"}, ""),
		// before is the size of the rows before.
		selectToDevice: db.Stmt(`SELECT number, taken, body FROM (
				SELECT number, taken, body, SUM(size) OVER (ORDER BY number) - size AS before
				FROM (SELECT * FROM appservice_to_device WHERE service = $1 ORDER BY number LIMIT $2) AS few) AS first
			WHERE before < $3::bigint ORDER BY number`),
		deleteToDevice:   db.Stmt(`DELETE FROM appservice_to_device WHERE service = $1 AND number = ANY($2)`),
		updateToDevice:   db.Stmt(`UPDATE appservice_to_device SET taken = $3 WHERE service = $1 AND number = $2`),
		dropToDevice:     db.Stmt(`DELETE FROM appservice_to_device WHERE service = $1`),
		dropToDeviceLast: db.Stmt(`DELETE FROM appservice_to_device_last WHERE service = $1`),
		trimToDevice:     db.Stmt(`DELETE FROM appservice_to_device WHERE service = $1 AND number <= $2`),
	}
}

// trimEach is how many rows come between two looks whether there are too many.
const trimEach = 1000

// PutToDevice adds messages after all that wait for their services. It gives the rows their numbers. Of more rows than most,
// the oldest of a service go.
func (s *Store) PutToDevice(ctx context.Context, tx *sqlutil.Tx, rows []ToDevice, most int64) error {
	of := make(map[string][]*ToDevice)
	var services []string
	for i := range rows {
		service := rows[i].Service
		if of[service] == nil {
			services = append(services, service)
		}
		of[service] = append(of[service], &rows[i])
	}
	slices.Sort(services) // whoever locks several does so in one order
	var all [][]any
	for _, service := range services {
		var last int64
		n := int64(len(of[service]))
		if err := s.numberToDevice.QueryRow(ctx, tx, service, n).Scan(&last); err != nil {
			return fmt.Errorf("messages to devices: %w", err)
		}
		if last/trimEach != (last-n)/trimEach && last > most {
			if _, err := s.trimToDevice.Exec(ctx, tx, service, last-most); err != nil {
				return fmt.Errorf("messages to devices: %w", err)
			}
		}
		for i, row := range of[service] {
			row.Number = last - n + 1 + int64(i)
			all = append(all, []any{service, row.Number, row.Taken, len(row.Body), string(row.Body)})
		}
	}
	if _, err := s.insertToDevice.Exec(ctx, tx, all); err != nil {
		return fmt.Errorf("messages to devices: %w", err)
	}
	return nil
}

// ToDevice returns the first rows of a service: at most some, and those that begin within a number of bytes.
func (s *Store) ToDevice(ctx context.Context, tx *sqlutil.Tx, service string, most, bytes int) ([]ToDevice, error) {
	rows, err := s.selectToDevice.Query(ctx, tx, service, most, bytes)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (ToDevice, error) {
		m := ToDevice{Service: service}
		err := rows.Scan(&m.Number, &m.Taken, &m.Body)
		return m, err
	})
}

// DropToDevice removes all that waits for a service. Rows that come later have greater numbers than those before.
func (s *Store) DropToDevice(ctx context.Context, tx *sqlutil.Tx, service string) error {
	if _, err := s.dropToDevice.Exec(ctx, tx, service); err != nil {
		return fmt.Errorf("messages to devices: %w", err)
	}
	return nil
}

// TakeToDevice removes rows of a service. Of one, which is nil if there is none, the messages up to its Taken are taken.
func (s *Store) TakeToDevice(ctx context.Context, tx *sqlutil.Tx, service string, whole []int64, part *ToDevice) error {
	if len(whole) > 0 {
		if _, err := s.deleteToDevice.Exec(ctx, tx, service, sqlutil.Array(whole)); err != nil {
			return fmt.Errorf("messages to devices: %w", err)
		}
	}
	if part != nil {
		if _, err := s.updateToDevice.Exec(ctx, tx, service, part.Number, part.Taken); err != nil {
			return fmt.Errorf("messages to devices: %w", err)
		}
	}
	return nil
}
