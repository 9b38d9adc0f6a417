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

type pusherStatements struct {
	put                                      *sqlutil.Insert
	all, of, move, drop, dropOthers, dropFor *sqlutil.Stmt
}

const pusherColumns = `user_id, app_id, pushkey, device_id, ts, pos, content`

func newPusherStatements(db *sqlutil.DB) pusherStatements {
	return pusherStatements{
		put: db.Insert("syncapi_pushers", []string{"user_id", "app_id", "pushkey", "device_id", "ts", "pos", "content"},
			`ON CONFLICT (app_id, pushkey, user_id) DO UPDATE SET device_id = excluded.device_id, ts = excluded.ts, content = excluded.content`),
		all:        db.Stmt(`SELECT ` + pusherColumns + ` FROM syncapi_pushers`),
		of:         db.Stmt(`SELECT ` + pusherColumns + ` FROM syncapi_pushers WHERE user_id = $1 ORDER BY ts, app_id, pushkey`),
		move:       db.Stmt(`UPDATE syncapi_pushers SET pos = $4 WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 AND pos < $4`),
		drop:       db.Stmt(`DELETE FROM syncapi_pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3 RETURNING user_id`),
		dropOthers: db.Stmt(`DELETE FROM syncapi_pushers WHERE user_id <> $1 AND app_id = $2 AND pushkey = $3 RETURNING user_id`),
		dropFor:    db.Stmt(`DELETE FROM syncapi_pushers WHERE user_id = $1 AND ($2 = '' OR device_id = $2) RETURNING user_id`),
	}
}

// Pushers returns the pushers of a user, or, without one, of all users.
func (d *Database) Pushers(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Pusher, error) {
	var rows *sql.Rows
	var err error
	if user == "" {
		rows, err = d.pushers.all.Query(ctx, tx)
	} else {
		rows, err = d.pushers.of.Query(ctx, tx, user)
	}
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Pusher, error) {
		var p Pusher
		var content string
		err := rows.Scan(&p.UserID, &p.AppID, &p.Pushkey, &p.DeviceID, &p.TS, &p.Pos, &content)
		p.Content = json.RawMessage(content)
		return p, err
	})
}

// PutPusher sets a pusher. One that is there goes on from where it is. Unless it is added to those of other users with its key,
// theirs are dropped.
func (d *Database) PutPusher(ctx context.Context, tx *sqlutil.Tx, p *Pusher, add bool) (touched []Touched, err error) {
	if !add {
		if touched, err = d.dropped(ctx, tx, d.pushers.dropOthers, p.UserID, p.AppID, p.Pushkey); err != nil {
			return nil, err
		}
	}
	_, err = d.pushers.put.Exec(ctx, tx, [][]any{{p.UserID, p.AppID, p.Pushkey, p.DeviceID, p.TS, p.Pos, string(p.Content)}})
	return append(touched, Touched{Kind: KindPushers, User: p.UserID}), err
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
