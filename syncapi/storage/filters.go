package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type filterTable struct {
	put              *sqlutil.Insert
	number, byNumber *sqlutil.Stmt
}

func newFilterTable(db *sqlutil.DB) filterTable {
	return filterTable{
		put: db.Insert("syncapi_filters", []string{"user_id", "hash", "content"},
			"ON CONFLICT (user_id, hash) DO NOTHING"),
		number:   db.Stmt(`SELECT id FROM syncapi_filters WHERE user_id = $1 AND hash = $2`),
		byNumber: db.Stmt(`SELECT content FROM syncapi_filters WHERE user_id = $1 AND id = $2`),
	}
}

// PutFilter keeps a filter and returns its number; the same filter has the same number.
func (d *Database) PutFilter(ctx context.Context, user id.UserID, hash, content []byte) (filterID int64, err error) {
	err = d.db.Write(ctx, "filter", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := d.filters.put.Exec(ctx, tx, [][]any{{user, hash, string(content)}}); err != nil {
			return err
		}
		return d.filters.number.QueryRow(ctx, tx, user, hash).Scan(&filterID)
	})
	if err != nil {
		return 0, fmt.Errorf("store filter: %w", err)
	}
	return filterID, nil
}

// Filter returns a filter that PutFilter kept. M_NOT_FOUND if the user has none of this number.
func (d *Database) Filter(ctx context.Context, user id.UserID, filterID int64) (json.RawMessage, error) {
	var content string
	err := d.db.ReadOne(ctx, "filter", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.filters.byNumber.QueryRow(ctx, tx, user, filterID).Scan(&content)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, mxerr.NotFound("there is no filter %d: upload it again", filterID)
	case err != nil:
		return nil, fmt.Errorf("read filter: %w", err)
	}
	return json.RawMessage(content), nil
}
