package storage

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// Membership is what a user is in a room, now.
type Membership struct {
	UserID     id.UserID
	Membership string
	EventID    id.EventID
	Forgotten  bool
	Order      api.OrderKey // of the event by which they became that; only written
}

// place is an order as one number.
func place(o api.OrderKey) int64 { return o.Segment<<40 + o.Index }

type memberships struct {
	put    *sqlutil.Insert
	ofUser *sqlutil.Stmt
	one    *sqlutil.Stmt
	forget *sqlutil.Stmt
	joined *sqlutil.Stmt
	server *sqlutil.Stmt
	banned *sqlutil.Stmt
	seen   *sqlutil.Stmt
	mutual *sqlutil.Stmt
}

func newMemberships(db *sqlutil.DB) memberships {
	return memberships{
		put: db.Insert("roomserver_memberships",
			[]string{"room_nid", "user_id", "membership", "event_id", "forgotten", "place"},
			`ON CONFLICT (user_id, room_nid) DO UPDATE SET membership = excluded.membership,
			event_id = excluded.event_id, forgotten = excluded.forgotten, place = excluded.place`),
		ofUser: db.Stmt(`SELECT r.room_id, m.membership, m.event_id, m.forgotten FROM roomserver_memberships m JOIN roomserver_rooms r ON r.nid = m.room_nid
			WHERE m.user_id = $1`),
		one:    db.Stmt(`SELECT membership, event_id, forgotten FROM roomserver_memberships WHERE user_id = $1 AND room_nid = $2`),
		forget: db.Stmt(`UPDATE roomserver_memberships SET forgotten = $3 WHERE user_id = $1 AND room_nid = $2 AND membership IN ('leave', 'ban')`),
		banned: db.Stmt(`SELECT user_id FROM roomserver_memberships WHERE room_nid = $1 AND membership = 'ban' ORDER BY user_id LIMIT $2`),
		joined: db.Stmt(`SELECT user_id FROM roomserver_memberships WHERE room_nid = $1 AND membership = 'join' ORDER BY user_id LIMIT $2`),
		server: db.Stmt(`SELECT user_id FROM roomserver_memberships WHERE room_nid = $1 AND membership = 'join'
			AND user_id > $3 AND substr(user_id, length(user_id) - length($2::text) + 1) = $2::text ORDER BY user_id LIMIT $4`),
		seen: db.Stmt(`SELECT DISTINCT m.user_id FROM roomserver_memberships m JOIN roomserver_summaries s ON s.room_nid = m.room_nid
			JOIN roomserver_rooms r ON r.nid = m.room_nid WHERE m.user_id = ANY($2) AND m.membership = 'join' AND (s.join_rule = 'public' OR r.visibility = $3
			OR EXISTS (SELECT 1 FROM roomserver_memberships v WHERE v.user_id = $1 AND v.room_nid = m.room_nid AND v.membership = 'join'))`),
		// There is always a row, so that an empty page has the count too.
		mutual: db.Stmt(`WITH mutual AS (
				SELECT r.room_id FROM roomserver_memberships m
				JOIN roomserver_memberships o ON o.user_id = $2 AND o.room_nid = m.room_nid AND o.membership = 'join'
				JOIN roomserver_rooms r ON r.nid = m.room_nid
				WHERE m.user_id = $1 AND m.membership = 'join')
			SELECT page.room_id, (SELECT COUNT(*) FROM mutual) FROM (SELECT 1) always
			LEFT JOIN (SELECT room_id FROM mutual WHERE room_id > $3 ORDER BY room_id LIMIT $4) page ON TRUE
			ORDER BY page.room_id`),
	}
}

// PutMemberships replaces rows.
func (s *Storage) PutMemberships(ctx context.Context, tx *sqlutil.Tx, roomNID int64, all []Membership) error {
	if len(all) == 0 {
		return nil
	}
	rows := make([][]any, len(all))
	for i, m := range all {
		rows[i] = []any{roomNID, m.UserID, m.Membership, m.EventID, m.Forgotten, place(m.Order)}
	}
	_, err := s.memberships.put.Exec(ctx, tx, rows)
	return err
}

