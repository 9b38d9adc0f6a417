package storage

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Room is how many users of each service are joined to a room.
type Room struct {
	RoomID id.RoomID
	// Namespaces names those for which Users is right; empty if nothing is known of the room.
	Namespaces string
	Users      map[string]int64
}

type roomStatements struct {
	putRoom                                  *sqlutil.Insert
	putUsers                                 *sqlutil.Insert
	selectRooms, selectUsers, deleteInterest *sqlutil.Stmt
	interestedAmong, interestingRooms        *sqlutil.Stmt
}

func prepareRooms(db *sqlutil.DB) roomStatements {
	return roomStatements{
		putRoom: db.Insert("appservice_rooms", []string{"room_id", "namespaces"},
			`ON CONFLICT (room_id) DO UPDATE SET namespaces = excluded.namespaces`),
		putUsers: db.Insert("appservice_interest", []string{"room_id", "service", "users"},
			`ON CONFLICT (room_id, service) DO UPDATE SET users = excluded.users`),
		selectRooms:      db.Stmt(`SELECT room_id, namespaces FROM appservice_rooms WHERE room_id = ANY($1)`),
		selectUsers:      db.Stmt(`SELECT room_id, service, users FROM appservice_interest WHERE room_id = ANY($1)`),
		deleteInterest:   db.Stmt(`DELETE FROM appservice_interest WHERE room_id = $1 AND service = ANY($2)`),
		interestedAmong:  db.Stmt(`SELECT COUNT(*) FROM appservice_interest WHERE service = $1 AND room_id = ANY($2)`),
		interestingRooms: db.Stmt(`SELECT room_id FROM appservice_interest WHERE service = $1`),
	}
}

// Rooms reads what is known of rooms, those of which something is.
func (s *Store) Rooms(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID) (map[id.RoomID]*Room, error) {
	all := make(map[id.RoomID]*Room)
	rows, err := s.selectRooms.Query(ctx, tx, sqlutil.Array(rooms))
	found, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (r Room, err error) {
		return r, rows.Scan(&r.RoomID, &r.Namespaces)
	})
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	for _, r := range found {
		r.Users = make(map[string]int64)
		all[r.RoomID] = &r
	}
	rows, err = s.selectUsers.Query(ctx, tx, sqlutil.Array(rooms))
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
		var room id.RoomID
		var service string
		var users int64
		if err = rows.Scan(&room, &service, &users); err == nil && all[room] != nil {
			all[room].Users[service] = users
		}
		return none, err
	})
	if err != nil {
		return nil, fmt.Errorf("users of services in rooms: %w", err)
	}
	return all, nil
}

// PutRoom replaces what is known of a room. changed are the services whose counts are others than before.
func (s *Store) PutRoom(ctx context.Context, tx *sqlutil.Tx, r *Room, namespacesChanged bool, changed []string) error {
	if namespacesChanged {
		if _, err := s.putRoom.Exec(ctx, tx, [][]any{{r.RoomID, r.Namespaces}}); err != nil {
			return fmt.Errorf("room %s: %w", r.RoomID, err)
		}
	}
	var rows [][]any
	var gone []string
	for _, service := range changed {
		if users := r.Users[service]; users > 0 {
			rows = append(rows, []any{r.RoomID, service, users})
		} else {
			gone = append(gone, service)
		}
	}
	if len(rows) > 0 {
		if _, err := s.putUsers.Exec(ctx, tx, rows); err != nil {
			return fmt.Errorf("users of services in %s: %w", r.RoomID, err)
		}
	}
	if len(gone) > 0 {
		if _, err := s.deleteInterest.Exec(ctx, tx, r.RoomID, sqlutil.Array(gone)); err != nil {
			return fmt.Errorf("services without users in %s: %w", r.RoomID, err)
		}
	}
	return nil
}

// InterestedAmong tells whether a service has a joined user in one of these rooms. It makes its own transaction.
func (s *Store) InterestedAmong(ctx context.Context, service string, rooms []id.RoomID) (is bool, err error) {
	err = s.DB.ReadOne(ctx, "interest in rooms", func(ctx context.Context, tx *sqlutil.Tx) error {
		var n int64
		err := s.interestedAmong.QueryRow(ctx, tx, service, sqlutil.Array(rooms)).Scan(&n)
		is = n > 0
		return err
	})
	return is, err
}

// InterestingRooms lists the rooms that users of a service are joined to. It makes its own transaction.
func (s *Store) InterestingRooms(ctx context.Context, service string) (rooms []id.RoomID, err error) {
	err = s.DB.ReadOne(ctx, "rooms of a service", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.interestingRooms.Query(ctx, tx, service)
		rooms, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (r id.RoomID, err error) {
			return r, rows.Scan(&r)
		})
		return err
	})
	return rooms, err
}
