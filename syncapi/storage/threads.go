package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type threadStatements struct{ inThread, trim *sqlutil.Stmt }

func newThreadStatements(db *sqlutil.DB) threadStatements {
	return threadStatements{
		inThread: db.Stmt(`SELECT ` + receiptColumns + ` FROM syncapi_receipts
			WHERE room_id = $1 AND user_id = $2 AND type IN ('m.read', 'm.read.private') AND thread = $3`),
		trim: db.Stmt(`DELETE FROM syncapi_receipts WHERE room_id = $1 AND user_id = $2 AND thread NOT IN ('', 'main')
			AND pos <= (SELECT c.pos FROM syncapi_receipts c
				WHERE c.room_id = $1 AND c.user_id = $2 AND c.thread NOT IN ('', 'main')
				ORDER BY c.pos DESC LIMIT 1 OFFSET $3)`),
	}
}

// ReceiptsIn returns the receipts of one user in a thread of a room, or those without a thread.
func (d *Database) ReceiptsIn(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID,
	thread string) ([]Receipt, error) {
	rows, err := d.threads.inThread.Query(ctx, tx, room, user, thread)
	return sqlutil.Collect(rows, err, scanReceipt)
}

// TrimThreads removes a user's oldest receipts of threads of a room, so that at most keep are left.
func (d *Database) TrimThreads(ctx context.Context, tx *sqlutil.Tx, room id.RoomID, user id.UserID, keep int) error {
	_, err := d.threads.trim.Exec(ctx, tx, room, user, keep)
	return err
}
