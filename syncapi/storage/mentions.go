package storage

import (
	"context"
	"database/sql"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Mention is what an event counts for one user beyond what it counts for all. Without a user it is for all.
type Mention struct {
	UserID id.UserID
	RoomID id.RoomID
	At     int64 // position of the event
	Pos    int64
	Thread id.EventID
	Counts Counts
}

type mentionTable struct {
	table[Mention]
	at *sqlutil.Stmt
}

func newMentionTable(db *sqlutil.DB) mentionTable {
	return mentionTable{table: table[Mention]{name: "syncapi_mentions",
		key: []string{"room_id", "user_id", "at", "pos"}, columns: slices.Concat([]column[Mention]{
			col("user_id", func(m *Mention) *id.UserID { return &m.UserID }),
			col("room_id", func(m *Mention) *id.RoomID { return &m.RoomID }),
			col("at", func(m *Mention) *int64 { return &m.At }),
			col("pos", func(m *Mention) *int64 { return &m.Pos }),
			col("thread", func(m *Mention) *id.EventID { return &m.Thread }),
		},
			countCols("n", "h", func(m *Mention) *Counts { return &m.Counts }),
		)}.on(db),
		at: db.Stmt(`SELECT user_id, room_id, at, thread, SUM(n)::bigint, SUM(h)::bigint FROM syncapi_mentions
			WHERE room_id = $1 AND at = $2 GROUP BY user_id, room_id, at, thread`)}
}

// MentionsAt returns, for each user, the sum of what an event counts beyond the class.
func (d *Database) MentionsAt(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, at int64) ([]Mention, error) {
	rows, err := d.mentions.at.Query(ctx, tx, room, at)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (m Mention, err error) {
		return m, rows.Scan(&m.UserID, &m.RoomID, &m.At, &m.Thread, &m.Counts.Notify, &m.Counts.Highlight)
	})
}
