package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

type readStatements struct {
	rooms, newest, newestUpTo, at, since, byEvent, beforeOrder, threadNewest           *sqlutil.Stmt
	history, latest, joined                                                            *sqlutil.Stmt
	receipts, receiptsSince, receiptsOf                                                *sqlutil.Stmt
	accountData, accountDataOne, accountDataOf, withRules, rules, ignored, permissions *sqlutil.Stmt
	mentionsAt, unread, mainUnread, threadUnread                                       *sqlutil.Stmt
	filter                                                                             *sqlutil.Stmt
}

const timelineColumns = `t.room_id, t.pos, t.event_id, t.seg, t.idx, t.type, t.sender, t.flags, t.thread, t.root_before, t.root_after,
	t.joined, t.invited, t.n, t.h, t.mn, t.mh, t.tn, t.th`

const receiptColumns = `room_id, user_id, type, thread, pos, event_id, seg, idx, place, ts`

func newReadStatements(db *sqlutil.DB) readStatements {
	r := readStatements{
		rooms: db.Stmt(`SELECT room_id, version, pos, seg, idx, root, joined, invited, n, h, mn, mh FROM syncapi_rooms WHERE room_id = ANY($1)`),
		// Of each room the newest rows: those after the one that stands so many places before the end. CROSS JOIN has SQLite find that
		// place once for each room; it would read all rows of the room to compare each with its own.
		newest: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_rooms r CROSS JOIN syncapi_timeline t
			WHERE r.room_id = ANY($1) AND t.room_id = r.room_id AND t.pos <= $3
			AND t.pos > GREATEST($2::bigint, COALESCE((SELECT x.pos FROM syncapi_timeline x WHERE x.room_id = r.room_id AND x.pos <= $3
				ORDER BY x.pos DESC LIMIT 1 OFFSET $4), 0)) ORDER BY r.room_id, t.pos`),
		newestUpTo: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_memberships m CROSS JOIN syncapi_timeline t
			WHERE m.user_id = $1 AND m.pos = ANY($2) AND t.room_id = m.room_id AND t.pos <= m.pos
			AND t.pos > GREATEST($3::bigint, COALESCE((SELECT x.pos FROM syncapi_timeline x WHERE x.room_id = m.room_id AND x.pos <= m.pos
				ORDER BY x.pos DESC LIMIT 1 OFFSET $4), 0)) ORDER BY m.room_id, t.pos`),
		at: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_rooms r JOIN syncapi_timeline t ON t.room_id = r.room_id
			AND t.pos = (SELECT MAX(x.pos) FROM syncapi_timeline x WHERE x.room_id = r.room_id AND x.pos <= $2)
			WHERE r.room_id = ANY($1)`),
		since:   db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_timeline t WHERE t.room_id = ANY($1) AND t.pos > $2 AND t.pos <= $3 ORDER BY t.pos`),
		byEvent: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_timeline t WHERE t.event_id = ANY($1) ORDER BY t.pos`),
		beforeOrder: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_timeline t
			WHERE t.room_id = $1 AND (t.seg < $2 OR t.seg = $2 AND t.idx <= $3) ORDER BY t.pos DESC LIMIT 1`),
		threadNewest: db.Stmt(`SELECT ` + timelineColumns + ` FROM syncapi_timeline t
			WHERE t.room_id = $1 AND t.thread = $2 AND t.thread <> '' ORDER BY t.pos DESC LIMIT 1`),
		history: db.Stmt(`SELECT user_id, room_id, pos, membership, event_id, sender, root, stripped FROM syncapi_memberships
			WHERE user_id = $1 ORDER BY pos`),
		latest: db.Stmt(`SELECT m.user_id, m.room_id, m.pos, m.membership, m.event_id, m.sender, m.root, m.stripped FROM syncapi_memberships m
			WHERE m.user_id = ANY($2) AND m.room_id = $1
			AND m.pos = (SELECT MAX(x.pos) FROM syncapi_memberships x WHERE x.user_id = m.user_id AND x.room_id = m.room_id)`),
		joined: db.Stmt(`SELECT m.user_id FROM syncapi_memberships m WHERE m.room_id = $1 AND m.membership = 'join'
			AND m.pos = (SELECT MAX(x.pos) FROM syncapi_memberships x WHERE x.user_id = m.user_id AND x.room_id = m.room_id)`),
		receipts: db.Stmt(`SELECT ` + receiptColumns + ` FROM syncapi_receipts
			WHERE room_id = ANY($1) AND pos > $2 AND pos <= $3 AND (type = 'm.read' OR user_id = $4) ORDER BY pos`),
		receiptsSince:  db.Stmt(`SELECT ` + receiptColumns + ` FROM syncapi_receipts WHERE room_id = ANY($1) AND pos > $2 AND pos <= $3 ORDER BY pos`),
		receiptsOf:     db.Stmt(`SELECT ` + receiptColumns + ` FROM syncapi_receipts WHERE room_id = $1 AND user_id = $2`),
		accountData:    db.Stmt(`SELECT user_id, room_id, type, pos, content FROM syncapi_account_data WHERE user_id = $1 AND pos > $2 AND pos <= $3 ORDER BY pos`),
		accountDataOne: db.Stmt(`SELECT content FROM syncapi_account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`),
		accountDataOf:  db.Stmt(`SELECT type, content FROM syncapi_account_data WHERE user_id = $1 AND room_id = '' AND type = ANY($2)`),
		withRules:      db.Stmt(`SELECT user_id, LENGTH(content) FROM syncapi_account_data WHERE type = 'm.push_rules' AND room_id = ''`),
		rules:          db.Stmt(`SELECT user_id, content FROM syncapi_account_data WHERE type = 'm.push_rules' AND room_id = '' AND user_id = ANY($1)`),
		ignored:        db.Stmt(`SELECT user_id, content FROM syncapi_account_data WHERE type = 'm.ignored_user_list' AND room_id = ''`),
		permissions:    db.Stmt(`SELECT user_id, content FROM syncapi_account_data WHERE type = 'm.invite_permission_config' AND room_id = '' AND user_id = ANY($1)`),
		mentionsAt:     db.Stmt(`SELECT user_id, room_id, at, thread, SUM(n)::bigint, SUM(h)::bigint FROM syncapi_mentions WHERE room_id = $1 AND at = $2 GROUP BY user_id, room_id, at, thread`),
		filter:         db.Stmt(`SELECT content FROM syncapi_filters WHERE user_id = $1 AND id = $2`),
	}
	unreadTexts(db, &r)
	return r
}

