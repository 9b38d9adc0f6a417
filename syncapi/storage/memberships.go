package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Membership is what a user of this server became in a room.
type Membership struct {
	UserID     id.UserID
	RoomID     id.RoomID
	Pos        int64
	Membership string
	EventID    id.EventID // none if the state was reset
	Sender     id.UserID
	Root       roomserver.Root   // state of the room, the change included
	Stripped   []json.RawMessage // what an invited or knocking user may see
}

type membershipTable struct {
	table[Membership]
	history, latest, joined, joinedRooms *sqlutil.Stmt
}

func newMembershipTable(db *sqlutil.DB) membershipTable {
	t := membershipTable{table: table[Membership]{name: "syncapi_memberships",
		key: []string{"user_id", "room_id", "pos"}, columns: []column[Membership]{
			col("user_id", func(m *Membership) *id.UserID { return &m.UserID }),
			col("room_id", func(m *Membership) *id.RoomID { return &m.RoomID }),
			col("pos", func(m *Membership) *int64 { return &m.Pos }),
			col("membership", func(m *Membership) *string { return &m.Membership }),
			col("event_id", func(m *Membership) *id.EventID { return &m.EventID }),
			col("sender", func(m *Membership) *id.UserID { return &m.Sender }),
			rootCol("root", func(m *Membership) *roomserver.Root { return &m.Root }),
			{"stripped", func(m *Membership) any { return strippedText(m.Stripped) },
				func(m *Membership) any { return strippedInto{&m.Stripped} }},
		}}.on(db)}
	columns := t.list("m")
	const isLast = `m.pos = (SELECT MAX(last.pos) FROM syncapi_memberships last
		WHERE last.user_id = m.user_id AND last.room_id = m.room_id)`

	t.history = db.Stmt(`SELECT ` + columns + ` FROM syncapi_memberships m WHERE m.user_id = $1 ORDER BY m.pos`)

	t.latest = db.Stmt(`SELECT ` + columns + ` FROM syncapi_memberships m
		WHERE m.user_id = ANY($2) AND m.room_id = $1 AND ` + isLast)

	t.joined = db.Stmt(`SELECT m.user_id FROM syncapi_memberships m
		WHERE m.room_id = $1 AND m.membership = 'join' AND ` + isLast)

	t.joinedRooms = db.Stmt(`SELECT m.user_id, m.room_id FROM syncapi_memberships m
		WHERE m.user_id = ANY($1) AND m.membership = 'join' AND ` + isLast)
	return t
}

func strippedText(state []json.RawMessage) string {
	if len(state) == 0 {
		return ""
	}
	text, err := json.Marshal(state)
	if err != nil {
		return "" // an event that is not JSON was never stored
	}
	return string(text)
}

type strippedInto struct{ state *[]json.RawMessage }

// Scan is that of sql.Scanner.
func (s strippedInto) Scan(value any) error {
	var text json.RawMessage
	if err := (jsonInto{&text}).Scan(value); err != nil {
		return fmt.Errorf("stripped state: %w", err)
	}
	if len(text) == 0 {
		return nil
	}
	return json.Unmarshal(text, s.state)
}

// History returns all changes of a user's memberships, oldest first.
func (d *Database) History(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Membership, error) {
	return d.memberships.read(ctx, tx, d.memberships.history, user)
}

// Latest returns the last change of membership of each of these users in a room, as far as there is one.
func (d *Database) Latest(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, users []id.UserID,
) (map[id.UserID]Membership, error) {
	all, err := d.memberships.read(ctx, tx, d.memberships.latest, room, sqlutil.Array(users))
	return by(func(m *Membership) id.UserID { return m.UserID }, all, err)
}

// Joined lists the users of this server who are joined to a room.
func (d *Database) Joined(ctx context.Context, tx *sqlutil.Tx, room id.RoomID) ([]id.UserID, error) {
	return readColumn[id.UserID](d.memberships.joined.Query(ctx, tx, room))
}

// JoinedRooms lists the rooms to which users are joined.
func (d *Database) JoinedRooms(ctx context.Context, tx *sqlutil.Tx, users []id.UserID,
) (map[id.UserID][]id.RoomID, error) {
	return roomsByUser(d.memberships.joinedRooms.Query(ctx, tx, sqlutil.Array(users)))
}

// roomsByUser reads rows of a user and a room.
func roomsByUser(rows *sql.Rows, err error) (map[id.UserID][]id.RoomID, error) {
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
