package storage

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// ServiceUser is a user of whom something must be found out for a service.
type ServiceUser struct {
	Service string
	UserID  id.UserID
	// Version is another with each reason to look. It is given when the row is written.
	Version int64
}

// ServiceRoom is a room whose members are all such users.
type ServiceRoom struct {
	Service string
	RoomID  id.RoomID
	Version int64 // as that of a ServiceUser
}

type listUserStatements struct {
	insertListUsers                  *sqlutil.Insert
	selectListUsers, deleteListUsers *sqlutil.Stmt
	knownListUsers                   *sqlutil.Stmt
}

func prepareListUsers(db *sqlutil.DB) listUserStatements {
	return listUserStatements{
		insertListUsers: db.Insert("appservice_list_users", []string{"service", "user_id", "version"},
			`ON CONFLICT (user_id, service) DO UPDATE SET version = excluded.version`),
		selectListUsers: db.Stmt(`SELECT service, user_id, version FROM appservice_list_users
			ORDER BY user_id, service LIMIT $1`),
		knownListUsers: db.Stmt(`SELECT user_id FROM appservice_list_shared WHERE service = $1 AND user_id = ANY($2)
			UNION SELECT user_id FROM appservice_list_users WHERE service = $1 AND user_id = ANY($2)`),
		deleteListUsers: db.Stmt(`DELETE FROM appservice_list_users
			WHERE user_id = ANY($1) AND version = ANY($2) RETURNING version`),
	}
}

// PutListUsers notes that it must be found out whether users share rooms with services.
func (s *Store) PutListUsers(ctx context.Context, tx *sqlutil.Tx, users []ServiceUser) error {
	// Whoever locks several rows does so in one order.
	users = slices.Clone(users)
	slices.SortFunc(users, func(a, b ServiceUser) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Service, b.Service))
	})
	users = slices.CompactFunc(users, func(a, b ServiceUser) bool {
		return a.UserID == b.UserID && a.Service == b.Service
	})
	rows := make([][]any, len(users))
	for i, u := range users {
		rows[i] = []any{u.Service, u.UserID, newVersion()}
	}
	if _, err := s.insertListUsers.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("users of device lists: %w", err)
	}
	return nil
}

// KnownListUsers returns those of some users who share a room with a service, as it knows, or of whom it is being found out.
func (s *Store) KnownListUsers(ctx context.Context, tx *sqlutil.Tx, service string, users []id.UserID) ([]id.UserID, error) {
	rows, err := s.knownListUsers.Query(ctx, tx, service, sqlutil.Array(users))
	known, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (user id.UserID, err error) { return user, rows.Scan(&user) })
	if err != nil {
		return nil, fmt.Errorf("users of device lists: %w", err)
	}
	return known, nil
}

// NextListUsers returns some of these users, all services of one together if there is room. It makes its own transaction.
func (s *Store) NextListUsers(ctx context.Context, most int) (users []ServiceUser, err error) {
	err = s.DB.ReadOne(ctx, "users of device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectListUsers.Query(ctx, tx, most)
		users, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (ServiceUser, error) {
			var u ServiceUser
			err := rows.Scan(&u.Service, &u.UserID, &u.Version)
			return u, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("users of device lists: %w", err)
	}
	return users, nil
}

// Found is what was found out of a user.
type Found struct {
	ServiceUser
	Shares bool // a room with users of the service
}

// SettleListUsers notes what was found out, and what services must hear of it: users who newly share a room, and who share
// none any more. What was found out of a user for whom there is a new reason to look, or is none, is left out.
func (s *Store) SettleListUsers(ctx context.Context, tx *sqlutil.Tx, found []Found) error {
	users, versions := make([]id.UserID, len(found)), make([]int64, len(found))
	for i := range found {
		users[i], versions[i] = found[i].UserID, found[i].Version
	}
	rows, err := s.deleteListUsers.Query(ctx, tx, sqlutil.Array(users), sqlutil.Array(versions))
	right, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (version int64, err error) {
		return version, rows.Scan(&version)
	})
	if err != nil {
		return fmt.Errorf("users of device lists: %w", err)
	}
	var changes []ListChange
	for i := range found {
		f := &found[i]
		if !slices.Contains(right, f.Version) {
			continue
		}
		isNews, err := s.setShared(ctx, tx, f)
		if err != nil {
			return fmt.Errorf("users who share rooms: %w", err)
		}
		if isNews {
			changes = append(changes, ListChange{Service: f.Service, UserID: f.UserID, HasLeft: !f.Shares})
		}
	}
	return s.PutListChanges(ctx, tx, changes)
}

