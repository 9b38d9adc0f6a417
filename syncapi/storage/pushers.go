package storage

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// PusherKey names a pusher.
type PusherKey struct {
	UserID  id.UserID
	AppID   string
	Pushkey string
}

// Pusher is one of a user's pushers.
type Pusher struct {
	PusherKey
	DeviceID id.DeviceID     // that set it
	TS       int64           // when it was set, ms
	Pos      int64           // up to which everything is done
	Content  json.RawMessage // as the client set it
}

type pusherTable struct {
	table[Pusher]
	all, of, move, drop, dropOthers, dropFor *sqlutil.Stmt
}

func newPusherTable(db *sqlutil.DB) pusherTable {
	t := pusherTable{table: table[Pusher]{name: "syncapi_pushers", key: []string{"app_id", "pushkey", "user_id"},
		replaces: true, keeps: []string{"pos"}, columns: []column[Pusher]{
			col("user_id", func(p *Pusher) *id.UserID { return &p.UserID }),
			col("app_id", func(p *Pusher) *string { return &p.AppID }),
			col("pushkey", func(p *Pusher) *string { return &p.Pushkey }),
			col("device_id", func(p *Pusher) *id.DeviceID { return &p.DeviceID }),
			col("ts", func(p *Pusher) *int64 { return &p.TS }),
			col("pos", func(p *Pusher) *int64 { return &p.Pos }),
			jsonCol("content", func(p *Pusher) *json.RawMessage { return &p.Content }),
		}}.on(db)}
	columns := t.list("p")
	t.all = db.Stmt(`SELECT ` + columns + ` FROM syncapi_pushers p`)
	t.of = db.Stmt(`SELECT ` + columns + ` FROM syncapi_pushers p
		WHERE p.user_id = $1 ORDER BY p.ts, p.app_id, p.pushkey`)
	t.move = db.Stmt(`UPDATE syncapi_pushers SET pos = $4
		WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 AND pos < $4`)
	t.drop = db.Stmt(`DELETE FROM syncapi_pushers
		WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 RETURNING user_id`)
	t.dropOthers = db.Stmt(`DELETE FROM syncapi_pushers
		WHERE user_id <> $1 AND app_id = $2 AND pushkey = $3 RETURNING user_id`)
	t.dropFor = db.Stmt(`DELETE FROM syncapi_pushers
		WHERE user_id = $1 AND ($2 = '' OR device_id = $2) RETURNING user_id`)
	return t
}

// Pushers returns the pushers of a user, or, without one, of all users.
func (d *Database) Pushers(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Pusher, error) {
	if user == "" {
		return d.pushers.read(ctx, tx, d.pushers.all)
	}
	return d.pushers.read(ctx, tx, d.pushers.of, user)
}

// PutPusher sets a pusher. One that is there goes on from where it is. Unless it is added to those of other users with its key,
// theirs are dropped.
func (d *Database) PutPusher(ctx context.Context, tx *sqlutil.Tx, p *Pusher, add bool) (touched []Touched, err error) {
	if !add {
		if touched, err = d.dropped(ctx, tx, d.pushers.dropOthers, p.UserID, p.AppID, p.Pushkey); err != nil {
			return nil, err
		}
	}
	return append(touched, Touched{Kind: KindPushers, User: p.UserID}), d.pushers.put(ctx, tx, []Pusher{*p})
}

// MovePusher notes that everything up to a position is done.
func (d *Database) MovePusher(ctx context.Context, key PusherKey, pos int64) error {
	return d.db.Write(ctx, "pusher", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := d.pushers.move.Exec(ctx, tx, key.UserID, key.AppID, key.Pushkey, pos)
		return err
	})
}

// DropPusher removes a pusher.
func (d *Database) DropPusher(ctx context.Context, tx *sqlutil.Tx, key PusherKey) ([]Touched, error) {
	return d.dropped(ctx, tx, d.pushers.drop, key.UserID, key.AppID, key.Pushkey)
}

// DropPushersOf removes the pushers that a user's device has set, or, without one, all of the user's.
func (d *Database) DropPushersOf(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID,
) ([]Touched, error) {
	return d.dropped(ctx, tx, d.pushers.dropFor, user, device)
}

func (d *Database) dropped(ctx context.Context, tx *sqlutil.Tx, stmt *sqlutil.Stmt, args ...any) ([]Touched, error) {
	rows, err := stmt.Query(ctx, tx, args...)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Touched, error) {
		t := Touched{Kind: KindPushers}
		return t, rows.Scan(&t.User)
	})
}
