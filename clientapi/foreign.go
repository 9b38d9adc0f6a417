package clientapi

import (
	"context"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ForeignUser has the form of identity.ForeignUser.
func ForeignUser(ctx context.Context, db *sqlutil.DB, server id.ServerName) (string, error) {
	return storage.ForeignUser(ctx, db, server)
}
