package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type usageStatements struct{ grow, shrink *sqlutil.Stmt }

func newUsageStatements(db *sqlutil.DB) usageStatements {
	return usageStatements{
		grow: db.Stmt(`INSERT INTO syncapi_account_data_usage (user_id, bytes) VALUES ($1, $2)
			ON CONFLICT (user_id) DO UPDATE SET bytes = syncapi_account_data_usage.bytes + excluded.bytes
			WHERE syncapi_account_data_usage.bytes + excluded.bytes <= $3 RETURNING bytes`),
		shrink: db.Stmt(`UPDATE syncapi_account_data_usage SET bytes = GREATEST(bytes - $2, 0) WHERE user_id = $1`),
	}
}

// GrowAccountData counts more bytes of account data of a user. It returns false, and counts nothing, where the user
// would have more than most.
func (d *Database) GrowAccountData(ctx context.Context, tx *sqlutil.Tx, user id.UserID, bytes, most int64) (bool,
	error) {
	var now int64
	err := d.usage.grow.QueryRow(ctx, tx, user, bytes, most).Scan(&now)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// ShrinkAccountData counts fewer bytes of account data of a user.
func (d *Database) ShrinkAccountData(ctx context.Context, tx *sqlutil.Tx, user id.UserID, bytes int64) error {
	_, err := d.usage.shrink.Exec(ctx, tx, user, bytes)
	return err
}
