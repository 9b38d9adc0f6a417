package storage

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type goneTable struct {
	put                         *sqlutil.Insert
	since, full, emptied, prune *sqlutil.Stmt
}

func newGoneTable(db *sqlutil.DB) goneTable {
	return goneTable{
		put: db.Insert("syncapi_gone_devices", []string{"user_id", "device_id", "pos", "emptied"},
			"ON CONFLICT (user_id, device_id) DO UPDATE SET pos = excluded.pos, emptied = 0"),
		since: db.Stmt(`SELECT user_id, device_id FROM syncapi_gone_devices WHERE pos > $1 AND user_id = ANY($2)`),
		full: db.Stmt(`SELECT user_id, device_id, pos FROM syncapi_gone_devices WHERE emptied = 0
			ORDER BY pos LIMIT $1`),
		emptied: db.Stmt(`UPDATE syncapi_gone_devices SET emptied = 1
			WHERE user_id = $1 AND device_id = $2 AND pos = $3`),
		prune: db.Stmt(`DELETE FROM syncapi_gone_devices WHERE emptied = 1 AND pos < $1`),
	}
}

// PutGone notes that devices were deleted. The positions are those at which this became known.
func (d *Database) PutGone(ctx context.Context, tx *sqlutil.Tx, gone []Inbox) error {
	last := make(map[Inbox][]any, len(gone)) // one statement changes a row once
	for _, g := range gone {
		last[Inbox{UserID: g.UserID, DeviceID: g.DeviceID}] = []any{g.UserID, g.DeviceID, g.Pos, 0}
	}
	if len(last) == 0 {
		return nil
	}
	_, err := d.gone.put.Exec(ctx, tx, slices.Collect(maps.Values(last)))
	return err
}

// GoneSince returns those devices of users that became known to be deleted after a position, without positions.
func (d *Database) GoneSince(ctx context.Context, tx *sqlutil.Tx, pos int64, users []id.UserID) ([]Inbox, error) {
	rows, err := d.gone.since.Query(ctx, tx, pos, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (in Inbox, err error) {
		err = rows.Scan(&in.UserID, &in.DeviceID)
		return in, err
	})
}

// GoneInboxes returns deleted devices whose messages are not removed yet, with the positions up to which these are to
// be.
func (d *Database) GoneInboxes(ctx context.Context, most int) (gone []Inbox, err error) {
	err = d.db.ReadOne(ctx, "inboxes of deleted devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := d.gone.full.Query(ctx, tx, most)
		gone, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (in Inbox, err error) {
			err = rows.Scan(&in.UserID, &in.DeviceID, &in.Pos)
			return in, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inboxes of deleted devices: %w", err)
	}
	return gone, nil
}

// GoneEmptied notes that the messages of deleted devices are removed.
func (d *Database) GoneEmptied(ctx context.Context, gone []Inbox) error {
	err := d.db.Write(ctx, "inboxes of deleted devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, in := range gone {
			if _, err := d.gone.emptied.Exec(ctx, tx, in.UserID, in.DeviceID, in.Pos); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("inboxes of deleted devices: %w", err)
	}
	return nil
}

// PruneGone forgets devices that became known to be deleted before a position.
func (d *Database) PruneGone(ctx context.Context, before int64) error {
	err := d.db.Write(ctx, "prune deleted devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := d.gone.prune.Exec(ctx, tx, before)
		return err
	})
	if err != nil {
		return fmt.Errorf("prune deleted devices: %w", err)
	}
	return nil
}
