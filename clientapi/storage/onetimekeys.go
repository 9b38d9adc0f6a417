package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// KeyPool is a row of clientapi_key_pools: the one-time keys of a device that are of one algorithm.
type KeyPool struct {
	NID          int64
	UserID       id.UserID
	DeviceID     id.DeviceID
	Algorithm    string
	Given        int64 // keys up to this number have been given
	Uploaded     int64
	FallbackID   string // empty: there is none
	FallbackJSON string
	FallbackUsed bool
}

// Left is how many keys can be claimed.
func (p *KeyPool) Left() int { return int(p.Uploaded - p.Given) }

// KeyBatch is a row of clientapi_one_time_keys: keys that were uploaded together.
type KeyBatch struct {
	Pool        int64
	First, Last int64 // from 1 in each pool
	Width       int64 // bytes of a slot
	Slots       []byte
}

// TakenKey is a key that was given.
type TakenKey struct {
	Pool int64
	Slot []byte
}

type oneTimeKeyStatements struct {
	insertPool, selectPools, lockPools, updatePool, takeKeys, selectTaken, useFallback, deletePools *sqlutil.Stmt
	insertBatch, selectBatches, deleteGiven, deleteBatches                                          *sqlutil.Stmt
}

func prepareOneTimeKeys(db *sqlutil.DB) oneTimeKeyStatements {
	const pool = `SELECT nid, user_id, device_id, algorithm, given, uploaded, fallback_id, fallback_json, fallback_used
		FROM clientapi_key_pools WHERE user_id || ' ' || device_id = ANY($1) ORDER BY nid`
	return oneTimeKeyStatements{
		insertPool: db.Stmt(`INSERT INTO clientapi_key_pools (user_id, device_id, algorithm)
			VALUES ($1, $2, $3) RETURNING nid`),
		selectPools: db.Stmt(pool),
		lockPools:   db.Stmt(pool + ` FOR UPDATE`),
		updatePool: db.Stmt(`UPDATE clientapi_key_pools 
			SET uploaded = $2, fallback_id = $3, fallback_json = $4, fallback_used = $5 WHERE nid = $1`),
		takeKeys: db.Stmt(`UPDATE clientapi_key_pools SET given = given + 1
			WHERE nid = ANY($1) AND given < uploaded RETURNING nid`),
		selectTaken: db.Stmt(`SELECT k.pool, substr(k.slots, ((p.given - k.first_seq) * k.width + 1)::int, k.width::int)
			FROM clientapi_key_pools p JOIN clientapi_one_time_keys k
			ON k.pool = p.nid AND k.last_seq >= p.given AND k.first_seq <= p.given WHERE p.nid = ANY($1)`),
		useFallback: db.Stmt(`UPDATE clientapi_key_pools SET fallback_used = TRUE WHERE nid = ANY($1)`),
		deletePools: db.Stmt(`DELETE FROM clientapi_key_pools WHERE nid = ANY($1)`),
		insertBatch: db.Stmt(`INSERT INTO clientapi_one_time_keys (pool, first_seq, last_seq, width, slots)
			VALUES ($1, $2, $3, $4, $5)`),
		selectBatches: db.Stmt(`SELECT pool, first_seq, last_seq, width, slots FROM clientapi_one_time_keys
			WHERE pool = ANY($1)`),
		deleteGiven:   db.Stmt(`DELETE FROM clientapi_one_time_keys WHERE pool = $1 AND last_seq <= $2`),
		deleteBatches: db.Stmt(`DELETE FROM clientapi_one_time_keys WHERE pool = ANY($1)`),
	}
}

// KeyPools returns what users' devices have of one-time and fallback keys, in an order that all have in common.
func (s *Store) KeyPools(ctx context.Context, tx *sqlutil.Tx, of map[id.UserID][]id.DeviceID) ([]KeyPool, error) {
	return collectPools(s.selectPools.Query(ctx, tx, sqlutil.Array(names(of))))
}

