package storage

import (
	"context"
	"database/sql"
	"strconv"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type deviceListStatements struct {
	advanceDeviceList, selectStreamIDs, selectChanges *sqlutil.Stmt
}

func prepareDeviceLists(db *sqlutil.DB) deviceListStatements {
	return deviceListStatements{
		advanceDeviceList: db.Stmt(`INSERT INTO clientapi_device_lists (user_id, stream_id) VALUES ($1, $2::bigint)
			ON CONFLICT (user_id) DO UPDATE SET stream_id = clientapi_device_lists.stream_id + $2::bigint RETURNING stream_id`),
		// What is known is most of it: rows that are not returned cost a third.
		selectChanges: db.Stmt(`SELECT user_id, stream_id, '' AS key_id, '' AS signer_key, '' AS signature
			FROM clientapi_device_lists WHERE user_id = ANY($1)
				AND NOT (stream_id || ' ' || user_id = ANY($2))
			UNION ALL SELECT user_id, 0, key_id, signer_key, signature FROM clientapi_signatures
			WHERE signer = $3 AND only_signer = TRUE AND user_id = ANY($4)`),
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

// ChangesAndPrivate is StreamIDs of those users for whom another number than this is the last, and returns those
// signatures of a viewer on the users' keys that nobody else sees. Users who had no change have the number 0.
func (s *Store) ChangesAndPrivate(ctx context.Context, tx *sqlutil.Tx, users []id.UserID, known []int64,
	viewer id.UserID) (map[id.UserID]int64, []Signature, error) {
	same := make([]string, len(users))
	for i, user := range users {
		same[i] = strconv.FormatInt(known[i], 10) + " " + string(user)
	}
	changed := make(map[id.UserID]int64)
	var private []Signature
	rows, err := s.selectChanges.Query(ctx, tx, sqlutil.Array(users), sqlutil.Array(same), viewer,
		sqlutil.Array(users))
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		g := Signature{Signer: viewer, OnlySigner: true}
		var n int64
		err := rows.Scan(&g.UserID, &n, &g.KeyID, &g.SignerKey, &g.Signature)
		if g.SignerKey != "" {
			private = append(private, g)
		} else {
			changed[g.UserID] = n
		}
		return struct{}{}, err
	})
	return changed, private, err
}
