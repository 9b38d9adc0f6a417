// Package storage has the tables of appservice: what waits for application services. It has all of appservice's SQL
// and none of its rules. Its methods run in a transaction of the caller, but for those that say otherwise.
package storage

import (
	"context"
	"embed"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Component is the name under which tables and offsets are kept.
const Component = "appservice"

//go:embed *.sql
var migrations embed.FS

// Store is the tables of appservice.
type Store struct {
	DB *sqlutil.DB
	serviceStatements
	eventStatements
	transactionStatements
	roomStatements
	encryptionStatements
	ephemeralStatements
	typingStatements
}

// Open brings the tables to their newest version.
func Open(ctx context.Context, db *sqlutil.DB) (*Store, error) {
	if err := db.Migrate(ctx, Component, migrations); err != nil {
		return nil, fmt.Errorf("tables of appservice: %w", err)
	}
	return &Store{
		DB:                    db,
		serviceStatements:     prepareServices(db),
		eventStatements:       prepareEvents(db),
		transactionStatements: prepareTransactions(db),
		roomStatements:        prepareRooms(db),
		encryptionStatements:  prepareEncryption(db),
		ephemeralStatements:   prepareEphemeral(db),
		typingStatements:      prepareTyping(db),
	}, nil
}