// LockKeyPools is KeyPools, and keeps them as they are until the transaction ends.
func (s *Store) LockKeyPools(ctx context.Context, tx *sqlutil.Tx, of map[id.UserID][]id.DeviceID) ([]KeyPool, error) {
	return collectPools(s.lockPools.Query(ctx, tx, sqlutil.Array(names(of))))
}

// names has one text for each device. A user id has no space.
func names(of map[id.UserID][]id.DeviceID) []string {
	var all []string
	for user, devices := range of {
		for _, device := range devices {
			all = append(all, string(user)+" "+string(device))
		}
	}
	return all
}

func collectPools(rows *sql.Rows, err error) ([]KeyPool, error) {
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (p KeyPool, err error) {
		return p, rows.Scan(&p.NID, &p.UserID, &p.DeviceID, &p.Algorithm, &p.Given, &p.Uploaded, &p.FallbackID,
			&p.FallbackJSON, &p.FallbackUsed)
	})
}

// AddKeyPool makes an empty pool and gives it its NID. The device must be locked.
func (s *Store) AddKeyPool(ctx context.Context, tx *sqlutil.Tx, p *KeyPool) error {
	return s.insertPool.QueryRow(ctx, tx, p.UserID, p.DeviceID, p.Algorithm).Scan(&p.NID)
}

// UpdateKeyPool sets how many keys of a pool were uploaded, and its fallback key.
func (s *Store) UpdateKeyPool(ctx context.Context, tx *sqlutil.Tx, p KeyPool) error {
	_, err := s.updatePool.Exec(ctx, tx, p.NID, p.Uploaded, p.FallbackID, p.FallbackJSON, p.FallbackUsed)
	return err
}

// KeyBatches returns the keys that pools have, and those that they remember to have given.
func (s *Store) KeyBatches(ctx context.Context, tx *sqlutil.Tx, pools []int64) ([]KeyBatch, error) {
	rows, err := s.selectBatches.Query(ctx, tx, sqlutil.Array(pools))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (b KeyBatch, err error) {
		return b, rows.Scan(&b.Pool, &b.First, &b.Last, &b.Width, &b.Slots)
	})
}

// AddKeyBatch stores keys that are new.
func (s *Store) AddKeyBatch(ctx context.Context, tx *sqlutil.Tx, b KeyBatch) error {
	_, err := s.insertBatch.Exec(ctx, tx, b.Pool, b.First, b.Last, b.Width, b.Slots)
	return err
}

// ForgetGiven forgets the keys of a pool that were uploaded together and whose numbers are all up to one.
func (s *Store) ForgetGiven(ctx context.Context, tx *sqlutil.Tx, pool, upTo int64) error {
	_, err := s.deleteGiven.Exec(ctx, tx, pool, upTo)
	return err
}

// TakeOneTimeKeys gives the oldest key of each of the pools that has one. No transaction gets what another one got.
func (s *Store) TakeOneTimeKeys(ctx context.Context, tx *sqlutil.Tx, pools []int64) ([]TakenKey, error) {
	rows, err := s.takeKeys.Query(ctx, tx, sqlutil.Array(pools))
	taken, err := sqlutil.Collect(rows, err, scanOne[int64])
	if err != nil || len(taken) == 0 {
		return nil, err
	}
	rows, err = s.selectTaken.Query(ctx, tx, sqlutil.Array(taken))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (k TakenKey, err error) {
		return k, rows.Scan(&k.Pool, &k.Slot)
	})
}

// UseFallbackKeys notes that the fallback keys of pools were given.
func (s *Store) UseFallbackKeys(ctx context.Context, tx *sqlutil.Tx, pools []int64) error {
	_, err := s.useFallback.Exec(ctx, tx, sqlutil.Array(pools))
	return err
}

// DeleteKeyPools removes pools with all that is in them. They must be locked.
func (s *Store) DeleteKeyPools(ctx context.Context, tx *sqlutil.Tx, pools []int64) error {
	if _, err := s.deleteBatches.Exec(ctx, tx, sqlutil.Array(pools)); err != nil {
		return err
	}
	_, err := s.deletePools.Exec(ctx, tx, sqlutil.Array(pools))
	return err
}
