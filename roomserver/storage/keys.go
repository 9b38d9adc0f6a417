package storage

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"sync"
	"unsafe"

	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

// keyCacheBytes bounds the memory for the numbers of state keys: it holds some 150,000 of the usual length.
const keyCacheBytes = 32 << 20

// keys numbers the pairs of type and state key, the same in all rooms.
type keys struct {
	insertKey *sqlutil.Insert
	byKey     *sqlutil.Stmt
	byNID     *sqlutil.Stmt
	cache     *keyCache
}

// keyCache has the numbers that were used last.
type keyCache struct {
	mu    sync.Mutex
	byKey *lru.Cache[auth.Key, statetrie.KeyNID]
	byNID map[statetrie.KeyNID]auth.Key // the same, the other way round
}

func newKeyCache(maxBytes int) *keyCache {
	c := &keyCache{byNID: make(map[statetrie.KeyNID]auth.Key)}
	inByNID := int(2 * (unsafe.Sizeof(auth.Key{}) + unsafe.Sizeof(statetrie.KeyNID(0)))) // a map is half full
	size := func(k auth.Key, _ statetrie.KeyNID) int { return inByNID + len(k.Type) + len(k.StateKey) }
	c.byKey = lru.NewWithEvict(maxBytes, size, func(_ auth.Key, nid statetrie.KeyNID) { delete(c.byNID, nid) })
	return c
}

func newKeys(db *sqlutil.DB) keys {
	return keys{
		insertKey: db.Insert("roomserver_state_keys", []string{"nid", "type", "state_key"}, ""),
		byKey:     db.Stmt(`SELECT nid, type, state_key FROM roomserver_state_keys WHERE type = ANY($1) AND state_key = ANY($2)`),
		byNID:     db.Stmt(`SELECT nid, type, state_key FROM roomserver_state_keys WHERE nid = ANY($1)`),
		cache:     newKeyCache(keyCacheBytes),
	}
}

func (c *keyCache) put(all map[auth.Key]statetrie.KeyNID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, nid := range all {
		c.byNID[nid] = k
		c.byKey.AddMissing(k, nid)
	}
}

// numbers finds the numbers of keys, and says which keys it does not have.
func (c *keyCache) numbers(wanted []auth.Key) (found map[auth.Key]statetrie.KeyNID, missing []auth.Key) {
	found = make(map[auth.Key]statetrie.KeyNID, len(wanted))
	for _, k := range wanted {
		if nid, has := c.byKey.Get(k); has {
			found[k] = nid
		} else {
			missing = append(missing, k)
		}
	}
	return found, missing
}

// names finds what numbers stand for, and says of which it does not know.
func (c *keyCache) names(wanted []statetrie.KeyNID) (found map[statetrie.KeyNID]auth.Key, missing []statetrie.KeyNID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found = make(map[statetrie.KeyNID]auth.Key, len(wanted))
	for _, nid := range wanted {
		if k, has := c.byNID[nid]; has {
			c.byKey.Get(k) // it is used
			found[nid] = k
		} else {
			missing = append(missing, nid)
		}
	}
	return found, missing
}

// KeyNIDs finds the numbers of keys; those that no state has ever had are left out.
func (s *Storage) KeyNIDs(ctx context.Context, wanted []auth.Key) (map[auth.Key]statetrie.KeyNID, error) {
	found, missing := s.cache.numbers(wanted)
	if len(missing) == 0 {
		return found, nil
	}
	types, stateKeys := make([]string, len(missing)), make([]string, len(missing))
	for i, k := range missing {
		types[i], stateKeys[i] = k.Type, k.StateKey
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
	for _, k := range missing {
		if nid, has := read[k]; has {
			found[k] = nid
		}
	}
	return found, nil
}

// Keys finds what numbers stand for.
func (s *Storage) Keys(ctx context.Context, nids []statetrie.KeyNID) (map[statetrie.KeyNID]auth.Key, error) {
	found, missing := s.cache.names(nids)
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