// Rooms returns what these rooms are now.
func (d *Database) Rooms(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID) (map[id.RoomID]Room, error) {
	rows, err := d.reads.rooms.Query(ctx, tx, sqlutil.Array(rooms))
	all, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (Room, error) {
		var r Room
		var root []byte
		err := rows.Scan(&r.RoomID, &r.Version, &r.Pos, &r.Order.Segment, &r.Order.Index, &root, &r.Joined, &r.Invited,
			&r.All.Notify, &r.All.Highlight, &r.Main.Notify, &r.Main.Highlight)
		copy(r.Root[:], root)
		return r, err
	})
	byID := make(map[id.RoomID]Room, len(all))
	for _, r := range all {
		byID[r.RoomID] = r
	}
	return byID, err
}

// Newest returns of each room the newest rows after a position and up to another, at most n of each, oldest first.
func (d *Database) Newest(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64, n int) ([]TimelineRow, error) {
	rows, err := d.reads.newest.Query(ctx, tx, sqlutil.Array(rooms), after, upTo, n)
	return sqlutil.Collect(rows, err, scanTimeline)
}

// NewestUpTo returns the newest rows up to changes of a user's membership, named by their positions, and after a position; at
// most n of each room, oldest first.
func (d *Database) NewestUpTo(ctx context.Context, tx *sqlutil.Tx, user id.UserID, changes []int64, after int64, n int) ([]TimelineRow, error) {
	rows, err := d.reads.newestUpTo.Query(ctx, tx, user, sqlutil.Array(changes), after, n)
	return sqlutil.Collect(rows, err, scanTimeline)
}

// At returns the last row of each room up to a position.
func (d *Database) At(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, pos int64) (map[id.RoomID]TimelineRow, error) {
	rows, err := d.reads.at.Query(ctx, tx, sqlutil.Array(rooms), pos)
	all, err := sqlutil.Collect(rows, err, scanTimeline)
	byID := make(map[id.RoomID]TimelineRow, len(all))
	for _, r := range all {
		byID[r.RoomID] = r
	}
	return byID, err
}

// Since returns all rows of rooms after a position and up to another.
func (d *Database) Since(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64) ([]TimelineRow, error) {
	rows, err := d.reads.since.Query(ctx, tx, sqlutil.Array(rooms), after, upTo)
	return sqlutil.Collect(rows, err, scanTimeline)
}

