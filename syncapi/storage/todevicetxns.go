package storage

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

type toDeviceTxns struct {
	insert *sqlutil.Insert
	prune  *sqlutil.Stmt
}

func newToDeviceTxns(db *sqlutil.DB) toDeviceTxns {
	return toDeviceTxns{
		insert: db.Insert("syncapi_to_device_txns", []string{"hash", "ts"}, "ON CONFLICT (hash) DO NOTHING"),
		prune: db.Stmt(`DELETE FROM syncapi_to_device_txns WHERE ts < LEAST($1::bigint, COALESCE((
			SELECT ts FROM syncapi_to_device_txns ORDER BY ts LIMIT 1 OFFSET $2), $1::bigint))`),
	}
}

// PutToDeviceTxn notes a transaction of a sender, at a time in ms. It returns false if it is there already.
func (d *Database) PutToDeviceTxn(ctx context.Context, tx *sqlutil.Tx, hash []byte, ts int64) (bool, error) {
	n, err := d.toDeviceTxns.insert.Exec(ctx, tx, [][]any{{hash, ts}})
	return n == 1, err
}

// PruneToDeviceTxns forgets transactions from before a time in ms, and returns how many these were: about most at a
// time.
func (d *Database) PruneToDeviceTxns(ctx context.Context, before int64, most int) (n int64, err error) {
	err = d.db.Write(ctx, "prune transactions", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		n, err = d.toDeviceTxns.prune.Exec(ctx, tx, before, most)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune transactions of messages to devices: %w", err)
	}
	return n, nil
}
