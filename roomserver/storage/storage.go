// Package storage keeps the rooms: a file for each table. It holds no rules of the protocol.
package storage

import (
	"context"
	"embed"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

//go:embed *.sql
var migrations embed.FS

// Component is the prefix of the tables.
const Component = "roomserver"

// Storage is the roomserver's tables.
type Storage struct {
	DB *sqlutil.DB
	rooms
	events
	nodes
	keys
	memberships
	summaries
	aliases
	networks
	staged
	requests
	relations
	search
	guests
	erasures

	roomIDs, eventIDs, keyIDs *sqlutil.IDs
}

// New brings the tables up to date.
func New(ctx context.Context, db *sqlutil.DB) (*Storage, error) {
	if err := db.Migrate(ctx, Component, migrations); err != nil {
		return nil, fmt.Errorf("tables of the roomserver: %w", err)
	}
	return &Storage{DB: db, rooms: newRooms(db), events: newEvents(db), nodes: newNodes(db), keys: newKeys(db), memberships: newMemberships(db),
		summaries: newSummaries(db), aliases: newAliases(db), networks: newNetworks(db), staged: newStaged(db), requests: newRequests(db), relations: newRelations(db), search: newSearch(db), guests: newGuests(db), erasures: newErasures(db),
		roomIDs: db.IDs("roomserver_rooms"), eventIDs: db.IDs("roomserver_events"), keyIDs: db.IDs("roomserver_state_keys")}, nil
}

// scanner is a row, or one of many.
type scanner interface{ Scan(...any) error }

func rootOf(raw []byte) (r api.Root, err error) {
	switch len(raw) {
	case 0:
		return r, nil
	case len(r):
		return api.Root(raw), nil
	}
	return r, fmt.Errorf("a state root has %d bytes", len(raw))
}

func rootBytes(r api.Root) []byte {
	if r.IsZero() {
		return []byte{}
	}
	return r[:]
}
