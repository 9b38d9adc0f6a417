package storage

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
)

// DeviceList says when the keys of a user have changed last.
type DeviceList struct {
	UserID id.UserID
	Viewer id.UserID // who must fetch them anew; empty: all who see the user
	Pos    int64
}

type deviceListTable struct {
	table[DeviceList]
	candidates, people, visible *sqlutil.Stmt
}

func newDeviceListTable(db *sqlutil.DB) deviceListTable {
	t := deviceListTable{table: table[DeviceList]{name: "syncapi_device_lists", key: []string{"user_id", "viewer"},
		replaces: true, columns: []column[DeviceList]{
			col("user_id", func(l *DeviceList) *id.UserID { return &l.UserID }),
			col("viewer", func(l *DeviceList) *id.UserID { return &l.Viewer }),
			col("pos", func(l *DeviceList) *int64 { return &l.Pos }),
		}}.on(db)}

	// Whether a candidate is in one of the viewer's rooms at a position. LIMIT and CASE have Postgres stop at the first
	// such room and look up the viewer's rooms in a table that it makes once.
	seen := func(joined, pos string) string {
		return `COALESCE((SELECT 1 FROM syncapi_memberships m
			WHERE m.user_id = c.user_id AND m.pos <= ` + pos + ` AND m.membership IN ('join', 'invite')
			AND CASE WHEN m.room_id IN (SELECT mine.room_id FROM mine WHERE mine.` + joined + ` = 1)
				THEN m.pos = (SELECT MAX(l.pos) FROM syncapi_memberships l
					WHERE l.user_id = m.user_id AND l.room_id = m.room_id AND l.pos <= ` + pos + `)
				ELSE FALSE END
			LIMIT 1), 0)`
	}

	// $1 is the viewer, $2 and $3 are where the time begins and ends, $4 is up to where changes of keys are looked for.
	//
	// mine: the viewer's rooms at both ends. updated: whose keys have changed; if they are many, as where a token is
	// old, not these are looked at but those whom the viewer sees. candidates: these, those whose membership has
	// changed in a room where the viewer stayed, and all of the rooms that the viewer has entered or left. What they
	// are and were in the viewer's rooms says who is seen. CROSS JOIN has SQLite go from the fewer to the more.
	t.candidates = db.Stmt(`WITH mine AS (
			SELECT m.room_id,
				MAX(CASE WHEN m.membership = 'join' AND m.pos = (SELECT MAX(l.pos) FROM syncapi_memberships l
					WHERE l.user_id = m.user_id AND l.room_id = m.room_id AND l.pos <= $2) THEN 1 ELSE 0 END) AS joined_then,
				MAX(CASE WHEN m.membership = 'join' AND m.pos = (SELECT MAX(l.pos) FROM syncapi_memberships l
					WHERE l.user_id = m.user_id AND l.room_id = m.room_id AND l.pos <= $3) THEN 1 ELSE 0 END) AS joined_now
			FROM syncapi_memberships m WHERE m.user_id = $1 AND m.pos <= $3 GROUP BY m.room_id
		), updated AS (
			SELECT d.user_id FROM syncapi_device_lists d WHERE d.viewer = '' AND d.pos > $2 AND d.pos <= $4
			ORDER BY d.pos DESC LIMIT $5 + 1
		), few AS (
			SELECT u.user_id FROM updated u WHERE (SELECT COUNT(*) FROM updated) <= $5
			UNION ALL
			SELECT d.user_id FROM (
				SELECT DISTINCT m.user_id FROM mine CROSS JOIN syncapi_memberships m
				WHERE (SELECT COUNT(*) FROM updated) > $5 AND mine.joined_now = 1 AND m.room_id = mine.room_id
			) seen CROSS JOIN syncapi_device_lists d
			WHERE d.user_id = seen.user_id AND d.viewer = '' AND d.pos > $2 AND d.pos <= $4
			UNION ALL
			SELECT d.user_id FROM syncapi_device_lists d WHERE d.viewer = $1 AND d.pos > $2 AND d.pos <= $4
		), candidates AS (
			SELECT c.user_id, MAX(c.updated) AS updated FROM (
				SELECT few.user_id, 1 AS updated FROM few
				UNION ALL
				SELECT m.user_id, 0 FROM mine CROSS JOIN syncapi_memberships m
				WHERE mine.joined_then + mine.joined_now = 2
					AND m.room_id = mine.room_id AND m.pos > $2 AND m.pos <= $3
				UNION ALL
				SELECT m.user_id, 0 FROM mine CROSS JOIN syncapi_memberships m
				WHERE mine.joined_then + mine.joined_now = 1 AND m.room_id = mine.room_id AND m.pos <= $3
			) c GROUP BY c.user_id
		)
		SELECT c.user_id, c.updated, ` + seen("joined_then", "$2") + `, ` + seen("joined_now", "$3") + `
		FROM candidates c WHERE c.user_id <> $1
		UNION ALL
		SELECT DISTINCT d.user_id, 1, 1, 1 FROM syncapi_device_lists d
		WHERE d.user_id = $1 AND d.viewer IN ('', $1) AND d.pos > $2 AND d.pos <= $4`)

	// All memberships of users, and when their keys have changed last; without a user, the position.
	t.people = db.Stmt(`SELECT m.user_id, m.room_id, m.pos, m.membership FROM syncapi_memberships m
			WHERE m.user_id = ANY($1)
		UNION ALL
		SELECT d.user_id, '', d.pos, '' FROM syncapi_device_lists d WHERE d.user_id = ANY($1) AND d.viewer = ''
		UNION ALL
		SELECT '', '', p.pos, '' FROM syncapi_position p WHERE p.id = 1
		ORDER BY 3`)

	t.visible = db.Stmt(`SELECT m.user_id, m.room_id FROM syncapi_memberships m
		WHERE m.user_id = ANY($1) AND m.membership IN ('join', 'invite')
		AND m.pos = (SELECT MAX(l.pos) FROM syncapi_memberships l WHERE l.user_id = m.user_id AND l.room_id = m.room_id)
		LIMIT $2`)
	return t
}

