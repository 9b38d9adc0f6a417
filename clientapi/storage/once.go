package storage

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

type onceStatements struct {
	useOnce, deleteOldOnce, insertSecret, selectSecret *sqlutil.Stmt
}

func prepareOnce(db *sqlutil.DB) onceStatements {
	return onceStatements{
		useOnce:       db.Stmt(`INSERT INTO clientapi_once (key, expires_ms) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING`),
		deleteOldOnce: db.Stmt(`DELETE FROM clientapi_once WHERE expires_ms <= $1`),
		insertSecret:  db.Stmt(`INSERT INTO clientapi_secrets (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`),
		selectSecret:  db.Stmt(`SELECT secret FROM clientapi_secrets WHERE name = $1`),
	}
}

// UseOnce uses a key, which is remembered as used until a time. It returns false if it was used before.
func (s *Store) UseOnce(ctx context.Context, tx *sqlutil.Tx, key string, expiresMS int64) (bool, error) {
	n, err := s.useOnce.Exec(ctx, tx, key, expiresMS)
	return n == 1, err
}

// DeleteOldOnce removes keys whose time is over.
func (s *Store) DeleteOldOnce(ctx context.Context, tx *sqlutil.Tx, nowMS int64) error {
	_, err := s.deleteOldOnce.Exec(ctx, tx, nowMS)
	return err
}

// Secret returns the secret of a name that all replicas share: fresh, if there is none yet. It runs its own transaction.
func (s *Store) Secret(ctx context.Context, name string, fresh []byte) ([]byte, error) {
	var secret []byte
	err := s.DB.Write(ctx, "secret", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := s.insertSecret.Exec(ctx, tx, name, fresh); err != nil {
			return err
		}
		return s.selectSecret.QueryRow(ctx, tx, name).Scan(&secret)
	})
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return secret, nil
}
