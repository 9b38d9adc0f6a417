package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

type presenceStatements struct {
	put, keep                       *sqlutil.Insert
	read, joinedRooms, kept, forget *sqlutil.Stmt
}

func newPresenceStatements(db *sqlutil.DB) presenceStatements {
	return presenceStatements{
		put: db.Insert("syncapi_presence", []string{"user_id", "state", "status_msg", "ts"},
			`ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, status_msg = excluded.status_msg, ts = excluded.ts`),
		keep: db.Insert("syncapi_present", []string{"user_id", "state", "active"},
			`ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, active = excluded.active`),
		kept:   db.Stmt(`SELECT user_id, state, active FROM syncapi_present`),
		forget: db.Stmt(`DELETE FROM syncapi_present WHERE user_id = ANY($1)`),
		read:   db.Stmt(`SELECT user_id, state, status_msg, ts FROM syncapi_presence WHERE user_id = ANY($1)`),
		joinedRooms: db.Stmt(`SELECT m.user_id, m.room_id FROM syncapi_memberships m WHERE m.user_id = ANY($1) AND m.membership = 'join'
			AND m.pos = (SELECT MAX(x.pos) FROM syncapi_memberships x WHERE x.user_id = m.user_id AND x.room_id = m.room_id)`),
	}
}

// PutPresence keeps what a user has set.
func (d *Database) PutPresence(ctx context.Context, p *Presence) error {
	err := d.db.Write(ctx, "presence", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := d.presence.put.Exec(ctx, tx, [][]any{{p.UserID, p.State, p.StatusMsg, p.TS}})
		return err
	})
	if err != nil {
		return fmt.Errorf("presence of %s: %w", p.UserID, err)
	}
	return nil
}

// KeepPresent keeps who is present, and forgets who is gone.
func (d *Database) KeepPresent(ctx context.Context, now []presence.Update, gone []id.UserID) error {
	rows := make([][]any, len(now))
	for i, u := range now {
		rows[i] = []any{u.UserID, u.State, u.Active}
	}
	return d.db.Write(ctx, "keep present", func(ctx context.Context, tx *sqlutil.Tx) error {
		if len(rows) > 0 {
			if _, err := d.presence.keep.Exec(ctx, tx, rows); err != nil {
				return err
			}
		}
		if len(gone) == 0 {
			return nil
		}
		_, err := d.presence.forget.Exec(ctx, tx, sqlutil.Array(gone))
		return err
	})
}

// Present is who was present when that was kept last.
func (d *Database) Present(ctx context.Context) (all []presence.Update, err error) {
	err = d.db.ReadOne(ctx, "present", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := d.presence.kept.Query(ctx, tx)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (u presence.Update, err error) {
			return u, rows.Scan(&u.UserID, &u.State, &u.Active)
		})
		return err
	})
	return all, err
}

// Presence returns what users have set, as far as they have.
func (d *Database) Presence(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (map[id.UserID]Presence, error) {
	rows, err := d.presence.read.Query(ctx, tx, sqlutil.Array(users))
	all, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (Presence, error) {
		var p Presence
		return p, rows.Scan(&p.UserID, &p.State, &p.StatusMsg, &p.TS)
	})
	byID := make(map[id.UserID]Presence, len(all))
	for _, p := range all {
		byID[p.UserID] = p
	}
	return byID, err
}

// JoinedRooms lists the rooms to which users are joined.
func (d *Database) JoinedRooms(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (map[id.UserID][]id.RoomID, error) {
	rows, err := d.presence.joinedRooms.Query(ctx, tx, sqlutil.Array(users))
	byUser := make(map[id.UserID][]id.RoomID)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var user id.UserID
		var room id.RoomID
		err := rows.Scan(&user, &room)
		byUser[user] = append(byUser[user], room)
		return struct{}{}, err
	})
	return byUser, err
}