// UserRooms lists all rooms of a user.
func (s *Storage) UserRooms(ctx context.Context, user id.UserID) (all []api.UserRoom, err error) {
	err = s.DB.ReadOne(ctx, "rooms of user", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.ofUser.Query(ctx, tx, user)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (r api.UserRoom, err error) {
			return r, rows.Scan(&r.RoomID, &r.Membership, &r.EventID, &r.Forgotten)
		})
		return err
	})
	return all, err
}

// Membership reads one row; its Membership is empty if there is none.
func (s *Storage) Membership(ctx context.Context, roomNID int64, user id.UserID) (m Membership, err error) {
	m.UserID = user
	err = s.DB.ReadOne(ctx, "membership", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.memberships.one.QueryRow(ctx, tx, user, roomNID).Scan(&m.Membership, &m.EventID, &m.Forgotten)
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return m, err
}

// Forget marks a room as forgotten; false if the user has not left it.
func (s *Storage) Forget(ctx context.Context, roomNID int64, user id.UserID) (done bool, err error) {
	err = s.DB.Write(ctx, "forget room", func(ctx context.Context, tx *sqlutil.Tx) error {
		n, err := s.memberships.forget.Exec(ctx, tx, user, roomNID, true)
		done = n == 1
		return err
	})
	return done, err
}

// JoinedMembers lists joined members of a room, by name, at most limit.
func (s *Storage) JoinedMembers(ctx context.Context, roomNID int64, limit int) ([]id.UserID, error) {
	return s.users(ctx, "joined members", s.memberships.joined, roomNID, limit)
}

// Banned lists those who are banned from a room, by name, at most limit.
func (s *Storage) Banned(ctx context.Context, roomNID int64, limit int) ([]id.UserID, error) {
	return s.users(ctx, "banned users", s.memberships.banned, roomNID, limit)
}

// JoinedOfServer lists joined members of a room who are of one server, by name, those after one, at most limit. Those whom it leaves
// out have names that only end as the server's does.
func (s *Storage) JoinedOfServer(ctx context.Context, roomNID int64, server id.ServerName, after id.UserID, limit int) ([]id.UserID, error) {
	found, err := s.users(ctx, "joined members of server", s.memberships.server, roomNID, ":"+string(server), after, limit)
	return slices.DeleteFunc(found, func(u id.UserID) bool { return u.Server() != server }), err
}

// MutualRooms lists the rooms that two users are joined to, by name, those after one, at most limit; count is how
// many there are in all.
func (s *Storage) MutualRooms(ctx context.Context, user, other id.UserID, after id.RoomID, limit int) (
	rooms []id.RoomID, count int64, err error) {
	err = s.DB.ReadOne(ctx, "mutual rooms", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.mutual.Query(ctx, tx, user, other, after, limit)
		all, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (room sql.NullString, err error) {
			return room, rows.Scan(&room, &count)
		})
		rooms = make([]id.RoomID, 0, len(all))
		for _, room := range all {
			if room.Valid {
				rooms = append(rooms, id.RoomID(room.String))
			}
		}
		return err
	})
	return rooms, count, err
}

// VisibleUsers returns those of the users who are joined to a room with the viewer, or to one that is public or world readable.
func (s *Storage) VisibleUsers(ctx context.Context, viewer id.UserID, users []id.UserID) ([]id.UserID, error) {
	return s.users(ctx, "visible users", s.memberships.seen, viewer, sqlutil.Array(users), WorldReadable)
}

func (s *Storage) users(ctx context.Context, name string, stmt *sqlutil.Stmt, args ...any) (all []id.UserID, err error) {
	err = s.DB.ReadOne(ctx, name, func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := stmt.Query(ctx, tx, args...)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (u id.UserID, err error) { return u, rows.Scan(&u) })
		return err
	})
	return all, err
}
