package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type deviceListStatements struct {
	advanceDeviceList, selectStreamIDs, selectStreamIDsAndPrivate *sqlutil.Stmt
}

func prepareDeviceLists(db *sqlutil.DB) deviceListStatements {
	return deviceListStatements{
		advanceDeviceList: db.Stmt(`INSERT INTO clientapi_device_lists (user_id, stream_id) VALUES ($1, $2::bigint)
			ON CONFLICT (user_id) DO UPDATE SET stream_id = clientapi_device_lists.stream_id + $2::bigint RETURNING stream_id`),
		selectStreamIDsAndPrivate: db.Stmt(`SELECT user_id, stream_id, '' AS key_id, '' AS signer_key, '' AS signature
			FROM clientapi_device_lists WHERE user_id = ANY($1)
			UNION ALL SELECT user_id, 0, key_id, signer_key, signature FROM clientapi_signatures
			WHERE signer = $2 AND only_signer = TRUE AND user_id = ANY($3)`),
		selectStreamIDs: db.Stmt(`SELECT user_id, stream_id FROM clientapi_device_lists WHERE user_id = ANY($1)`),
	}
}

// AdvanceDeviceList counts n changes of a user's keys and returns the number of the last. Until the transaction ends no
// other counts, and with n = 0 this is all that it does.
func (s *Store) AdvanceDeviceList(ctx context.Context, tx *sqlutil.Tx, user id.UserID, n int) (last int64, err error) {
	err = s.advanceDeviceList.QueryRow(ctx, tx, user, n).Scan(&last)
	return last, err
}

// StreamIDs returns the numbers of the last changes of users' keys. Users who had none are left out.
func (s *Store) StreamIDs(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) (map[id.UserID]int64, error) {
	last := make(map[id.UserID]int64)
	rows, err := s.selectStreamIDs.Query(ctx, tx, sqlutil.Array(users))
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var user id.UserID
		var n int64
		err := rows.Scan(&user, &n)
		if n > 0 {
			last[user] = n
		}
		return struct{}{}, err
	})
	return last, err
}

// StreamIDsAndPrivate is StreamIDs, and returns those signatures of a viewer on the users' keys that nobody else sees.
func (s *Store) StreamIDsAndPrivate(ctx context.Context, tx *sqlutil.Tx, users []id.UserID,
	viewer id.UserID) (map[id.UserID]int64, []Signature, error) {
	last := make(map[id.UserID]int64)
	var private []Signature
	rows, err := s.selectStreamIDsAndPrivate.Query(ctx, tx, sqlutil.Array(users), viewer, sqlutil.Array(users))
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		g := Signature{Signer: viewer, OnlySigner: true}
		var n int64
		err := rows.Scan(&g.UserID, &n, &g.KeyID, &g.SignerKey, &g.Signature)
		switch {
		case g.SignerKey != "":
			private = append(private, g)
		case n > 0:
			last[g.UserID] = n
		}
		return struct{}{}, err
	})
	return last, private, err
}
