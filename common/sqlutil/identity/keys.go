package identity

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// KeyUseEvery is how often a process notes that it uses its key. One that is killed has used it for as long at most
// without a note.
const KeyUseEvery = time.Minute

// Key is a key with which the server signs, or has signed.
type Key struct {
	ID     string // ed25519:…
	Public ed25519.PublicKey
	// Since is when it became the current one; that of the current key is the latest.
	Since time.Time
	// Used is a time at which it was no longer used, or the last one at which it was known to be used.
	Used time.Time
}

// UseKey notes that this process signs with a key. One that was not the current key becomes it.
func UseKey(ctx context.Context, db *sqlutil.DB, keyID string, public ed25519.PublicKey) error {
	use := db.Stmt(`INSERT INTO sqlutil_keys (key_id, public_key, since, used) VALUES ($1, $2, NOW_MS(), NOW_MS())
		ON CONFLICT (key_id) DO UPDATE SET used = NOW_MS(),
			since = CASE WHEN sqlutil_keys.since < (SELECT MAX(newest.since) FROM sqlutil_keys newest)
				THEN NOW_MS() ELSE sqlutil_keys.since END
		RETURNING public_key`)
	var known []byte
	err := db.Write(ctx, "use key", func(ctx context.Context, tx *sqlutil.Tx) error {
		return use.QueryRow(ctx, tx, keyID, []byte(public)).Scan(&known)
	})
	if err != nil {
		return fmt.Errorf("the signing key in the database: %w", err)
	}
	if !bytes.Equal(known, public) {
		return fmt.Errorf("matrix.private_key: the server has signed with another key of the id %s, by which other "+
			"servers know it: bring that key back, or give this one another id", keyID)
	}
	return nil
}

// NoteKeyUse notes that this process still signs with a key, which need not be the current one.
func NoteKeyUse(ctx context.Context, db *sqlutil.DB, keyID string) error {
	note := db.Stmt(`UPDATE sqlutil_keys SET used = NOW_MS() WHERE key_id = $1`)
	return db.Write(ctx, "note use of key", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := note.Exec(ctx, tx, keyID)
		return err
	})
}

// Keys are all keys that were ever used, the current one first.
func Keys(ctx context.Context, db *sqlutil.DB) (all []Key, err error) {
	list := db.Stmt(`SELECT key_id, public_key, since, used FROM sqlutil_keys ORDER BY since DESC, key_id`)
	err = db.ReadOne(ctx, "keys", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := list.Query(ctx, tx)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (k Key, err error) {
			var since, used int64
			err = rows.Scan(&k.ID, (*[]byte)(&k.Public), &since, &used)
			k.Since, k.Used = time.UnixMilli(since), time.UnixMilli(used)
			return k, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the keys in the database: %w", err)
	}
	return all, nil
}