// Events returns the rows of events, as far as they have one.
func (d *Database) Events(ctx context.Context, tx *sqlutil.Tx, events []id.EventID) (map[id.EventID]TimelineRow, error) {
	rows, err := d.reads.byEvent.Query(ctx, tx, sqlutil.Array(events))
	all, err := sqlutil.Collect(rows, err, scanTimeline)
	byID := make(map[id.EventID]TimelineRow, len(all))
	for _, r := range all {
		byID[r.EventID] = r
	}
	return byID, err
}

// BeforeOrder returns the newest row at or before a place in a room; nil if there is none.
func (d *Database) BeforeOrder(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, order roomserver.OrderKey) (*TimelineRow, error) {
	rows, err := d.reads.beforeOrder.Query(ctx, tx, room, order.Segment, order.Index)
	return first(sqlutil.Collect(rows, err, scanTimeline))
}

// ThreadNewest returns the newest row of a thread; nil if there is none.
func (d *Database) ThreadNewest(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, thread id.EventID) (*TimelineRow, error) {
	rows, err := d.reads.threadNewest.Query(ctx, tx, room, thread)
	return first(sqlutil.Collect(rows, err, scanTimeline))
}

func first[T any](all []T, err error) (*T, error) {
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

func scanTimeline(rows *sql.Rows) (TimelineRow, error) {
	var r TimelineRow
	var before, after []byte
	err := rows.Scan(&r.RoomID, &r.Pos, &r.EventID, &r.Order.Segment, &r.Order.Index, &r.Type, &r.Sender, &r.Flags, &r.Thread, &before, &after,
		&r.Joined, &r.Invited, &r.All.Notify, &r.All.Highlight, &r.Main.Notify, &r.Main.Highlight, &r.InThread.Notify, &r.InThread.Highlight)
	copy(r.RootBefore[:], before)
	copy(r.RootAfter[:], after)
	return r, err
}

// History returns all changes of a user's memberships, oldest first.
func (d *Database) History(ctx context.Context, tx *sqlutil.Tx, user id.UserID) ([]Membership, error) {
	rows, err := d.reads.history.Query(ctx, tx, user)
	return sqlutil.Collect(rows, err, scanMembership)
}

// Latest returns the last change of membership of each of these users in a room, as far as there is one.
func (d *Database) Latest(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, users []id.UserID) (map[id.UserID]Membership, error) {
	rows, err := d.reads.latest.Query(ctx, tx, room, sqlutil.Array(users))
	all, err := sqlutil.Collect(rows, err, scanMembership)
	byID := make(map[id.UserID]Membership, len(all))
	for _, m := range all {
		byID[m.UserID] = m
	}
	return byID, err
}

// Joined lists the users of this server who are joined to a room.
func (d *Database) Joined(ctx context.Context, tx *sqlutil.Tx, room id.RoomID) ([]id.UserID, error) {
	rows, err := d.reads.joined.Query(ctx, tx, room)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (user id.UserID, err error) {
		return user, rows.Scan(&user)
	})
}

func scanMembership(rows *sql.Rows) (Membership, error) {
	var m Membership
	var root []byte
	var stripped string
	if err := rows.Scan(&m.UserID, &m.RoomID, &m.Pos, &m.Membership, &m.EventID, &m.Sender, &root, &stripped); err != nil {
		return m, err
	}
	copy(m.Root[:], root)
	if stripped == "" {
		return m, nil
	}
	return m, json.Unmarshal([]byte(stripped), &m.Stripped)
}

// Receipts returns the receipts of rooms that changed after a position and up to another, and that the user may see.
func (d *Database) Receipts(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID, after, upTo int64) ([]Receipt, error) {
	rows, err := d.reads.receipts.Query(ctx, tx, sqlutil.Array(rooms), after, upTo, user)
	return sqlutil.Collect(rows, err, scanReceipt)
}

// ReceiptsSince returns all receipts of rooms that changed after a position and up to another, private ones too.
func (d *Database) ReceiptsSince(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64) ([]Receipt, error) {
	rows, err := d.reads.receiptsSince.Query(ctx, tx, sqlutil.Array(rooms), after, upTo)
	return sqlutil.Collect(rows, err, scanReceipt)
}

// ReceiptsOf returns all receipts of one user in a room.
func (d *Database) ReceiptsOf(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID) ([]Receipt, error) {
	rows, err := d.reads.receiptsOf.Query(ctx, tx, room, user)
	return sqlutil.Collect(rows, err, scanReceipt)
}

func scanReceipt(rows *sql.Rows) (Receipt, error) {
	var r Receipt
	return r, rows.Scan(&r.RoomID, &r.UserID, &r.Type, &r.Thread, &r.Pos, &r.EventID, &r.Order.Segment, &r.Order.Index, &r.Place, &r.TS)
}

