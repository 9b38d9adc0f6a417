package storage

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Flags of a timeline row.
const (
	State     = 1 << iota // the event is a state event
	HasURL                // its content has a url
	Complex               // the state changed in another way than by this event becoming a part of it
	Hidden                // it is not for clients: only its change of state is
	Forked                // it was sent where the room's state was another one
	Notify                // it notifies those who follow the default rules
	Highlight             // and highlights for them
	// Local is the greatest flag: a user of this server has said or done something in the room. An index depends on its
	// value.
	Local = 1 << 10
)

// TimelineRow is an event in its place.
type TimelineRow struct {
	RoomID                id.RoomID
	Pos                   int64
	EventID               id.EventID
	Order                 roomserver.OrderKey
	Type                  string
	Sender                id.UserID
	Flags                 int64
	Thread                id.EventID // root of its thread, if it is in one
	RootBefore, RootAfter roomserver.Root
	Joined, Invited       int64
	All, Main, InThread   Counts // so far, this event included
}

// Has tells whether all these flags are set.
func (r *TimelineRow) Has(flags int64) bool { return r.Flags&flags == flags }

type timelineTable struct {
	table[TimelineRow]
	newest, newestUpTo, at, since, byEvent, beforeOrder, threadNewest *sqlutil.Stmt
}

func newTimelineTable(db *sqlutil.DB) timelineTable {
	t := timelineTable{table: table[TimelineRow]{name: "syncapi_timeline", key: []string{"room_id", "pos"},
		columns: slices.Concat([]column[TimelineRow]{
			col("room_id", func(r *TimelineRow) *id.RoomID { return &r.RoomID }),
			col("pos", func(r *TimelineRow) *int64 { return &r.Pos }),
			col("event_id", func(r *TimelineRow) *id.EventID { return &r.EventID }),
			col("seg", func(r *TimelineRow) *int64 { return &r.Order.Segment }),
			col("idx", func(r *TimelineRow) *int64 { return &r.Order.Index }),
			col("type", func(r *TimelineRow) *string { return &r.Type }),
			col("sender", func(r *TimelineRow) *id.UserID { return &r.Sender }),
			col("flags", func(r *TimelineRow) *int64 { return &r.Flags }),
			col("thread", func(r *TimelineRow) *id.EventID { return &r.Thread }),
			rootCol("root_before", func(r *TimelineRow) *roomserver.Root { return &r.RootBefore }),
			rootCol("root_after", func(r *TimelineRow) *roomserver.Root { return &r.RootAfter }),
			col("joined", func(r *TimelineRow) *int64 { return &r.Joined }),
			col("invited", func(r *TimelineRow) *int64 { return &r.Invited }),
		},
			countCols("n", "h", func(r *TimelineRow) *Counts { return &r.All }),
			countCols("mn", "mh", func(r *TimelineRow) *Counts { return &r.Main }),
			countCols("tn", "th", func(r *TimelineRow) *Counts { return &r.InThread }),
		)}.on(db)}
	columns := t.list("t")

	// Of each room the newest rows: those after the one that stands so many places before the end. CROSS JOIN has
	// SQLite find that place once for each room; it would read all rows of the room to compare each with its own.
	t.newest = db.Stmt(`SELECT ` + columns + ` FROM syncapi_rooms room CROSS JOIN syncapi_timeline t
		WHERE room.room_id = ANY($1) AND t.room_id = room.room_id AND t.pos <= $3
		AND t.pos > GREATEST($2::bigint, COALESCE((
			SELECT last.pos FROM syncapi_timeline last WHERE last.room_id = room.room_id AND last.pos <= $3
			ORDER BY last.pos DESC LIMIT 1 OFFSET $4), 0))
		ORDER BY room.room_id, t.pos`)

	// The same up to changes of a user's memberships.
	t.newestUpTo = db.Stmt(`SELECT ` + columns + ` FROM syncapi_memberships change CROSS JOIN syncapi_timeline t
		WHERE change.user_id = $1 AND change.pos = ANY($2) AND t.room_id = change.room_id AND t.pos <= change.pos
		AND t.pos > GREATEST($3::bigint, COALESCE((
			SELECT last.pos FROM syncapi_timeline last WHERE last.room_id = change.room_id AND last.pos <= change.pos
			ORDER BY last.pos DESC LIMIT 1 OFFSET $4), 0))
		ORDER BY change.room_id, t.pos`)

	t.at = db.Stmt(`SELECT ` + columns + ` FROM syncapi_rooms room
		JOIN syncapi_timeline t ON t.room_id = room.room_id AND t.pos = (
			SELECT MAX(last.pos) FROM syncapi_timeline last WHERE last.room_id = room.room_id AND last.pos <= $2)
		WHERE room.room_id = ANY($1)`)

	t.since = db.Stmt(`SELECT ` + columns + ` FROM syncapi_timeline t
		WHERE t.room_id = ANY($1) AND t.pos > $2 AND t.pos <= $3 ORDER BY t.pos`)

	t.byEvent = db.Stmt(`SELECT ` + columns + ` FROM syncapi_timeline t WHERE t.event_id = ANY($1) ORDER BY t.pos`)

	t.beforeOrder = db.Stmt(`SELECT ` + columns + ` FROM syncapi_timeline t
		WHERE t.room_id = $1 AND (t.seg < $2 OR t.seg = $2 AND t.idx <= $3) ORDER BY t.pos DESC LIMIT 1`)

	// That the thread is not empty lets the index of threads be used.
	t.threadNewest = db.Stmt(`SELECT ` + columns + ` FROM syncapi_timeline t
		WHERE t.room_id = $1 AND t.thread = $2 AND t.thread <> '' ORDER BY t.pos DESC LIMIT 1`)
	return t
}

