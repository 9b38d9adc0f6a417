package encryption

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/appservice/transactions"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Bounds of what one transaction has.
const (
	maxMessages     = 100
	maxMessageBytes = 128 << 10 // with the message that goes beyond
	maxChanges      = 300       // users in device lists
	maxCounts       = 200       // devices whose counts have changed, and as many others
)

// parcel is what there is for a service, as one snapshot of the tables has it.
type parcel struct {
	mail    *mail
	changes []storage.ListChange
	untold  []storage.KeyCounts
	others  []storage.KeyCounts // of users whom the transaction is about
}

// Collect returns the next part of a service (see transactions.Companions).
func (s *Service) Collect(
	ctx context.Context, service *registration.Registration, users []id.UserID,
) (part transactions.Part, err error) {
	if !service.Encrypts() {
		return s.discard(ctx, service.ID)
	}
	var p *parcel
	err = s.Store.DB.Read(ctx, "encryption for a service", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		p, err = s.read(ctx, tx, service.ID, users)
		return err
	})
	if err != nil {
		return part, fmt.Errorf("encryption for %s: %w", service.ID, err)
	}
	part.ToDevice = p.mail.messages
	for i := range p.changes {
		if c := &p.changes[i]; c.HasLeft {
			part.Left = append(part.Left, c.UserID)
		} else {
			part.Changed = append(part.Changed, c.UserID)
		}
	}
	if err := addCounts(&part, slices.Concat(p.others, p.untold)); err != nil {
		return part, fmt.Errorf("encryption for %s: %w", service.ID, err)
	}
	if !part.Empty() {
		part.Taken = func(ctx context.Context, tx *sqlutil.Tx) error { return s.take(ctx, tx, service.ID, p) }
	}
	return part, nil
}

// discard removes the messages that wait for a service that does not want them any more. Device lists and counts are
// dropped where it is followed which services encrypt.
func (s *Service) discard(ctx context.Context, service string) (part transactions.Part, err error) {
	var some []storage.ToDevice
	err = s.Store.DB.ReadOne(ctx, "messages that nobody wants", func(ctx context.Context, tx *sqlutil.Tx) error {
		some, err = s.Store.ToDevice(ctx, tx, service, 1, 1)
		return err
	})
	if err != nil {
		return part, fmt.Errorf("encryption for %s: %w", service, err)
	}
	if len(some) > 0 {
		part.Taken = func(ctx context.Context, tx *sqlutil.Tx) error { return s.Store.DropToDevice(ctx, tx, service) }
	}
	return part, nil
}

func (s *Service) read(ctx context.Context, tx *sqlutil.Tx, service string, users []id.UserID) (*parcel, error) {
	rows, err := s.Store.ToDevice(ctx, tx, service, maxMessages, maxMessageBytes)
	if err != nil {
		return nil, err
	}
	p := new(parcel)
	if p.mail, err = open(rows, maxMessages, maxMessageBytes); err != nil {
		return nil, err
	}
	if p.changes, err = s.Store.ListChanges(ctx, tx, service, maxChanges); err != nil {
		return nil, err
	}
	if p.untold, err = s.Store.UntoldKeyCounts(ctx, tx, service, maxCounts); err != nil {
		return nil, err
	}
	if about := slices.Concat(p.mail.to, users); len(about) > 0 {
		slices.Sort(about)
		if p.others, err = s.Store.KeyCountsOf(ctx, tx, service, slices.Compact(about), maxCounts); err != nil {
			return nil, err
		}
	}
	if len(p.changes) > 0 {
		// Bridges of matrix-bot-sdk give device lists to none of their devices but those whose counts are there too.
		some, err := s.Store.SomeKeyCounts(ctx, tx, service, maxCounts)
		if err != nil {
			return nil, err
		}
		p.others = append(p.others, some...)
	}
	return p, nil
}

// take removes what is in a transaction from what waits.
func (s *Service) take(ctx context.Context, tx *sqlutil.Tx, service string, p *parcel) error {
	if err := s.Store.TakeToDevice(ctx, tx, service, p.mail.whole, p.mail.part); err != nil {
		return err
	}
	if err := s.Store.TakeListChanges(ctx, tx, service, p.changes); err != nil {
		return err
	}
	return s.Store.ToldKeyCounts(ctx, tx, service, slices.Concat(p.untold, p.others))
}

func addCounts(part *transactions.Part, all []storage.KeyCounts) error {
	if len(all) == 0 {
		return nil
	}
	part.OneTimeKeyCounts = make(map[id.UserID]map[id.DeviceID]map[string]int)
	part.UnusedFallbackKeyTypes = make(map[id.UserID]map[id.DeviceID][]string)
	for i := range all {
		k := &all[i]
		var oneTime map[string]int
		var fallback []string
		if err := json.Unmarshal(k.OneTime, &oneTime); err != nil {
			return fmt.Errorf("counts of keys of %s %s: %w", k.UserID, k.DeviceID, err)
		}
		if err := json.Unmarshal(k.Fallback, &fallback); err != nil {
			return fmt.Errorf("unused fallback keys of %s %s: %w", k.UserID, k.DeviceID, err)
		}
		if part.OneTimeKeyCounts[k.UserID] == nil {
			part.OneTimeKeyCounts[k.UserID] = make(map[id.DeviceID]map[string]int)
			part.UnusedFallbackKeyTypes[k.UserID] = make(map[id.DeviceID][]string)
		}
		part.OneTimeKeyCounts[k.UserID][k.DeviceID] = oneTime
		part.UnusedFallbackKeyTypes[k.UserID][k.DeviceID] = fallback
	}
	return nil
}