type sharedUserStatements struct{ insertShared, deleteShared *sqlutil.Stmt }

func prepareSharedUsers(db *sqlutil.DB) sharedUserStatements {
	return sharedUserStatements{
		insertShared: db.Stmt(`INSERT INTO appservice_list_shared (service, user_id) VALUES ($1, $2)
			ON CONFLICT (user_id, service) DO NOTHING`),
		deleteShared: db.Stmt(`DELETE FROM appservice_list_shared WHERE service = $1 AND user_id = $2`),
	}
}

// setShared returns false where it was known.
func (s *Store) setShared(ctx context.Context, tx *sqlutil.Tx, f *Found) (bool, error) {
	set := s.deleteShared
	if f.Shares {
		set = s.insertShared
	}
	n, err := set.Exec(ctx, tx, f.Service, f.UserID)
	return n == 1, err
}

type listRoomStatements struct {
	insertListRooms                 *sqlutil.Insert
	selectListRooms, deleteListRoom *sqlutil.Stmt
}

func prepareListRooms(db *sqlutil.DB) listRoomStatements {
	return listRoomStatements{
		insertListRooms: db.Insert("appservice_list_rooms", []string{"service", "room_id", "version"},
			`ON CONFLICT (service, room_id) DO UPDATE SET version = excluded.version`),
		selectListRooms: db.Stmt(`SELECT service, room_id, version FROM appservice_list_rooms LIMIT $1`),
		deleteListRoom:  db.Stmt(`DELETE FROM appservice_list_rooms WHERE service = $1 AND room_id = $2 AND version = $3`),
	}
}

// PutListRooms notes that it must be found out of all members of rooms whether they share rooms with services.
func (s *Store) PutListRooms(ctx context.Context, tx *sqlutil.Tx, rooms []ServiceRoom) error {
	rooms = slices.Clone(rooms)
	slices.SortFunc(rooms, func(a, b ServiceRoom) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.RoomID, b.RoomID))
	})
	rooms = slices.CompactFunc(rooms, func(a, b ServiceRoom) bool { return a.Service == b.Service && a.RoomID == b.RoomID })
	rows := make([][]any, len(rooms))
	for i, r := range rooms {
		rows[i] = []any{r.Service, r.RoomID, newVersion()}
	}
	if _, err := s.insertListRooms.Exec(ctx, tx, rows); err != nil {
		return fmt.Errorf("rooms of device lists: %w", err)
	}
	return nil
}

// NextListRooms returns some of these rooms. It makes its own transaction.
func (s *Store) NextListRooms(ctx context.Context, most int) (rooms []ServiceRoom, err error) {
	err = s.DB.ReadOne(ctx, "rooms of device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.selectListRooms.Query(ctx, tx, most)
		rooms, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (ServiceRoom, error) {
			var r ServiceRoom
			err := rows.Scan(&r.Service, &r.RoomID, &r.Version)
			return r, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rooms of device lists: %w", err)
	}
	return rooms, nil
}

// EndListRoom notes that all members of a room are noted. A room for which there is a new reason stays.
func (s *Store) EndListRoom(ctx context.Context, tx *sqlutil.Tx, room ServiceRoom) error {
	_, err := s.deleteListRoom.Exec(ctx, tx, room.Service, room.RoomID, room.Version)
	return err
}
