package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type presenceStatements struct {
	put               *sqlutil.Insert
	read, joinedRooms *sqlutil.Stmt
}

func newPresenceStatements(db *sqlutil.DB) presenceStatements {
	return presenceStatements{
		put: db.Insert("syncapi_presence", []string{"user_id", "state", "status_msg", "ts"},
			`ON CONFLICT (user_id) DO UPDATE SET state = excluded.state, status_msg = excluded.status_msg, ts = excluded.ts`),
		read: db.Stmt(`SELECT user_id, state, status_msg, ts FROM syncapi_presence WHERE user_id = ANY($1)`),
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
