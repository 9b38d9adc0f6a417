package encryption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	lookAgain = 5 * time.Second // for what another process has noted, or what has failed
	together  = 100             // users who are looked at, and noted, at a time
	atOnce    = 4               // of them, at once
	roomsOnce = 10
	noteOnce  = 500 // members of a room that one transaction notes
)

// present are the memberships of users whose keys others in the room must know.
var present = []string{"join", "invite"}

// RoomsChanged is told, in the transaction that applies changes of rooms, of users whose membership has changed in a room in
// which a service has users before or after that, and of rooms in which a service has users now and had none, or the other
// way round. What services must hear of it is found out later.
//
// Whether a user shares a room with a service is always found out from what is so now, and noted only if nothing has changed
// meanwhile. So neither the order of changes nor an interrupted process matters: after the last change it is looked again.
func (s *Service) RoomsChanged(
	ctx context.Context, tx *sqlutil.Tx, users []storage.ServiceUser, rooms []storage.ServiceRoom,
) error {
	set := s.Registrations.Load()
	users = slices.DeleteFunc(slices.Clone(users), func(u storage.ServiceUser) bool {
		service := set.ByID(u.Service)
		return service == nil || !service.Encrypts() || set.Owns(service, u.UserID)
	})
	rooms = slices.DeleteFunc(slices.Clone(rooms), func(r storage.ServiceRoom) bool {
		service := set.ByID(r.Service)
		return service == nil || !service.Encrypts()
	})
	if len(users)+len(rooms) == 0 {
		return nil
	}
	if err := s.Store.PutListUsers(ctx, tx, users); err != nil {
		return err
	}
	if err := s.Store.PutListRooms(ctx, tx, rooms); err != nil {
		return err
	}
	tx.AfterCommit(s.nudge)
	return nil
}

func (s *Service) nudge() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// Run finds out who shares rooms with services, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	changed := s.Registrations.Changed()
	err := s.follow(ctx)
	for {
		if err == nil {
			err = s.lookAll(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.Log.WithError(err).Warn("device lists for application services cannot be found out now")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			changed = s.Registrations.Changed()
			err = s.follow(ctx)
			continue
		case <-s.work:
		case <-again.C:
		}
		if err != nil {
			err = s.follow(ctx)
		}
	}
}

// follow begins to follow device lists for services that encrypt, and ends it for others.
func (s *Service) follow(ctx context.Context) error {
	followed, err := s.Store.ListServices(ctx)
	if err != nil {
		return err
	}
	set := s.Registrations.Load()
	for _, service := range encrypting(set.All()) {
		if slices.Contains(followed, service.ID) {
			continue
		}
		if err := s.begin(ctx, service.ID); err != nil {
			return err
		}
	}
	for _, service := range followed {
		if one := set.ByID(service); one != nil && one.Encrypts() {
			continue
		}
		err := s.Store.DB.Write(ctx, "end device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
			return s.Store.DropListService(ctx, tx, service)
		})
		if err != nil {
			return fmt.Errorf("device lists for %s: %w", service, err)
		}
	}
	return nil
}

// begin looks at all rooms in which the service has users already.
func (s *Service) begin(ctx context.Context, service string) error {
	ids, err := s.Store.InterestingRooms(ctx, service)
	if err != nil {
		return fmt.Errorf("rooms of %s: %w", service, err)
	}
	rooms := make([]storage.ServiceRoom, len(ids))
	for i, room := range ids {
		rooms[i] = storage.ServiceRoom{Service: service, RoomID: room}
	}
	err = s.Store.DB.Write(ctx, "begin device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		isNew, err := s.Store.PutListService(ctx, tx, service)
		if err != nil || !isNew {
			return err
		}
		return s.Store.PutListRooms(ctx, tx, rooms)
	})
	if err != nil {
		return fmt.Errorf("device lists for %s: %w", service, err)
	}
	return nil
}

// lookAll looks at everything that is noted.
func (s *Service) lookAll(ctx context.Context) error {
	for {
		rooms, err := s.Store.NextListRooms(ctx, roomsOnce)
		if err != nil {
			return err
		}
		for _, room := range rooms {
			if err := s.noteMembers(ctx, room); err != nil {
				return err
			}
		}
		users, err := s.Store.NextListUsers(ctx, together)
		if err != nil {
			return err
		}
		if len(rooms)+len(users) == 0 {
			return nil
		}
		if err := s.look(ctx, users); err != nil {
			return err
		}
	}
}

