package storage

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ListChange is what a service must hear of a user's device list.
type ListChange struct {
	Service string
	UserID  id.UserID
	HasLeft bool  // shares no room any more; else keys have changed, or are new to the service
	Version int64 // given when the row is written
}

type listChangeStatements struct {
	insertListChanges                                        *sqlutil.Insert
	insertSharedChanges, selectListChanges, deleteListChange *sqlutil.Stmt
}

func prepareListChanges(db *sqlutil.DB) listChangeStatements {
	const replaces = `ON CONFLICT (service, user_id) DO UPDATE SET has_left = excluded.has_left, version = excluded.version`
	return listChangeStatements{
		insertListChanges: db.Insert("appservice_list_changes", []string{"service", "user_id", "has_left", "version"}, replaces),
		// Locked, so that who leaves meanwhile has left in the end.
		insertSharedChanges: db.Stmt(`INSERT INTO appservice_list_changes (service, user_id, has_left, version)
			SELECT service, user_id, FALSE, $2::bigint FROM (SELECT service, user_id FROM appservice_list_shared
				WHERE user_id = ANY($1) ORDER BY user_id, service FOR UPDATE) AS one WHERE TRUE ` + replaces),
		selectListChanges: db.Stmt(`SELECT user_id, has_left, version FROM appservice_list_changes
			WHERE service = $1 ORDER BY user_id LIMIT $2`),
		deleteListChange: db.Stmt(`DELETE FROM appservice_list_changes
			WHERE service = $1 AND user_id = ANY($2) AND version = ANY($3)`),
	}
}

// PutListChanges notes what services must hear, instead of what they should have heard of these users before.
func (s *Store) PutListChanges(ctx context.Context, tx *sqlutil.Tx, changes []ListChange) error {
	slices.SortFunc(changes, func(a, b ListChange) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Service, b.Service))
	})
	rows := make([][]any, len(changes))
	for i, c := range changes {
		rows[i] = []any{c.Service, c.UserID, c.HasLeft, newVersion()}
	}
	if _, err := s.insertListChanges.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("changes of device lists: %w", err)
	}
	return nil
}

// PutSharedChanges notes that keys of users have changed, for the services with which they share rooms. It returns how
// many changes these are.
func (s *Store) PutSharedChanges(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (int64, error) {
	n, err := s.insertSharedChanges.Exec(ctx, tx, sqlutil.Array(users), newVersion())
	if err != nil {
		return 0, fmt.Errorf("changes of device lists: %w", err)
	}
	return n, nil
}

// ListChanges returns some of what a service must hear.
func (s *Store) ListChanges(ctx context.Context, tx *sqlutil.Tx, service string, most int) ([]ListChange, error) {
	rows, err := s.selectListChanges.Query(ctx, tx, service, most)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (ListChange, error) {
		c := ListChange{Service: service}
		err := rows.Scan(&c.UserID, &c.HasLeft, &c.Version)
		return c, err
	})
}

// TakeListChanges removes what a service hears. What has changed again meanwhile stays.
func (s *Store) TakeListChanges(ctx context.Context, tx *sqlutil.Tx, service string, changes []ListChange) error {
	if len(changes) == 0 {
		return nil
	}
	users, versions := make([]id.UserID, len(changes)), make([]int64, len(changes))
	for i := range changes {
		users[i], versions[i] = changes[i].UserID, changes[i].Version
	}
	if _, err := s.deleteListChange.Exec(ctx, tx, service, sqlutil.Array(users), sqlutil.Array(versions)); err != nil {
		return fmt.Errorf("changes of device lists: %w", err)
	}
	return nil
}
