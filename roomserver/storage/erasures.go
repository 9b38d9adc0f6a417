package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// Erasure is a room at the time when one of its members, or former members, was erased.
type Erasure struct {
	UserID id.UserID
	Root   api.Root // current state
	Last   api.OrderKey
}

type erasures struct{ erase, erasuresIn *sqlutil.Stmt }

func newErasures(db *sqlutil.DB) erasures {
	return erasures{
		erase: db.Stmt(`INSERT INTO roomserver_erasures (room_nid, user_id, root, last_seg, last_idx)
			SELECT r.nid, m.user_id, r.root, r.last_seg, r.last_idx FROM roomserver_memberships m JOIN roomserver_rooms r ON r.nid = m.room_nid
			WHERE m.user_id = $1 ON CONFLICT (room_nid, user_id) DO NOTHING`),
		erasuresIn: db.Stmt(`SELECT user_id, root, last_seg, last_idx FROM roomserver_erasures WHERE room_nid = $1 AND user_id = ANY($2)`),
	}
}

// Erase notes that a user is erased, in all rooms where they are or were. What was noted before stays.
func (s *Storage) Erase(ctx context.Context, user id.UserID) error {
	return s.DB.Write(ctx, "erase", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := s.erase.Exec(ctx, tx, user)
		return err
	})
}

// Erasures returns, of some users, those who were erased.
func (s *Storage) Erasures(ctx context.Context, roomNID int64, users []id.UserID) (all []Erasure, err error) {
	err = s.DB.ReadOne(ctx, "erasures", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.erasuresIn.Query(ctx, tx, roomNID, sqlutil.Array(users))
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (e Erasure, err error) {
			var root []byte
			if err = rows.Scan(&e.UserID, &root, &e.Last.Segment, &e.Last.Index); err == nil {
				e.Root, err = rootOf(root)
			}
			return e, err
		})
		return err
	})
	return all, err
}
