package encryption

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/appservice/storage"
	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// olmKeys is the algorithm of one-time keys. Their count is always said: a client that is told none may upload none.
const olmKeys = "signed_curve25519"

// device says whose counts are meant, and for whom.
type device struct {
	service string
	user    id.UserID
	id      id.DeviceID
}

// keyChanges are what records of clientapi's log say of keys.
type keyChanges struct {
	services *registration.Set
	changed  []id.UserID // whose keys others must fetch anew
	own      map[storage.ServiceUser]bool
	gone     []*clientapi.OutputDevice
	counts   map[device]*clientapi.OutputKeyCounts // the last of each device that is not gone since
}

// TakeUser takes changes of keys from clientapi's log. It is a consumers.Taker.
func (s *Service) TakeUser(_ context.Context, records []eventlog.Record) (eventlog.Apply, error) {
	k := &keyChanges{services: s.Registrations.Load(), own: make(map[storage.ServiceUser]bool),
		counts: make(map[device]*clientapi.OutputKeyCounts)}
	if len(encrypting(k.services.All())) == 0 {
		return nil, nil
	}
	for i := range records {
		if err := k.take(&records[i]); err != nil {
			return nil, err
		}
	}
	if len(k.changed)+len(k.own)+len(k.gone)+len(k.counts) == 0 {
		return nil, nil
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error { return s.putKeys(ctx, tx, k) }, nil
}

func (k *keyChanges) take(r *eventlog.Record) error {
	switch r.Type {
	case clientapi.TypeDeviceList:
		list, err := eventlog.Decode[clientapi.OutputDeviceList](r)
		if err != nil {
			return err
		}
		k.changed = append(k.changed, list.UserID)
		k.tellOwner(list.UserID, list.UserID)
	case clientapi.TypeSignedUsers:
		signed, err := eventlog.Decode[clientapi.OutputSignedUsers](r)
		if err != nil {
			return err
		}
		k.tellOwner(signed.UserID, signed.Signed...) // only the signer sees it
	case clientapi.TypeDeviceDeleted:
		gone, err := eventlog.Decode[clientapi.OutputDevice](r)
		if err != nil {
			return err
		}
		k.gone = append(k.gone, gone)
		// What is said after that is of another device with its name.
		maps.DeleteFunc(k.counts, func(d device, _ *clientapi.OutputKeyCounts) bool {
			return d.user == gone.UserID && (gone.DeviceID == "" || d.id == gone.DeviceID)
		})
	case clientapi.TypeKeyCounts:
		counts, err := eventlog.Decode[clientapi.OutputKeyCounts](r)
		if err != nil {
			return err
		}
		for _, service := range encrypting(k.services.Users(counts.UserID)) {
			k.counts[device{service.ID, counts.UserID, counts.DeviceID}] = counts
		}
	}
	return nil
}

// tellOwner says that the services of a user must fetch keys of others, or of the user.
func (k *keyChanges) tellOwner(user id.UserID, changed ...id.UserID) {
	for _, service := range encrypting(k.services.Users(user)) {
		for _, one := range changed {
			k.own[storage.ServiceUser{Service: service.ID, UserID: one}] = true
		}
	}
}

func (s *Service) putKeys(ctx context.Context, tx *sqlutil.Tx, k *keyChanges) error {
	wake := make(map[string]bool)
	for _, gone := range k.gone {
		if err := s.Store.DropKeyCounts(ctx, tx, gone.UserID, gone.DeviceID); err != nil {
			return fmt.Errorf("counts of keys: %w", err)
		}
	}
	counts := make([]storage.KeyCounts, 0, len(k.counts))
	for d, output := range k.counts {
		row, err := countsRow(d, output)
		if err != nil {
			return err
		}
		counts, wake[d.service] = append(counts, *row), true
	}
	if err := s.Store.PutKeyCounts(ctx, tx, counts); err != nil {
		return err
	}
	if len(k.changed) > 0 {
		told, err := s.Store.PutSharedChanges(ctx, tx, k.changed)
		if err != nil {
			return err
		}
		if told > 0 {
			for _, service := range encrypting(k.services.All()) {
				wake[service.ID] = true
			}
		}
	}
	changes := make([]storage.ListChange, 0, len(k.own))
	for of := range k.own {
		changes, wake[of.Service] = append(changes, storage.ListChange{Service: of.Service, UserID: of.UserID}), true
	}
	s.wakeAfter(tx, wake)
	return s.Store.PutListChanges(ctx, tx, changes)
}

func countsRow(d device, output *clientapi.OutputKeyCounts) (*storage.KeyCounts, error) {
	counts := map[string]int{olmKeys: 0}
	maps.Copy(counts, output.OneTime)
	oneTime, err := json.Marshal(counts)
	if err != nil {
		return nil, eventlog.Permanent(fmt.Errorf("counts of keys: %w", err))
	}
	unused := append([]string{}, output.UnusedFallback...)
	slices.Sort(unused)
	fallback, err := json.Marshal(unused)
	if err != nil {
		return nil, eventlog.Permanent(fmt.Errorf("unused fallback keys: %w", err))
	}
	return &storage.KeyCounts{Service: d.service, UserID: d.user, DeviceID: d.id, OneTime: oneTime, Fallback: fallback}, nil
}
