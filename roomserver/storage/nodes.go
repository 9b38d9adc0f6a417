package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

type nodes struct {
	insertNodes *sqlutil.Insert
	load        *sqlutil.Stmt
}

func newNodes(db *sqlutil.DB) nodes {
	return nodes{
		insertNodes: db.Insert("roomserver_state_nodes", []string{"room_nid", "hash", "data"}, "ON CONFLICT (room_nid, hash) DO NOTHING"),
		load:        db.Stmt(`SELECT hash, data FROM roomserver_state_nodes WHERE room_nid = $1 AND hash = ANY($2::bytea[])`),
	}
}

// InsertNodes stores nodes of a room's states.
func (s *Storage) InsertNodes(ctx context.Context, tx *sqlutil.Tx, roomNID int64, all []statetrie.Node) error {
	if len(all) == 0 {
		return nil
	}
	rows := make([][]any, len(all))
	for i := range all {
		rows[i] = []any{roomNID, all[i].Hash[:], all[i].Data}
	}
	_, err := s.insertNodes.Exec(ctx, tx, rows)
	return err
}

// Nodes loads the nodes of one room.
func (s *Storage) Nodes(roomNID int64) statetrie.Nodes { return roomNodes{s, roomNID} }

type roomNodes struct {
	s       *Storage
	roomNID int64
}

func (n roomNodes) Load(ctx context.Context, hashes []statetrie.Hash) (all []statetrie.Node, err error) {
	keys := make([][]byte, len(hashes))
	for i := range hashes {
		keys[i] = hashes[i][:]
	}
	err = n.s.DB.ReadOne(ctx, "state nodes", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := n.s.load.Query(ctx, tx, n.roomNID, sqlutil.Array(keys))
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (statetrie.Node, error) {
			var hash, data []byte
			if err := rows.Scan(&hash, &data); err != nil {
				return statetrie.Node{}, err
			}
			root, err := rootOf(hash)
			return statetrie.Node{Hash: root, Data: data}, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("state of room %d: %w", n.roomNID, err)
	}
	return all, nil
}
