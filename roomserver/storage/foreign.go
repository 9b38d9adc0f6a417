package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
)

// ForeignUser has the form of identity.ForeignUser.
func ForeignUser(ctx context.Context, db *sqlutil.DB, server id.ServerName) (string, error) {
	const query = `SELECT user_id FROM roomserver_memberships
		WHERE membership = 'join' AND user_id NOT LIKE '%:' || $1::text LIMIT 1`
	return identity.Foreign(ctx, db, Component, query, server)
}
