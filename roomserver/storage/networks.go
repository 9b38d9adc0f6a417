package storage

import (
	"context"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

type networks struct {
	publishIn     *sqlutil.Insert
	unpublishFrom *sqlutil.Stmt
	moveNetworks  *sqlutil.Stmt
	countNetworks *sqlutil.Stmt
}

func newNetworks(db *sqlutil.DB) networks {
	return networks{
		publishIn: db.Insert("roomserver_networks", []string{"room_nid", "service", "network"},
			"ON CONFLICT (room_nid, service, network) DO NOTHING"),
		unpublishFrom: db.Stmt(`DELETE FROM roomserver_networks WHERE room_nid = $1 AND service = $2 AND network = $3`),
		countNetworks: db.Stmt(`SELECT COUNT(*) FROM roomserver_networks WHERE room_nid = $1 AND service = $2`),
		moveNetworks:  db.Stmt(`UPDATE roomserver_networks SET room_nid = $2 WHERE room_nid = $1`),
	}
}

// PublishIn puts a room into the directory of a network, or takes it out.
func (s *Storage) PublishIn(ctx context.Context, tx *sqlutil.Tx, roomNID int64, n api.Network, publish bool) error {
	if publish {
		_, err := s.publishIn.Exec(ctx, tx, [][]any{{roomNID, n.Service, n.Network}})
		return err
	}
	_, err := s.unpublishFrom.Exec(ctx, tx, roomNID, n.Service, n.Network)
	return err
}

// CountNetworks counts the networks of a service in whose directories a room is.
func (s *Storage) CountNetworks(ctx context.Context, tx *sqlutil.Tx, roomNID int64, service string) (n int, err error) {
	return n, s.countNetworks.QueryRow(ctx, tx, roomNID, service).Scan(&n)
}

// MoveNetworks puts a room that has none in the place of another, in the directories of all networks.
func (s *Storage) MoveNetworks(ctx context.Context, tx *sqlutil.Tx, from, to int64) error {
	_, err := s.moveNetworks.Exec(ctx, tx, from, to)
	return err
}
