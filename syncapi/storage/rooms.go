package storage

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Room is what a room is after its last event.
type Room struct {
	RoomID          id.RoomID
	Version         id.RoomVersion
	Pos             int64
	Order           roomserver.OrderKey
	Root            roomserver.Root
	Joined, Invited int64
	All, Main       Counts // of all events so far, and of those in no thread
}

type roomTable struct {
	table[Room]
	some *sqlutil.Stmt
}

func newRoomTable(db *sqlutil.DB) roomTable {
	t := roomTable{table: table[Room]{name: "syncapi_rooms", key: []string{"room_id"}, replaces: true,
		keeps: []string{"version"}, columns: slices.Concat([]column[Room]{
			col("room_id", func(r *Room) *id.RoomID { return &r.RoomID }),
			col("version", func(r *Room) *id.RoomVersion { return &r.Version }),
			col("pos", func(r *Room) *int64 { return &r.Pos }),
			col("seg", func(r *Room) *int64 { return &r.Order.Segment }),
			col("idx", func(r *Room) *int64 { return &r.Order.Index }),
			rootCol("root", func(r *Room) *roomserver.Root { return &r.Root }),
			col("joined", func(r *Room) *int64 { return &r.Joined }),
			col("invited", func(r *Room) *int64 { return &r.Invited }),
		},
			countCols("n", "h", func(r *Room) *Counts { return &r.All }),
			countCols("mn", "mh", func(r *Room) *Counts { return &r.Main }),
		)}.on(db)}
	t.some = db.Stmt(`SELECT ` + t.list("room") + ` FROM syncapi_rooms room WHERE room.room_id = ANY($1)`)
	return t
}

// Rooms returns what these rooms are now.
func (d *Database) Rooms(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID) (map[id.RoomID]Room, error) {
	all, err := d.rooms.read(ctx, tx, d.rooms.some, sqlutil.Array(rooms))
	return by(func(r *Room) id.RoomID { return r.RoomID }, all, err)
}
