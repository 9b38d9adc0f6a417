package storage

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// KeyCounts is what can be claimed of the keys of a device of a service's user.
type KeyCounts struct {
	Service  string
	UserID   id.UserID
	DeviceID id.DeviceID
	OneTime  []byte // an object of counts, by algorithm
	Fallback []byte // an array of the algorithms of unused fallback keys
	// Version is 0 where the service has heard of it. It is given when the row is written.
	Version int64
}

type keyCountStatements struct {
	insertKeyCounts                                                             *sqlutil.Insert
	selectUntoldCounts, selectCountsOf, selectCounts, dropKeyCounts, tellCounts *sqlutil.Stmt
}

func prepareKeyCounts(db *sqlutil.DB) keyCountStatements {
	columns := `SELECT user_id, device_id, one_time, fallback, version FROM appservice_key_counts `
	return keyCountStatements{
		insertKeyCounts: db.Insert("appservice_key_counts",
			[]string{"service", "user_id", "device_id", "one_time", "fallback", "version"},
			`ON CONFLICT (service, user_id, device_id) DO UPDATE
			SET one_time = excluded.one_time, fallback = excluded.fallback, version = excluded.version`),
		selectUntoldCounts: db.Stmt(columns + `WHERE service = $1 AND version <> 0 LIMIT $2`),
		selectCountsOf:     db.Stmt(columns + `WHERE service = $1 AND user_id = ANY($2) LIMIT $3`),
		selectCounts:       db.Stmt(columns + `WHERE service = $1 LIMIT $2`),
		dropKeyCounts:      db.Stmt(`DELETE FROM appservice_key_counts WHERE user_id = $1 AND ($2 = '' OR device_id = $2)`),
		tellCounts: db.Stmt(`UPDATE appservice_key_counts SET version = 0
			WHERE service = $1 AND version <> 0 AND version = ANY($2)`),
	}
}

// newVersion is a number that no row has had.
func newVersion() int64 { return rand.Int64() | 1 }

// PutKeyCounts notes counts that services must hear. Each is of another device.
func (s *Store) PutKeyCounts(ctx context.Context, tx *sqlutil.Tx, all []KeyCounts) error {
	rows := make([][]any, len(all))
	for i := range all {
		k := &all[i]
		rows[i] = []any{k.Service, k.UserID, k.DeviceID, string(k.OneTime), string(k.Fallback), newVersion()}
	}
	if _, err := s.insertKeyCounts.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("counts of keys: %w", err)
	}
	return nil
}

// DropKeyCounts forgets a device; without one, all of the user's.
func (s *Store) DropKeyCounts(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	_, err := s.dropKeyCounts.Exec(ctx, tx, user, device)
	return err
}

// UntoldKeyCounts returns some counts that a service has not heard of.
func (s *Store) UntoldKeyCounts(ctx context.Context, tx *sqlutil.Tx, service string, most int) ([]KeyCounts, error) {
	return keyCounts(service)(s.selectUntoldCounts.Query(ctx, tx, service, most))
}

// KeyCountsOf returns the counts of some devices of users of a service.
func (s *Store) KeyCountsOf(
	ctx context.Context, tx *sqlutil.Tx, service string, users []id.UserID, most int,
) ([]KeyCounts, error) {
	return keyCounts(service)(s.selectCountsOf.Query(ctx, tx, service, sqlutil.Array(users), most))
}

// SomeKeyCounts returns the counts of some devices of a service.
func (s *Store) SomeKeyCounts(ctx context.Context, tx *sqlutil.Tx, service string, most int) ([]KeyCounts, error) {
	return keyCounts(service)(s.selectCounts.Query(ctx, tx, service, most))
}

func keyCounts(service string) func(*sql.Rows, error) ([]KeyCounts, error) {
	return func(rows *sql.Rows, err error) ([]KeyCounts, error) {
		return sqlutil.Collect(rows, err, func(rows *sql.Rows) (KeyCounts, error) {
			k := KeyCounts{Service: service}
			err := rows.Scan(&k.UserID, &k.DeviceID, &k.OneTime, &k.Fallback, &k.Version)
			return k, err
		})
	}
}

// ToldKeyCounts notes that a service hears of counts. Those that have changed meanwhile stay untold.
func (s *Store) ToldKeyCounts(ctx context.Context, tx *sqlutil.Tx, service string, all []KeyCounts) error {
	versions := make([]int64, 0, len(all))
	for i := range all {
		if all[i].Version != 0 {
			versions = append(versions, all[i].Version)
		}
	}
	if len(versions) == 0 {
		return nil
	}
	if _, err := s.tellCounts.Exec(ctx, tx, service, sqlutil.Array(versions)); err != nil {
		return fmt.Errorf("counts of keys: %w", err)
	}
	return nil
}
