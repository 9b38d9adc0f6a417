package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Signature is a row of clientapi_signatures.
type Signature struct {
	UserID     id.UserID // whose key is signed
	KeyID      string    // device or public key
	Signer     id.UserID
	SignerKey  string // device or public key
	Signature  string
	OnlySigner bool // nobody else sees it
}

type signatureStatements struct {
	selectSignatures, deleteSignaturesBy, deleteSignaturesOn *sqlutil.Stmt
	insertSignatures                                         *sqlutil.Insert
}

func prepareSignatures(db *sqlutil.DB) signatureStatements {
	return signatureStatements{
		selectSignatures: db.Stmt(`SELECT user_id, key_id, signer, signer_key, signature, only_signer
			FROM clientapi_signatures WHERE user_id = ANY($1) AND (only_signer = FALSE OR signer = $2)`),
		insertSignatures: db.Insert("clientapi_signatures", []string{"user_id", "key_id", "signer", "signer_key",
			"signature", "only_signer"},
			`ON CONFLICT (user_id, key_id, signer, signer_key) DO NOTHING`),
		deleteSignaturesBy: db.Stmt(`DELETE FROM clientapi_signatures
			WHERE signer = $1 AND signer_key = ANY($2) RETURNING user_id`),
		deleteSignaturesOn: db.Stmt(`DELETE FROM clientapi_signatures WHERE user_id = $1 AND key_id = ANY($2)`),
	}
}

// Signatures returns the signatures on keys of users that a viewer may see.
func (s *Store) Signatures(ctx context.Context, tx *sqlutil.Tx, users []id.UserID,
	viewer id.UserID) ([]Signature, error) {
	rows, err := s.selectSignatures.Query(ctx, tx, sqlutil.Array(users), viewer)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (g Signature, err error) {
		return g, rows.Scan(&g.UserID, &g.KeyID, &g.Signer, &g.SignerKey, &g.Signature, &g.OnlySigner)
	})
}

// PutSignatures adds signatures, and tells how many of them are new. Those that are there stay as they are.
func (s *Store) PutSignatures(ctx context.Context, tx *sqlutil.Tx, all []Signature) (int64, error) {
	if len(all) == 0 {
		return 0, nil
	}
	rows := make([][]any, len(all))
	for i, g := range all {
		rows[i] = []any{g.UserID, g.KeyID, g.Signer, g.SignerKey, g.Signature, g.OnlySigner}
	}
	return s.insertSignatures.Exec(ctx, tx, rows)
}

// DeleteSignaturesBy removes what a user has signed with some keys, and tells whose keys that was, one or more times.
func (s *Store) DeleteSignaturesBy(ctx context.Context, tx *sqlutil.Tx, signer id.UserID,
	keys []string) ([]id.UserID, error) {
	rows, err := s.deleteSignaturesBy.Query(ctx, tx, signer, sqlutil.Array(keys))
	return sqlutil.Collect(rows, err, scanOne[id.UserID])
}

// DeleteSignaturesOn removes the signatures on some keys of a user.
func (s *Store) DeleteSignaturesOn(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keys []string) error {
	_, err := s.deleteSignaturesOn.Exec(ctx, tx, user, sqlutil.Array(keys))
	return err
}
