package ephemeral

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

const (
	typingPause = 200 * time.Millisecond // what changes within it is written together
	typingRetry = time.Second
	// typingCheck is how often it is looked for services that know of somebody who does not type any more.
	typingCheck = 20 * time.Second
	maxPending  = 20_000 // rooms
	maxAtOnce   = 200    // rooms of a transaction
)

// typing is what is known of who types.
type typing struct {
	mu      sync.Mutex
	pending map[id.RoomID][]id.UserID // what is not written yet
	awake   chan struct{}

	// told are the services that know of somebody who types, by room. It is the loop's own.
	told map[id.RoomID][]string
}

func newTyping() typing {
	return typing{pending: make(map[id.RoomID][]id.UserID), awake: make(chan struct{}, 1)}
}

// note keeps who types until it is written. Beyond the bound a change is dropped: ends are found by looking for them.
func (t *typing) note(room id.RoomID, users []id.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, has := t.pending[room]; !has && len(t.pending) >= maxPending {
		return
	}
	t.pending[room] = users
	select {
	case t.awake <- struct{}{}:
	default:
	}
}

// take takes what is pending, of so many rooms at most.
func (t *typing) take(most int) map[id.RoomID][]id.UserID {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := make(map[id.RoomID][]id.UserID)
	for room, users := range t.pending {
		if len(taken) == most {
			break
		}
		taken[room] = users
		delete(t.pending, room)
	}
	return taken
}

// giveBack puts back what could not be written, but for what is superseded.
func (t *typing) giveBack(taken map[id.RoomID][]id.UserID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for room, users := range taken {
		if _, newer := t.pending[room]; !newer {
			t.pending[room] = users
		}
	}
}

// Run follows the typingserver until ctx ends. One replica of appservice runs it at a time.
func (s *Service) Run(ctx context.Context) error {
	follower := typingserver.NewFollower(typingserver.FollowerDeps{Typing: s.Typing, Transport: s.Transport, Log: s.Log,
		Changed: func(output typingserver.OutputTyping) {
			if s.Registrations.Load().WantsEphemeral() {
				s.typing.note(output.RoomID, output.Users)
			}
		}})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return follower.Run(ctx) })
	group.Go(func() error {
		s.followTyping(ctx, follower)
		return nil
	})
	return group.Wait()
}

func (s *Service) followTyping(ctx context.Context, follower *typingserver.Follower) {
	check := time.NewTicker(typingCheck)
	defer check.Stop()
	s.typing.told = nil
	for {
		wait := typingPause
		if err := s.writeTyping(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.Log.WithError(err).Warn("application services are not told of typing now")
			wait = typingRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		select {
		case <-ctx.Done():
			return
		case <-s.typing.awake:
		case <-check.C:
			for room := range s.typing.told {
				if len(follower.Users(room)) == 0 {
					s.typing.note(room, nil)
				}
			}
		}
	}
}

// writeTyping writes what is pending.
func (s *Service) writeTyping(ctx context.Context) error {
	if s.typing.told == nil {
		if err := s.loadTold(ctx); err != nil {
			return err
		}
	}
	for {
		taken := s.typing.take(maxAtOnce)
		if len(taken) == 0 {
			return nil
		}
		if err := s.tellTyping(ctx, taken); err != nil {
			s.typing.giveBack(taken)
			return err
		}
	}
}

// loadTold reads what the replica that ran before has told.
func (s *Service) loadTold(ctx context.Context) error {
	var all []storage.TypingRoom
	err := s.Store.DB.ReadOne(ctx, "typing that services know of", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		all, err = s.Store.TypingRooms(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("typing that services know of: %w", err)
	}
	s.typing.told = make(map[id.RoomID][]string)
	for _, t := range all {
		s.typing.told[t.RoomID] = append(s.typing.told[t.RoomID], t.Service)
	}
	return nil
}

// tellTyping tells who types in rooms: those who are interested, and the end to who was and is not any more.
func (s *Service) tellTyping(ctx context.Context, typing map[id.RoomID][]id.UserID) error {
	var rooms []id.RoomID
	for room := range typing {
		rooms = append(rooms, room)
	}
	interested, err := s.interested(ctx, rooms, true)
	if err != nil {
		return err
	}
	waiting := newRows(s.Now().UnixMicro())
	var begun, ended []storage.TypingRoom
	for _, room := range rooms {
		knew := s.typing.told[room]
		services := slices.Clone(knew)
		for _, r := range interested[room] {
			if !slices.Contains(services, r.ID) {
				services = append(services, r.ID)
			}
		}
		for _, service := range services {
			users := typing[room]
			isIt := func(r *registration.Registration) bool { return r.ID == service }
			if !slices.ContainsFunc(interested[room], isIt) {
				users = nil
			}
			switch knows := slices.Contains(knew, service); {
			case len(users) == 0 && !knows:
				continue
			case len(users) == 0:
				ended = append(ended, storage.TypingRoom{RoomID: room, Service: service})
			case !knows:
				begun = append(begun, storage.TypingRoom{RoomID: room, Service: service})
			}
			body, err := json.Marshal(typingContent{append([]id.UserID{}, users...)})
			if err != nil {
				return fmt.Errorf("typing: %w", err)
			}
			waiting.add(storage.Ephemeral{Service: service, Kind: kindTyping, Name: string(room), Body: body})
		}
	}
	all := waiting.all()
	if len(all) == 0 {
		return nil
	}
	err = s.Store.DB.Write(ctx, "typing for services", func(ctx context.Context, tx *sqlutil.Tx) error {
		if err := s.Store.NoteTyping(ctx, tx, begun, ended); err != nil {
			return err
		}
		return s.put(ctx, tx, all)
	})
	if err != nil {
		return err
	}
	for _, t := range begun {
		s.typing.told[t.RoomID] = append(s.typing.told[t.RoomID], t.Service)
	}
	for _, t := range ended {
		s.typing.told[t.RoomID] = slices.DeleteFunc(s.typing.told[t.RoomID],
			func(service string) bool { return service == t.Service })
		if len(s.typing.told[t.RoomID]) == 0 {
			delete(s.typing.told, t.RoomID)
		}
	}
	return nil
}
