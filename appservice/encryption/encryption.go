// Package encryption collects what a bridge that encrypts needs in its transactions (MSC3202, MSC4203), for services
// that ask for it in their registration:
//
//   - Messages to devices of all its users arrive at least once, those of one sender in their order. They wait in rows of
//     their own until a transaction has them. They wait for the /sync of their devices too (syncapi/todevice).
//   - Device lists: users who share a room with users of the service are known by name. A change of their keys, and that they
//     begin or cease to share a room, is told once, however often it happens before the next transaction. A service's own
//     users are always among them.
//   - Counts of one-time keys, and types of unused fallback keys, of its users' devices: where they have changed, and where a
//     message for the user is in the transaction.
//
// A Service is told of everything by the logs that appservice follows, in the transactions that move their offsets.
package encryption

import (
	"context"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Options are what a Service is made of.
type Options struct {
	Store         *storage.Store
	Room          *roomserver.RoomserverAPI
	Registrations *registration.Holder
	// Wake says that there is something to collect for a service. It waits for nothing.
	Wake func(service string)
	Log  *logrus.Entry
}

// Service follows and collects.
type Service struct {
	Options
	work chan struct{} // gets something when users or rooms must be looked at
}

// New makes a Service.
func New(o Options) *Service { return &Service{Options: o, work: make(chan struct{}, 1)} }

// Waiting lists the services for which there is something to collect.
func (s *Service) Waiting(ctx context.Context) ([]string, error) {
	services, err := s.Store.EncryptionWaiting(ctx)
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	return services, nil
}

// encrypting lists those of some services that take what encryption needs.
func encrypting(services []*registration.Registration) []*registration.Registration {
	var some []*registration.Registration
	for _, one := range services {
		if one.Encrypts() {
			some = append(some, one)
		}
	}
	return some
}

// wakeAfter wakes services after a transaction.
func (s *Service) wakeAfter(tx *sqlutil.Tx, services map[string]bool) {
	if len(services) == 0 {
		return
	}
	tx.AfterCommit(func() {
		for service := range services {
			s.Wake(service)
		}
	})
}