// noteMembers notes all members of a room. They may have left it since there was a reason to look at it: then it is looked
// again at those whom the service knows.
func (s *Service) noteMembers(ctx context.Context, room storage.ServiceRoom) error {
	all, departed, err := s.membersOf(ctx, room)
	if err != nil {
		return fmt.Errorf("members of %s: %w", room.RoomID, err)
	}
	note := func(users []id.UserID, known bool) error {
		for some := range slices.Chunk(users, noteOnce) {
			err := s.Store.DB.Write(ctx, "members for device lists", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
				some := some
				if known {
					if some, err = s.Store.KnownListUsers(ctx, tx, room.Service, some); err != nil {
						return err
					}
				}
				of := make([]storage.ServiceUser, len(some))
				for i, user := range some {
					of[i] = storage.ServiceUser{Service: room.Service, UserID: user}
				}
				return s.Store.PutListUsers(ctx, tx, of)
			})
			if err != nil {
				return fmt.Errorf("members of %s: %w", room.RoomID, err)
			}
		}
		return nil
	}
	if err := errors.Join(note(all, false), note(departed, true)); err != nil {
		return err
	}
	err = s.Store.DB.Write(ctx, "members for device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.Store.EndListRoom(ctx, tx, room)
	})
	if err != nil {
		return fmt.Errorf("members of %s: %w", room.RoomID, err)
	}
	return nil
}

// membersOf lists those in a room who are not the service's, and those who were.
func (s *Service) membersOf(ctx context.Context, room storage.ServiceRoom) (all, departed []id.UserID, err error) {
	set := s.Registrations.Load()
	service := set.ByID(room.Service)
	if service == nil {
		return nil, nil, nil
	}
	// The zero Viewer sees everything; clients get no more of it than users of theirs see.
	members, err := s.Room.QueryMembers(ctx, roomserver.QueryMembersRequest{RoomID: room.RoomID})
	if mxerr.Is(err, "M_FORBIDDEN") || mxerr.Is(err, "M_NOT_FOUND") {
		return nil, nil, nil // this server has never been in the room
	}
	for i := range members.Events {
		event := members.Events[i].PDU
		key, _ := event.StateKey()
		user := id.UserID(key)
		switch {
		case set.Owns(service, user):
		case slices.Contains(present, event.Membership()):
			all = append(all, user)
		default:
			departed = append(departed, user)
		}
	}
	return all, departed, err
}

// look finds out whether users share rooms with services, and notes what is news. Users of whom it cannot be found out stay.
func (s *Service) look(ctx context.Context, users []storage.ServiceUser) error {
	found := make([]storage.Found, len(users))
	errs := make([]error, len(users))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for first := 0; first < len(users); {
		next := first + 1
		for next < len(users) && users[next].UserID == users[first].UserID {
			next++
		}
		from, to := first, next
		group.Go(func() error {
			s.lookAt(ctx, users[from:to], found[from:to], errs[from:to])
			return nil
		})
		first = next
	}
	_ = group.Wait() // none returns an error
	var right []storage.Found
	wake := make(map[string]bool)
	for i := range found {
		if errs[i] == nil {
			right = append(right, found[i])
			wake[found[i].Service] = true
		}
	}
	err := s.Store.DB.Write(ctx, "device lists", func(ctx context.Context, tx *sqlutil.Tx) error {
		s.wakeAfter(tx, wake)
		return s.Store.SettleListUsers(ctx, tx, right)
	})
	return errors.Join(append(errs, err)...)
}

// lookAt finds out whether one user shares rooms with some services.
func (s *Service) lookAt(ctx context.Context, of []storage.ServiceUser, found []storage.Found, errs []error) {
	user := of[0].UserID
	in, err := s.Room.QueryMemberships(ctx, roomserver.QueryMembershipsRequest{UserID: user, Memberships: present})
	rooms := make([]id.RoomID, len(in.Rooms))
	for i := range in.Rooms {
		rooms[i] = in.Rooms[i].RoomID
	}
	set := s.Registrations.Load()
	for i, one := range of {
		found[i].ServiceUser = one
		if err != nil {
			errs[i] = fmt.Errorf("rooms of %s: %w", user, err)
			continue
		}
		if service := set.ByID(one.Service); service == nil || set.Owns(service, user) || len(rooms) == 0 {
			continue
		}
		if found[i].Shares, errs[i] = s.Store.InterestedAmong(ctx, one.Service, rooms); errs[i] != nil {
			errs[i] = fmt.Errorf("rooms that %s shares with %s: %w", user, one.Service, errs[i])
		}
	}
}
