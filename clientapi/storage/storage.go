// Package storage has the tables of clientapi: accounts, devices and their keys, tokens, profiles, and what is kept of
// unfinished requests. It has all of clientapi's SQL and none of its rules. Its methods run in a transaction of the
// caller, but for those that say otherwise.
package storage

import (
	"context"
	"embed"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Component is the name under which tables and log are kept.
const Component = "clientapi"

//go:embed *.sql
var migrations embed.FS

// Store is the tables of clientapi.
type Store struct {
	DB *sqlutil.DB
	accountStatements
	deviceStatements
	tokenStatements
	profileStatements
	sessionStatements
	onceStatements
	pendingStatements
	reportStatements
	delayedStatements
	backupStatements
	backupBlockStatements
	dehydratedStatements
	deviceKeyStatements
	crossSigningStatements
	signatureStatements
	oneTimeKeyStatements
	claimStatements
	deviceListStatements
}

// Open brings the tables to their newest version.
func Open(ctx context.Context, db *sqlutil.DB) (*Store, error) {
	if err := db.Migrate(ctx, Component, migrations); err != nil {
		return nil, fmt.Errorf("tables of clientapi: %w", err)
	}
	return &Store{
		DB:                     db,
		accountStatements:      prepareAccounts(db),
		deviceStatements:       prepareDevices(db),
		tokenStatements:        prepareTokens(db),
		profileStatements:      prepareProfiles(db),
		sessionStatements:      prepareSessions(db),
		onceStatements:         prepareOnce(db),
		pendingStatements:      preparePending(db),
		reportStatements:       prepareReports(db),
		delayedStatements:      prepareDelayed(db),
		backupStatements:       prepareBackups(db),
		backupBlockStatements:  prepareBackupBlocks(db),
		dehydratedStatements:   prepareDehydrated(db),
		deviceKeyStatements:    prepareDeviceKeys(db),
		crossSigningStatements: prepareCrossSigning(db),
		signatureStatements:    prepareSignatures(db),
		oneTimeKeyStatements:   prepareOneTimeKeys(db),
		claimStatements:        prepareClaims(db),
		deviceListStatements:   prepareDeviceLists(db),
	}, nil
}