// AccountData returns the account data of a user that changed after a position and up to another.
func (d *Database) AccountData(ctx context.Context, tx *sqlutil.Tx, user id.UserID, after, upTo int64) ([]AccountData, error) {
	rows, err := d.reads.accountData.Query(ctx, tx, user, after, upTo)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (AccountData, error) {
		var a AccountData
		var content string
		err := rows.Scan(&a.UserID, &a.RoomID, &a.Type, &a.Pos, &content)
		a.Content = json.RawMessage(content)
		return a, err
	})
}

// AccountDataOne returns one entry of account data; nil if there is none.
func (d *Database) AccountDataOne(ctx context.Context, tx *sqlutil.Tx, user id.UserID, room id.RoomID, dataType string) (json.RawMessage, error) {
	var content string
	err := d.reads.accountDataOne.QueryRow(ctx, tx, user, room, dataType).Scan(&content)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return json.RawMessage(content), err
}

// AccountDataOf returns entries of a user's account data that are of no room, by type, as far as there are.
func (d *Database) AccountDataOf(ctx context.Context, tx *sqlutil.Tx, user id.UserID, types ...string) (map[string]json.RawMessage, error) {
	rows, err := d.reads.accountDataOf.Query(ctx, tx, user, sqlutil.Array(types))
	return contents[string](rows, err)
}

// WithRules returns the users who have changed their push rules, and how long what is stored of these is.
func (d *Database) WithRules(ctx context.Context, tx *sqlutil.Tx) (map[id.UserID]int, error) {
	all := make(map[id.UserID]int)
	rows, err := d.reads.withRules.Query(ctx, tx)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var user id.UserID
		var length int
		err := rows.Scan(&user, &length)
		all[user] = length
		return struct{}{}, err
	})
	return all, err
}

// RulesOf returns the push rules of those of the users who have changed theirs.
func (d *Database) RulesOf(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (map[id.UserID]json.RawMessage, error) {
	rows, err := d.reads.rules.Query(ctx, tx, sqlutil.Array(users))
	return contents[id.UserID](rows, err)
}

// Ignored returns whom each user ignores who ignores somebody.
func (d *Database) Ignored(ctx context.Context, tx *sqlutil.Tx) (map[id.UserID][]id.UserID, error) {
	rows, err := d.reads.ignored.Query(ctx, tx)
	lists, err := contents[id.UserID](rows, err)
	all := make(map[id.UserID][]id.UserID, len(lists))
	for user, content := range lists {
		if ignored := IgnoredIn(content); len(ignored) > 0 {
			all[user] = ignored
		}
	}
	return all, err
}

// BlockInvites returns those of the users who want no invites.
func (d *Database) BlockInvites(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]id.UserID, error) {
	rows, err := d.reads.permissions.Query(ctx, tx, sqlutil.Array(users))
	permissions, err := contents[id.UserID](rows, err)
	var block []id.UserID
	for user, content := range permissions {
		if BlocksInvites(content) {
			block = append(block, user)
		}
	}
	return block, err
}

// contents reads rows of account data, by what is beside it.
func contents[K ~string](rows *sql.Rows, err error) (map[K]json.RawMessage, error) {
	all := make(map[K]json.RawMessage)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var key K
		var content string
		err := rows.Scan(&key, &content)
		all[key] = json.RawMessage(content)
		return struct{}{}, err
	})
	return all, err
}

// MentionsAt returns, for each user, the sum of what an event counts beyond the class.
func (d *Database) MentionsAt(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, at int64) ([]Mention, error) {
	rows, err := d.reads.mentionsAt.Query(ctx, tx, room, at)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Mention, error) {
		var m Mention
		return m, rows.Scan(&m.UserID, &m.RoomID, &m.At, &m.Thread, &m.Counts.Notify, &m.Counts.Highlight)
	})
}

// Filter returns a filter that PutFilter kept. M_NOT_FOUND if the user has none of this number.
func (d *Database) Filter(ctx context.Context, user id.UserID, filterID int64) (json.RawMessage, error) {
	var content string
	err := d.db.ReadOne(ctx, "filter", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.reads.filter.QueryRow(ctx, tx, user, filterID).Scan(&content)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, mxerr.NotFound("there is no filter %d: upload it again", filterID)
	case err != nil:
		return nil, fmt.Errorf("read filter: %w", err)
	}
	return json.RawMessage(content), nil
}