// Newest returns of each room the newest rows after a position and up to another, at most n of each, oldest first.
func (d *Database) Newest(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64, n int,
) ([]TimelineRow, error) {
	return d.timeline.read(ctx, tx, d.timeline.newest, sqlutil.Array(rooms), after, upTo, n)
}

// NewestUpTo returns the newest rows up to changes of a user's membership, named by their positions, and after a
// position; at most n of each room, oldest first.
func (d *Database) NewestUpTo(ctx context.Context, tx *sqlutil.Tx, user id.UserID, changes []int64, after int64, n int,
) ([]TimelineRow, error) {
	return d.timeline.read(ctx, tx, d.timeline.newestUpTo, user, sqlutil.Array(changes), after, n)
}

// At returns the last row of each room up to a position.
func (d *Database) At(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, pos int64,
) (map[id.RoomID]TimelineRow, error) {
	all, err := d.timeline.read(ctx, tx, d.timeline.at, sqlutil.Array(rooms), pos)
	return by(func(r *TimelineRow) id.RoomID { return r.RoomID }, all, err)
}

// Since returns all rows of rooms after a position and up to another.
func (d *Database) Since(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64,
) ([]TimelineRow, error) {
	return d.timeline.read(ctx, tx, d.timeline.since, sqlutil.Array(rooms), after, upTo)
}

// Events returns the rows of events, as far as they have one.
func (d *Database) Events(ctx context.Context, tx *sqlutil.Tx, events []id.EventID,
) (map[id.EventID]TimelineRow, error) {
	all, err := d.timeline.read(ctx, tx, d.timeline.byEvent, sqlutil.Array(events))
	return by(func(r *TimelineRow) id.EventID { return r.EventID }, all, err)
}

// BeforeOrder returns the newest row at or before a place in a room; nil if there is none.
func (d *Database) BeforeOrder(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, order roomserver.OrderKey,
) (*TimelineRow, error) {
	return first(d.timeline.read(ctx, tx, d.timeline.beforeOrder, room, order.Segment, order.Index))
}

// ThreadNewest returns the newest row of a thread; nil if there is none.
func (d *Database) ThreadNewest(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, thread id.EventID,
) (*TimelineRow, error) {
	return first(d.timeline.read(ctx, tx, d.timeline.threadNewest, room, thread))
}
