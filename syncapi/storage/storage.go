// Package storage keeps what /sync is answered from: an index of each room's timeline, the memberships of this server's users,
// and what only /sync shows, such as account data and receipts. It holds no events; these are the roomserver's.
//
// Everything that is written gets a position. All streams share one sequence of positions, and the position is taken under the
// lock of its row at the end of a transaction, so that the order of commits is the order of positions: who has seen position p
// has seen everything up to p. A Database's Commit is the only way to write.
package storage

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Component is the prefix of the tables.
const Component = "syncapi"

// Database is syncapi's part of a database.
type Database struct {
	db        *sqlutil.DB
	committer committer

	position    struct{ take, read *sqlutil.Stmt }
	rooms       roomTable
	timeline    timelineTable
	memberships membershipTable
	mentions    mentionTable
	frozen      table[Frozen]
	receipts    receiptTable
	accountData accountDataTable
	filters     filterTable
	unread      unreadStatements
	presence    presenceTable
	present     presentTable
	pushers     pusherTable
	erase       eraseStatements
	usage       usageStatements
	threads     threadStatements
	filterQuota filterQuotaStatements
	deviceLists deviceListTable
	deviceKeys  deviceKeysTable

	toDevice     toDeviceTable
	toDeviceTxns toDeviceTxns
	gone         goneTable
}

// New brings the tables up to date. onCommit is told of each commit of this process, in order of their positions; it must not wait.
func New(ctx context.Context, db *sqlutil.DB, onCommit func(Changes)) (*Database, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err == nil {
		err = db.Migrate(ctx, Component, sub)
	}
	if err != nil {
		return nil, fmt.Errorf("tables of syncapi: %w", err)
	}
	d := &Database{db: db}
	d.committer.onCommit = onCommit
	d.position.take = db.Stmt(`UPDATE syncapi_position SET prev = pos, pos = GREATEST(pos + $1, NOW_MS() * 1000)
		WHERE id = 1 RETURNING prev, pos`)
	d.position.read = db.Stmt(`SELECT pos FROM syncapi_position WHERE id = 1`)
	d.rooms = newRoomTable(db)
	d.timeline = newTimelineTable(db)
	d.memberships = newMembershipTable(db)
	d.mentions = newMentionTable(db)
	d.frozen = newFrozenTable(db)
	d.receipts = newReceiptTable(db)
	d.accountData = newAccountDataTable(db)
	d.filters = newFilterTable(db)
	d.unread = newUnreadStatements(db)
	d.presence = newPresenceTable(db)
	d.present = newPresentTable(db)
	d.pushers = newPusherTable(db)
	d.erase = newEraseStatements(db)
	d.usage = newUsageStatements(db)
	d.threads = newThreadStatements(db, d.receipts)
	d.filterQuota = newFilterQuotaStatements(db)
	d.deviceLists = newDeviceListTable(db)
	d.deviceKeys = newDeviceKeysTable(db)
	d.toDevice = newToDeviceTable(db)
	d.toDeviceTxns = newToDeviceTxns(db)
	d.gone = newGoneTable(db)
	return d, nil
}

// DB is the database, for consumers that keep their offsets in it.
func (d *Database) DB() *sqlutil.DB { return d.db }

// Position is the last position that is committed, by any process.
func (d *Database) Position(ctx context.Context) (pos int64, err error) {
	err = d.db.ReadOne(ctx, "sync position", func(ctx context.Context, tx *sqlutil.Tx) error {
		return d.position.read.QueryRow(ctx, tx).Scan(&pos)
	})
	if err != nil {
		return 0, fmt.Errorf("position: %w", err)
	}
	return pos, nil
}

// PositionIn is Position as the snapshot of a transaction has it.
func (d *Database) PositionIn(ctx context.Context, tx *sqlutil.Tx) (pos int64, err error) {
	return pos, d.position.read.QueryRow(ctx, tx).Scan(&pos)
}

// Read runs fn in a transaction whose statements see one snapshot.
func (d *Database) Read(ctx context.Context, name string, fn func(ctx context.Context, tx *sqlutil.Tx) error) error {
	if err := d.db.Read(ctx, name, fn); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
