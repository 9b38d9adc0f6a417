package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// CrossSigningKey is a row of clientapi_cross_signing.
type CrossSigningKey struct {
	UserID    id.UserID
	Usage     string
	PublicKey string
	Signature string
	JSON      string
}

type crossSigningStatements struct {
	selectCrossSigning, upsertCrossSigning, deleteCrossSigning *sqlutil.Stmt
}

func prepareCrossSigning(db *sqlutil.DB) crossSigningStatements {
	return crossSigningStatements{
		selectCrossSigning: db.Stmt(`SELECT user_id, usage, public_key, signature, json FROM clientapi_cross_signing
			WHERE user_id = ANY($1)`),
		upsertCrossSigning: db.Stmt(`INSERT INTO clientapi_cross_signing (user_id, usage, public_key, signature, json)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, usage)
			DO UPDATE SET public_key = excluded.public_key, signature = excluded.signature, json = excluded.json`),
		deleteCrossSigning: db.Stmt(`DELETE FROM clientapi_cross_signing WHERE user_id = $1 AND usage = ANY($2)`),
	}
}

// CrossSigningKeys returns the cross-signing keys of users.
func (s *Store) CrossSigningKeys(ctx context.Context, tx *sqlutil.Tx, users []id.UserID) ([]CrossSigningKey, error) {
	rows, err := s.selectCrossSigning.Query(ctx, tx, sqlutil.Array(users))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (k CrossSigningKey, err error) {
		return k, rows.Scan(&k.UserID, &k.Usage, &k.PublicKey, &k.Signature, &k.JSON)
	})
}

// PutCrossSigningKey sets the key that a user has for a usage.
func (s *Store) PutCrossSigningKey(ctx context.Context, tx *sqlutil.Tx, k CrossSigningKey) error {
	_, err := s.upsertCrossSigning.Exec(ctx, tx, k.UserID, k.Usage, k.PublicKey, k.Signature, k.JSON)
	return err
}

// DeleteCrossSigningKeys removes the keys that a user has for some usages.
func (s *Store) DeleteCrossSigningKeys(ctx context.Context, tx *sqlutil.Tx, user id.UserID, usages []string) error {
	_, err := s.deleteCrossSigning.Exec(ctx, tx, user, sqlutil.Array(usages))
	return err
}
