package syncapi

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// ForeignUser has the form of identity.ForeignUser.
func ForeignUser(ctx context.Context, db *sqlutil.DB, server id.ServerName) (string, error) {
	return storage.ForeignUser(ctx, db, server)
}
