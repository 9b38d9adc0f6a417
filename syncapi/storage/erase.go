package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type eraseStatements []*sqlutil.Stmt

func newEraseStatements(db *sqlutil.DB) eraseStatements {
	return eraseStatements{
		db.Stmt(`DELETE FROM syncapi_account_data WHERE user_id = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_account_data_usage WHERE user_id = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_filters WHERE user_id = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_device_keys WHERE user_id = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_device_lists WHERE viewer = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_presence WHERE user_id = ANY($1)`),
		db.Stmt(`DELETE FROM syncapi_receipts WHERE user_id = ANY($1)
			AND room_id IN (SELECT room_id FROM syncapi_memberships WHERE user_id = ANY($1))`),
	}
}

// Erase removes what users have set, and what they have read. Their pushers go with their devices. That their keys have
// changed stays, so that others hear of the end.
func (d *Database) Erase(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) error {
	if len(users) == 0 {
		return nil
	}
	for _, stmt := range d.erase {
		if _, err := stmt.Exec(ctx, tx, sqlutil.Array(users)); err != nil {
			return err
		}
	}
	return nil
}
