package storage

import (
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Frozen is the count at the position from which on a user's rules count in another way.
type Frozen struct {
	UserID id.UserID
	RoomID id.RoomID
	Pos    int64
	Place  int64 // up to which the user had read
	Counts Counts
	Base   Counts // of the room, at that position
}

func newFrozenTable(db *sqlutil.DB) table[Frozen] {
	return table[Frozen]{name: "syncapi_frozen", key: []string{"user_id", "room_id"}, replaces: true,
		columns: slices.Concat([]column[Frozen]{
			col("user_id", func(f *Frozen) *id.UserID { return &f.UserID }),
			col("room_id", func(f *Frozen) *id.RoomID { return &f.RoomID }),
			col("pos", func(f *Frozen) *int64 { return &f.Pos }),
			col("place", func(f *Frozen) *int64 { return &f.Place }),
		},
			countCols("n", "h", func(f *Frozen) *Counts { return &f.Counts }),
			countCols("bn", "bh", func(f *Frozen) *Counts { return &f.Base }),
		)}.on(db)
}
