package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type threadStatements struct{ inThread, trim *sqlutil.Stmt }

func newThreadStatements(db *sqlutil.DB, receipts receiptTable) threadStatements {
	return threadStatements{
		inThread: db.Stmt(`SELECT ` + receipts.list("receipt") + ` FROM syncapi_receipts receipt
			WHERE receipt.room_id = $1 AND receipt.user_id = $2 AND receipt.type IN ('m.read', 'm.read.private')
			AND receipt.thread = $3`),
		trim: db.Stmt(`DELETE FROM syncapi_receipts WHERE room_id = $1 AND user_id = $2 AND thread NOT IN ('', 'main')
			AND pos <= (SELECT c.pos FROM syncapi_receipts c
				WHERE c.room_id = $1 AND c.user_id = $2 AND c.thread NOT IN ('', 'main')
				ORDER BY c.pos DESC LIMIT 1 OFFSET $3)`),
	}
}

// ReceiptsIn returns the receipts of one user in a thread of a room, or those without a thread.
func (d *Database) ReceiptsIn(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID,
	thread string) ([]Receipt, error) {
	return d.receipts.read(ctx, tx, d.threads.inThread, room, user, thread)
}

// TrimThreads removes a user's oldest receipts of threads of a room, so that at most keep are left.
func (d *Database) TrimThreads(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID, keep int) error {
	_, err := d.threads.trim.Exec(ctx, tx, room, user, keep)
	return err
}
