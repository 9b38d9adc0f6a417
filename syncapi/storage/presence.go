package storage

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

// Presence is what a user has set last, with the time in ms.
type Presence struct {
	UserID    id.UserID      `json:"user_id"`
	State     presence.State `json:"presence"`
	StatusMsg string         `json:"status_msg"`
	TS        int64          `json:"ts"`
}

type presenceTable struct {
	table[Presence]
	some *sqlutil.Stmt
}

func newPresenceTable(db *sqlutil.DB) presenceTable {
	t := presenceTable{table: table[Presence]{name: "syncapi_presence", key: []string{"user_id"}, replaces: true,
		columns: []column[Presence]{
			col("user_id", func(p *Presence) *id.UserID { return &p.UserID }),
			col("state", func(p *Presence) *presence.State { return &p.State }),
			col("status_msg", func(p *Presence) *string { return &p.StatusMsg }),
			col("ts", func(p *Presence) *int64 { return &p.TS }),
		}}.on(db)}
	t.some = db.Stmt(`SELECT ` + t.list("p") + ` FROM syncapi_presence p WHERE p.user_id = ANY($1)`)
	return t
}

// PutPresence keeps what a user has set.
func (d *Database) PutPresence(ctx context.Context, p *Presence) error {
	err := d.db.Write(ctx, "presence", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.presence.put(ctx, tx, []Presence{*p})
	})
	if err != nil {
		return fmt.Errorf("presence of %s: %w", p.UserID, err)
	}
	return nil
}

// Presence returns what users have set, as far as they have.
func (d *Database) Presence(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (map[id.UserID]Presence, error) {
	all, err := d.presence.read(ctx, tx, d.presence.some, sqlutil.Array(users))
	return by(func(p *Presence) id.UserID { return p.UserID }, all, err)
}
