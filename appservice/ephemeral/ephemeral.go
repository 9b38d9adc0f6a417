// Package ephemeral sends typing, receipts and presence to the application services that want them (Application
// Service API, § Pushing ephemeral data). Of each thing that changes only the newest waits: one row for each room in
// which users type, each receipt and each user's presence. Only of a service that is away for long something is
// dropped: what has waited longest.
package ephemeral

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	typingserver "github.com/matrix-org/dendrite/typingserver/api"
)

// Bounds of what waits, and of what a transaction takes of it.
const (
	maxWaiting = 5000 // rows of a service
	maxRows    = 100
	maxBytes   = 64 << 10
)

// The kinds of rows. The name of a row is the room, the user, or what tells receipts apart.
const (
	kindTyping   = "typing"
	kindReceipt  = "receipt"
	kindPresence = "presence"
)

// Options of a Service.
type Options struct {
	Store         *storage.Store
	Registrations *registration.Holder
	Room          *roomserver.RoomserverAPI
	Typing        *typingserver.TypingserverAPI
	Transport     eventlog.Transport
	// Registered is since when a service is, in ms since the epoch. What was before is not for it.
	Registered func(service string) int64
	// Queued says that something waits for services. It waits for nothing.
	Queued func(services []string)
	Log    *logrus.Entry
	Now    func() time.Time
}

// Service finds out who wants what, and keeps it until it is sent.
type Service struct {
	Options
	typing typing
}

// New makes a Service.
func New(o Options) *Service {
	return &Service{Options: o, typing: newTyping()}
}

// interested are the services that want what is ephemeral and are interested in rooms: by their users in them, by the
// rooms' ids and, if asked for, by their aliases.
func (s *Service) interested(
	ctx context.Context, rooms []id.RoomID, byAlias bool,
) (map[id.RoomID][]*registration.Registration, error) {
	set := s.Registrations.Load()
	if !set.WantsEphemeral() || len(rooms) == 0 {
		return nil, nil
	}
	var known map[id.RoomID]*storage.Room
	err := s.Store.DB.Read(ctx, "interest in rooms", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		known, err = s.Store.Rooms(ctx, tx, rooms)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("interest in rooms: %w", err)
	}
	byAlias = byAlias && slices.ContainsFunc(set.All(), func(r *registration.Registration) bool {
		return r.WantsEphemeral() && len(r.Aliases) > 0
	})
	all := make(map[id.RoomID][]*registration.Registration)
	for _, room := range rooms {
		add := func(services ...*registration.Registration) {
			for _, service := range services {
				if service != nil && service.WantsEphemeral() && !slices.Contains(all[room], service) {
					all[room] = append(all[room], service)
				}
			}
		}
		add(set.Rooms(room)...)
		if k := known[room]; k != nil {
			for service := range k.Users {
				add(set.ByID(service))
			}
		}
		if !byAlias {
			continue
		}
		found, err := s.Room.QueryRoomAliases(ctx, roomserver.QueryRoomAliasesRequest{RoomID: room})
		if err != nil && !mxerr.Is(err, "M_FORBIDDEN") {
			return nil, fmt.Errorf("aliases of %s: %w", room, err)
		}
		for _, alias := range found.Aliases {
			add(set.Aliases(alias)...)
		}
	}
	return all, nil
}

// put writes rows, and says that they wait.
func (s *Service) put(ctx context.Context, tx *sqlutil.Tx, rows []storage.Ephemeral) error {
	if err := s.Store.PutEphemeral(ctx, tx, rows, maxWaiting); err != nil {
		return err
	}
	var services []string
	for i := range rows {
		if !slices.Contains(services, rows[i].Service) {
			services = append(services, rows[i].Service)
		}
	}
	if len(services) > 0 {
		tx.AfterCommit(func() { s.Queued(services) })
	}
	return nil
}
