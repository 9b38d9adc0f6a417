package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type filterQuotaStatements struct{ beyond, trim *sqlutil.Stmt }

func newFilterQuotaStatements(db *sqlutil.DB) filterQuotaStatements {
	return filterQuotaStatements{
		beyond: db.Stmt(`SELECT id FROM syncapi_filters WHERE user_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2`),
		trim:   db.Stmt(`DELETE FROM syncapi_filters WHERE user_id = $1 AND id <= $2`),
	}
}

// TrimFilters removes a user's oldest filters, so that at most keep are left.
func (d *Database) TrimFilters(ctx context.Context, user id.UserID, keep int) error {
	var newest int64 // of those that go
	err := d.db.ReadOne(ctx, "filters beyond the quota", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.filterQuota.beyond.QueryRow(ctx, tx, user, keep).Scan(&newest)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = d.db.Write(ctx, "trim filters", func(ctx context.Context, tx *sqlutil.Tx) error {
			_, err := d.filterQuota.trim.Exec(ctx, tx, user, newest)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("trim filters: %w", err)
	}
	return nil
}
