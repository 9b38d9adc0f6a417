package sqlutil

import (
	"context"
	"fmt"
	"sync"

	"github.com/matrix-org/dendrite/common/txguard"
)

// idBlock is how many ids a process takes at a time.
const idBlock = 1000

type idSequences struct {
	next *Stmt
	mu   sync.Mutex
	all  map[string]*IDs
}

// IDs hands out numbers of a sequence, never one twice, in any number of processes. They come in blocks: those that a process
// has taken and not used when it ends are never used.
type IDs struct {
	db   *DB
	name string

	mu    sync.Mutex
	first int64
	left  int64
}

// IDs is the sequence of this name.
func (db *DB) IDs(name string) *IDs {
	db.ids.mu.Lock()
	defer db.ids.mu.Unlock()
	ids, has := db.ids.all[name]
	if !has {
		ids = &IDs{db: db, name: name}
		db.ids.all[name] = ids
	}
	return ids
}

// Next returns the first of n consecutive numbers. It must not be called in a transaction.
func (s *IDs) Next(ctx context.Context, n int64) (int64, error) {
	if err := txguard.Check(ctx, "to take ids"); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < n {
		take := max(n, idBlock)
		first, err := s.db.NextIDs(ctx, s.name, take)
		if err != nil {
			return 0, err
		}
		s.first, s.left = first, take
	}
	first := s.first
	s.first += n
	s.left -= n
	return first, nil
}

// NextIDs takes a block of n numbers of a sequence, which begins at 1, and returns the first.
func (db *DB) NextIDs(ctx context.Context, sequence string, n int64) (int64, error) {
	var end int64
	err := db.Write(ctx, "next ids", func(ctx context.Context, tx *Tx) error {
		return db.ids.next.QueryRow(ctx, tx, sequence, n).Scan(&end)
	})
	if err != nil {
		return 0, fmt.Errorf("take ids of %s: %w", sequence, err)
	}
	return end - n, nil
}

func (db *DB) createIDs(ctx context.Context) error {
	db.ids.all = make(map[string]*IDs)
	db.ids.next = db.Stmt(`INSERT INTO sqlutil_ids (name, next) VALUES ($1, 1 + $2::bigint)
		ON CONFLICT (name) DO UPDATE SET next = sqlutil_ids.next + $2::bigint RETURNING next`)
	return db.Script(ctx, `CREATE TABLE IF NOT EXISTS sqlutil_ids (name TEXT PRIMARY KEY, next BIGINT NOT NULL);
		CREATE TABLE IF NOT EXISTS sqlutil_migrations (component TEXT PRIMARY KEY, version BIGINT NOT NULL);
		CREATE TABLE IF NOT EXISTS sqlutil_probe (id BIGINT PRIMARY KEY, filler BYTEA NOT NULL)`)
}
