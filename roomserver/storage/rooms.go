package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// Extremity is an event that no other one has as its parent yet.
type Extremity struct {
	NID     stateres.EventNID `json:"n"`
	EventID id.EventID        `json:"e"`
	Depth   int64             `json:"d"`
}

// Room is a room's row.
type Room struct {
	NID         int64
	ID          id.RoomID
	Version     id.RoomVersion
	RowVersion  int64
	Root        api.Root
	Extremities []Extremity
	Last        api.OrderKey
	Joined      int64
	Invited     int64
	Visibility  Visibility
}

// Visibility is m.room.history_visibility.
type Visibility int64

// The visibilities. What is not known counts as shared (Client-Server API, § Room History Visibility).
const (
	Shared Visibility = iota
	WorldReadable
	Invited
	Joined
)

var visibilities = [...]string{Shared: "shared", WorldReadable: "world_readable", Invited: "invited", Joined: "joined"}

func (v Visibility) String() string { return visibilities[v] }

// ParseVisibility reads the value of the state event.
func ParseVisibility(s string) Visibility {
	for v, name := range visibilities {
		if name == s {
			return Visibility(v)
		}
	}
	return Shared
}

type rooms struct {
	insert *sqlutil.Insert
	update *sqlutil.Stmt
	byID   *sqlutil.Stmt
	many   *sqlutil.Stmt
}

const roomColumns = `nid, room_id, version, row_version, root, extremities, last_seg, last_idx, joined, invited, visibility`

func newRooms(db *sqlutil.DB) rooms {
	return rooms{
		insert: db.Insert("roomserver_rooms", []string{"nid", "room_id", "version", "row_version", "root", "extremities", "last_seg", "last_idx",
			"joined", "invited", "visibility"}, ""),
		update: db.Stmt(`UPDATE roomserver_rooms SET row_version = $3, root = $4, extremities = $5, last_seg = $6, last_idx = $7, joined = $8,
			invited = $9, visibility = $10 WHERE nid = $1 AND row_version = $2`),
		byID: db.Stmt(`SELECT ` + roomColumns + ` FROM roomserver_rooms WHERE room_id = $1`),
		many: db.Stmt(`SELECT ` + roomColumns + ` FROM roomserver_rooms WHERE room_id = ANY($1)`),
	}
}

// NewRoomNID takes a number for a room.
func (s *Storage) NewRoomNID(ctx context.Context) (int64, error) { return s.roomIDs.Next(ctx, 1) }

// InsertRoom adds a room. It fails if there is one with this id (sqlutil.IsUniqueViolation).
func (s *Storage) InsertRoom(ctx context.Context, tx *sqlutil.Tx, r *Room) error {
	extremities, err := json.Marshal(r.Extremities)
	if err != nil {
		return err
	}
	_, err = s.rooms.insert.Exec(ctx, tx, [][]any{{r.NID, r.ID, r.Version, r.RowVersion, rootBytes(r.Root), string(extremities), r.Last.Segment, r.Last.Index,
		r.Joined, r.Invited, r.Visibility}})
	return err
}

// UpdateRoom replaces a room's row if it still has the version old; false if not.
func (s *Storage) UpdateRoom(ctx context.Context, tx *sqlutil.Tx, old int64, r *Room) (bool, error) {
	extremities, err := json.Marshal(r.Extremities)
	if err != nil {
		return false, err
	}
	n, err := s.rooms.update.Exec(ctx, tx, r.NID, old, r.RowVersion, rootBytes(r.Root), string(extremities), r.Last.Segment, r.Last.Index,
		r.Joined, r.Invited, r.Visibility)
	return n == 1, err
}

func scanRoom(row scanner) (*Room, error) {
	r := new(Room)
	var root, extremities []byte
	err := row.Scan(&r.NID, &r.ID, &r.Version, &r.RowVersion, &root, &extremities, &r.Last.Segment, &r.Last.Index, &r.Joined, &r.Invited, &r.Visibility)
	if err != nil {
		return nil, err
	}
	if r.Root, err = rootOf(root); err == nil {
		err = json.Unmarshal(extremities, &r.Extremities)
	}
	if err != nil {
		return nil, fmt.Errorf("room %s: %w", r.ID, err)
	}
	return r, nil
}

// Room reads a room's row; nil if there is none.
func (s *Storage) Room(ctx context.Context, roomID id.RoomID) (r *Room, err error) {
	err = s.DB.ReadOne(ctx, "room", func(ctx context.Context, tx *sqlutil.Tx) error {
		r, err = scanRoom(s.rooms.byID.QueryRow(ctx, tx, roomID))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return r, err
}

// Rooms reads the rows of those rooms that exist, by id.
func (s *Storage) Rooms(ctx context.Context, roomIDs []id.RoomID) (map[id.RoomID]*Room, error) {
	found := make(map[id.RoomID]*Room, len(roomIDs))
	err := s.DB.ReadOne(ctx, "rooms", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.rooms.many.Query(ctx, tx, sqlutil.Array(roomIDs))
		all, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (*Room, error) { return scanRoom(rows) })
		for _, r := range all {
			found[r.ID] = r
		}
		return err
	})
	return found, err
}
