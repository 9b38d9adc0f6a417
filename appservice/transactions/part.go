// Package transactions cuts what waits for application services into transactions and sends them, each until it is
// taken (Application Service API, § Pushing events).
package transactions

import (
	"context"
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Part is what rides in a transaction besides events. Each member is sent under its stable and its unstable name; an
// empty one is left out.
type Part struct {
	// Ephemeral are m.typing, m.receipt and m.presence, with their room_id (MSC2409).
	Ephemeral []json.RawMessage
	// ToDevice have to_user_id and to_device_id (MSC4203).
	ToDevice []json.RawMessage
	// Changed and Left are device_lists (MSC3202).
	Changed, Left []id.UserID
	// OneTimeKeyCounts and UnusedFallbackKeyTypes are those of devices that the transaction has to do with (MSC3202).
	OneTimeKeyCounts       map[id.UserID]map[id.DeviceID]map[string]int
	UnusedFallbackKeyTypes map[id.UserID]map[id.DeviceID][]string
	// Taken removes from its queues what is in this part, in the transaction that stores the service's. Nil: nothing to do. Of
	// a part that is empty it removes what the service does not want any more.
	Taken func(ctx context.Context, tx *sqlutil.Tx) error
}

// Empty tells whether there is nothing to send. A change of counts of keys is worth a transaction of its own: a
// client whose keys are claimed must hear of it to make new ones.
func (p *Part) Empty() bool {
	return len(p.Ephemeral)+len(p.ToDevice)+len(p.Changed)+len(p.Left)+
		len(p.OneTimeKeyCounts)+len(p.UnusedFallbackKeyTypes) == 0
}

// Companions finds what rides with the events of a service.
type Companions interface {
	// Collect returns the next part of a service. users are those of the service whom the transaction's events are
	// about: the counts of their keys are sent too. It has at most some hundred entries, and no more than some 128 KiB,
	// each of which is sent under two names.
	Collect(ctx context.Context, service *registration.Registration, users []id.UserID) (Part, error)
	// Waiting lists the services that have something to collect.
	Waiting(ctx context.Context) ([]string, error)
}
