package clientapi

import (
	"context"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// CreateAccount makes an account directly in clientapi's database, for the tools: a server may run on it or not.
func CreateAccount(ctx context.Context, db *sqlutil.DB, cfg *config.Config, username, password string, admin bool) error {
	if err := accounts.CheckNewPassword(password); err != nil {
		return err
	}
	owned, err := open(ctx, db, &cfg.Matrix, eventlog.Options{}, accounts.Deps{Forget: func(id.UserID, id.DeviceID) {}})
	if err != nil {
		return err
	}
	local, err := owned.accounts.ParseLocalpart(username) // an empty name must not make one up
	if err != nil {
		return err
	}
	_, err = owned.accounts.Register(ctx, accounts.Registration{Localpart: local, Password: password, Admin: admin})
	return err
}