// manyUpdated is how many users whose keys have changed are looked at for each viewer. Beyond, it costs less to look at
// those whom the viewer sees.
const manyUpdated = 1000

// AllUpdates stands for the position of the last change of keys.
const AllUpdates int64 = math.MaxInt64

// DeviceLists finds those who may belong to the lists of a viewer, however long ago the time began. Of each user only
// the last change of their keys is known: it counts if it was up to updatesUpTo.
func (d *Database) DeviceLists(
	ctx context.Context, viewer id.UserID, s devicelists.Span, updatesUpTo int64,
) (candidates []devicelists.Candidate, err error) {
	err = d.db.ReadOne(ctx, "device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		candidates, err = d.deviceListsOf(ctx, tx, viewer, s, updatesUpTo, manyUpdated)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("device lists of %s: %w", viewer, err)
	}
	return candidates, nil
}

func (d *Database) deviceListsOf(
	ctx context.Context, tx *sqlutil.Tx, viewer id.UserID, s devicelists.Span, updatesUpTo int64, many int,
) ([]devicelists.Candidate, error) {
	rows, err := d.deviceLists.candidates.Query(ctx, tx, viewer, s.Since, s.UpTo, updatesUpTo, many)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (c devicelists.Candidate, err error) {
		var updated, then, now int
		err = rows.Scan(&c.UserID, &updated, &then, &now)
		c.Updated, c.Then, c.Now = updated == 1, then == 1, now == 1
		return c, err
	})
}

// People returns what lists need to know of users, up to the last position.
func (d *Database) People(ctx context.Context, users []id.UserID) (people map[id.UserID]*devicelists.Person, err error) {
	err = d.db.ReadOne(ctx, "memberships of others", func(ctx context.Context, tx *sqlutil.Tx) error {
		people, err = d.peopleIn(ctx, tx, users)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("memberships of %d users: %w", len(users), err)
	}
	return people, nil
}

func (d *Database) peopleIn(ctx context.Context, tx *sqlutil.Tx, users []id.UserID,
) (map[id.UserID]*devicelists.Person, error) {
	people := make(map[id.UserID]*devicelists.Person, len(users))
	for _, user := range users {
		people[user] = &devicelists.Person{Rooms: make(map[id.RoomID][]devicelists.Membership)}
	}
	rows, err := d.deviceLists.people.Query(ctx, tx, sqlutil.Array(users))
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var user id.UserID
		var room id.RoomID
		var m devicelists.Membership
		err := rows.Scan(&user, &room, &m.Pos, &m.Membership)
		switch p := people[user]; {
		case p == nil: // the position
			for _, p := range people {
				p.At = m.Pos
			}
		case room == "":
			p.Updated = m.Pos
		default:
			p.Rooms[room] = append(p.Rooms[room], m)
		}
		return struct{}{}, err
	})
	return people, err
}

// SeenIn lists the rooms whose members see these users: those to which they are joined or invited. For all users
// together it lists at most so many.
func (d *Database) SeenIn(ctx context.Context, tx *sqlutil.Tx, users []id.UserID, most int,
) (map[id.UserID][]id.RoomID, error) {
	return roomsByUser(d.deviceLists.visible.Query(ctx, tx, sqlutil.Array(users), most))
}
