package tokens

import (
	"context"
	"fmt"
	"net/http"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// StillActive fails with M_UNKNOWN_TOKEN for an account that has ended since its token was looked up, perhaps in the
// memory of another replica. Until the transaction ends, the account does not end. It is the first in its transaction.
func StillActive(ctx context.Context, tx *sqlutil.Tx, store *storage.Store, user id.UserID) error {
	account, err := store.LockAccount(ctx, tx, user)
	switch {
	case err != nil:
		return fmt.Errorf("lock the account: %w", err)
	case account == nil || account.Deactivated:
		return mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "the account has ended")
	}
	return nil
}
