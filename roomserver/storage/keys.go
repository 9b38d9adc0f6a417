package storage

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

// maxCachedKeys bounds the memory for the numbers of state keys.
const maxCachedKeys = 200_000

// keys numbers the pairs of type and state key, the same in all rooms.
type keys struct {
	insertKey *sqlutil.Insert
	byKey     *sqlutil.Stmt
	byNID     *sqlutil.Stmt
	cache     *keyCache
}

type keyCache struct {
	mu    sync.RWMutex
	byKey map[auth.Key]statetrie.KeyNID
	byNID map[statetrie.KeyNID]auth.Key
}

func newKeys(db *sqlutil.DB) keys {
	return keys{
		insertKey: db.Insert("roomserver_state_keys", []string{"nid", "type", "state_key"}, ""),
		byKey:     db.Stmt(`SELECT nid, type, state_key FROM roomserver_state_keys WHERE type = ANY($1) AND state_key = ANY($2)`),
		byNID:     db.Stmt(`SELECT nid, type, state_key FROM roomserver_state_keys WHERE nid = ANY($1)`),
		cache:     &keyCache{byKey: make(map[auth.Key]statetrie.KeyNID), byNID: make(map[statetrie.KeyNID]auth.Key)},
	}
}

func (c *keyCache) put(all map[auth.Key]statetrie.KeyNID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byKey)+len(all) > maxCachedKeys {
		clear(c.byKey)
		clear(c.byNID)
	}
	for k, nid := range all {
		c.byKey[k], c.byNID[nid] = nid, k
	}
}

// KeyNIDs finds the numbers of keys; those that no state has ever had are left out.
func (s *Storage) KeyNIDs(ctx context.Context, wanted []auth.Key) (map[auth.Key]statetrie.KeyNID, error) {
	found := make(map[auth.Key]statetrie.KeyNID, len(wanted))
	var types, stateKeys []string
	s.cache.mu.RLock()
	for _, k := range wanted {
		if nid, has := s.cache.byKey[k]; has {
			found[k] = nid
		} else {
			types, stateKeys = append(types, k.Type), append(stateKeys, k.StateKey)
		}
	}
	s.cache.mu.RUnlock()
	if len(types) == 0 {
		return found, nil
	}
	read := make(map[auth.Key]statetrie.KeyNID)
	err := s.DB.ReadOne(ctx, "state keys", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.byKey.Query(ctx, tx, sqlutil.Array(types), sqlutil.Array(stateKeys))
		return collectKeys(rows, err, read)
	})
	if err != nil {
		return nil, err
	}
	s.cache.put(read)
	for _, k := range wanted {
		if nid, has := read[k]; has {
			found[k] = nid
		}
	}
	return found, nil
}

// Keys finds what numbers stand for.
func (s *Storage) Keys(ctx context.Context, nids []statetrie.KeyNID) (map[statetrie.KeyNID]auth.Key, error) {
	found := make(map[statetrie.KeyNID]auth.Key, len(nids))
	var missing []statetrie.KeyNID
	s.cache.mu.RLock()
	for _, nid := range nids {
		if k, has := s.cache.byNID[nid]; has {
			found[nid] = k
		} else {
			missing = append(missing, nid)
		}
	}
	s.cache.mu.RUnlock()
	if len(missing) == 0 {
		return found, nil
	}
	read := make(map[auth.Key]statetrie.KeyNID)
	err := s.DB.ReadOne(ctx, "state keys", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.byNID.Query(ctx, tx, sqlutil.Array(missing))
		return collectKeys(rows, err, read)
	})
	if err != nil {
		return nil, err
	}
	s.cache.put(read)
	for k, nid := range read {
		found[nid] = k
	}
	return found, nil
}

func collectKeys(rows *sql.Rows, err error, into map[auth.Key]statetrie.KeyNID) error {
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
		var k auth.Key
		var nid statetrie.KeyNID
		err = rows.Scan(&nid, &k.Type, &k.StateKey)
		into[k] = nid
		return none, err
	})
	return err
}

// NewKeyNID takes a number for a key. It counts only when InsertKeys is committed.
func (s *Storage) NewKeyNID(ctx context.Context, k auth.Key) (statetrie.KeyNID, error) {
	n, err := s.keyIDs.Next(ctx, 1)
	nid := statetrie.KeyNID(2 * n)
	if k.Type == pdu.TypeMember {
		nid++
	}
	return nid, err
}

// InsertKeys stores numbers that were taken. It fails if another writer has numbered one of the keys meanwhile
// (sqlutil.IsUniqueViolation).
func (s *Storage) InsertKeys(ctx context.Context, tx *sqlutil.Tx, all map[auth.Key]statetrie.KeyNID) error {
	if len(all) == 0 {
		return nil
	}
	rows := make([][]any, 0, len(all))
	// In one order everywhere, so that writers who number the same keys do not wait for each other in a circle.
	byName := func(a, b auth.Key) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.StateKey, b.StateKey))
	}
	for _, k := range slices.SortedFunc(maps.Keys(all), byName) {
		rows = append(rows, []any{all[k], k.Type, k.StateKey})
	}
	if _, err := s.insertKey.Exec(ctx, tx, rows); err != nil {
		return err
	}
	tx.AfterCommit(func() { s.cache.put(all) })
	return nil
}
