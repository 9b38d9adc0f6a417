package storage

import (
	"context"
	"database/sql"
	"errors"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

type claimStatements struct {
	insertClaim, selectClaim, deleteOldClaims *sqlutil.Stmt
}

func prepareClaims(db *sqlutil.DB) claimStatements {
	return claimStatements{
		insertClaim: db.Stmt(`INSERT INTO clientapi_claims (request_key, claimed_ms, answer) VALUES ($1, $2, $3)
			ON CONFLICT (request_key) DO NOTHING`),
		selectClaim:     db.Stmt(`SELECT answer FROM clientapi_claims WHERE request_key = $1`),
		deleteOldClaims: db.Stmt(`DELETE FROM clientapi_claims WHERE claimed_ms < $1`),
	}
}

// PutClaim keeps the answer of a claim. It returns false if there is one of this request key.
func (s *Store) PutClaim(ctx context.Context, tx *sqlutil.Tx, requestKey string, nowMS int64,
	answer []byte) (bool, error) {
	n, err := s.insertClaim.Exec(ctx, tx, requestKey, nowMS, string(answer))
	return n == 1, err
}

// Claim returns the answer of a claim; nil if there is none of this request key.
func (s *Store) Claim(ctx context.Context, tx *sqlutil.Tx, requestKey string) ([]byte, error) {
	var answer []byte
	err := s.selectClaim.QueryRow(ctx, tx, requestKey).Scan(&answer)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return answer, err
}

// DeleteOldClaims forgets claims from before a time.
func (s *Store) DeleteOldClaims(ctx context.Context, tx *sqlutil.Tx, beforeMS int64) error {
	_, err := s.deleteOldClaims.Exec(ctx, tx, beforeMS)
	return err
}
