package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Receipt types.
const (
	Read        = "m.read"
	ReadPrivate = "m.read.private"
)

// Receipt says up to where somebody has read.
type Receipt struct {
	RoomID  id.RoomID
	UserID  id.UserID
	Type    string
	Thread  string // "main", the root of a thread, or nothing
	Pos     int64
	EventID id.EventID
	Order   roomserver.OrderKey
	// Place is the position of the newest event that it covers. If the event is not known yet, Order is zero, and Place
	// that of the receipt before it.
	Place int64
	TS    int64 // ms
}

type receiptTable struct {
	table[Receipt]
	visible, since, of *sqlutil.Stmt
}

func newReceiptTable(db *sqlutil.DB) receiptTable {
	t := receiptTable{table: table[Receipt]{name: "syncapi_receipts",
		key: []string{"room_id", "user_id", "type", "thread"}, replaces: true, columns: []column[Receipt]{
			col("room_id", func(r *Receipt) *id.RoomID { return &r.RoomID }),
			col("user_id", func(r *Receipt) *id.UserID { return &r.UserID }),
			col("type", func(r *Receipt) *string { return &r.Type }),
			col("thread", func(r *Receipt) *string { return &r.Thread }),
			col("pos", func(r *Receipt) *int64 { return &r.Pos }),
			col("event_id", func(r *Receipt) *id.EventID { return &r.EventID }),
			col("seg", func(r *Receipt) *int64 { return &r.Order.Segment }),
			col("idx", func(r *Receipt) *int64 { return &r.Order.Index }),
			col("place", func(r *Receipt) *int64 { return &r.Place }),
			col("ts", func(r *Receipt) *int64 { return &r.TS }),
		}}.on(db)}
	columns := t.list("receipt")
	t.visible = db.Stmt(`SELECT ` + columns + ` FROM syncapi_receipts receipt
		WHERE receipt.room_id = ANY($1) AND receipt.pos > $2 AND receipt.pos <= $3
		AND (receipt.type = 'm.read' OR receipt.user_id = $4) ORDER BY receipt.pos`)
	t.since = db.Stmt(`SELECT ` + columns + ` FROM syncapi_receipts receipt
		WHERE receipt.room_id = ANY($1) AND receipt.pos > $2 AND receipt.pos <= $3 ORDER BY receipt.pos`)
	t.of = db.Stmt(`SELECT ` + columns + ` FROM syncapi_receipts receipt
		WHERE receipt.room_id = $1 AND receipt.user_id = $2`)
	return t
}

// Receipts returns the receipts of rooms that changed after a position and up to another, and that the user may see.
func (d *Database) Receipts(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID, after, upTo int64,
) ([]Receipt, error) {
	return d.receipts.read(ctx, tx, d.receipts.visible, sqlutil.Array(rooms), after, upTo, user)
}

// ReceiptsSince returns all receipts of rooms that changed after a position and up to another, private ones too.
func (d *Database) ReceiptsSince(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after, upTo int64,
) ([]Receipt, error) {
	return d.receipts.read(ctx, tx, d.receipts.since, sqlutil.Array(rooms), after, upTo)
}

// ReceiptsOf returns all receipts of one user in a room.
func (d *Database) ReceiptsOf(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID) ([]Receipt, error) {
	return d.receipts.read(ctx, tx, d.receipts.of, room, user)
}
