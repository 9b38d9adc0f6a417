package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

type presentTable struct {
	table[presence.Update]
	all, forget *sqlutil.Stmt
}

func newPresentTable(db *sqlutil.DB) presentTable {
	t := presentTable{table: table[presence.Update]{name: "syncapi_present", key: []string{"user_id"}, replaces: true,
		columns: []column[presence.Update]{
			col("user_id", func(u *presence.Update) *id.UserID { return &u.UserID }),
			col("state", func(u *presence.Update) *presence.State { return &u.State }),
			col("active", func(u *presence.Update) *int64 { return &u.Active }),
		}}.on(db)}
	t.all = db.Stmt(`SELECT ` + t.list("p") + ` FROM syncapi_present p`)
	t.forget = db.Stmt(`DELETE FROM syncapi_present WHERE user_id = ANY($1)`)
	return t
}

// KeepPresent keeps who is present, and forgets who is gone.
func (d *Database) KeepPresent(ctx context.Context, now []presence.Update, gone []id.UserID) error {
	return d.db.Write(ctx, "keep present", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := d.present.put(ctx, tx, now); err != nil || len(gone) == 0 {
			return err
		}
		_, err := d.present.forget.Exec(ctx, tx, sqlutil.Array(gone))
		return err
	})
}

// Present is who was present when that was kept last.
func (d *Database) Present(ctx context.Context) (all []presence.Update, err error) {
	err = d.db.ReadOne(ctx, "present", func(ctx context.Context, tx *sqlutil.Tx) error {
		all, err = d.present.read(ctx, tx, d.present.all)
		return err
	})
	return all, err
}
