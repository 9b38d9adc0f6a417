package keys

import (
	"context"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// lock keeps others from changing who has signed what with a user's keys, until the transaction ends.
func (s *Service) lock(ctx context.Context, tx *sqlutil.Tx, user id.UserID) error {
	if _, err := s.Store.AdvanceDeviceList(ctx, tx, user, 0); err != nil {
		return fmt.Errorf("lock the keys of %s: %w", user, err)
	}
	return nil
}

// announce tells that others must fetch keys of a user anew: of each of the devices; an empty one stands for the
// cross-signing keys.
func (s *Service) announce(ctx context.Context, tx *sqlutil.Tx, user id.UserID, deleted bool,
	devices ...id.DeviceID) error {
	if len(devices) == 0 {
		return nil
	}
	last, err := s.Store.AdvanceDeviceList(ctx, tx, user, len(devices))
	if err != nil {
		return fmt.Errorf("count the change: %w", err)
	}
	for i, device := range devices {
		n := last - int64(len(devices)-1-i)
		s.Users.Append(ctx, tx, string(user), api.TypeDeviceList, &api.OutputDeviceList{UserID: user, DeviceID: device,
			Deleted: deleted, StreamID: n, PrevID: n - 1})
	}
	return nil
}

// announceSigned tells a user's own devices that they must fetch keys anew.
func (s *Service) announceSigned(ctx context.Context, tx *sqlutil.Tx, signer id.UserID, signed []id.UserID) {
	if len(signed) == 0 {
		return
	}
	slices.Sort(signed)
	s.Users.Append(ctx, tx, string(signer), api.TypeSignedUsers, &api.OutputSignedUsers{UserID: signer,
		Signed: slices.Compact(signed)})
}

// announceCounts tells what can be claimed of a device, which has these pools.
func (s *Service) announceCounts(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID,
	pools []storage.KeyPool) {
	o := &api.OutputKeyCounts{UserID: user, DeviceID: device, OneTime: counts(pools), UnusedFallback: []string{}}
	for i := range pools {
		if p := &pools[i]; p.FallbackID != "" && !p.FallbackUsed {
			o.UnusedFallback = append(o.UnusedFallback, p.Algorithm)
		}
	}
	slices.Sort(o.UnusedFallback)
	s.Users.Append(ctx, tx, string(user), api.TypeKeyCounts, o)
}

// Made tells what can be claimed of a device of a user of an application service when the device is made or
// used anew: a service gets no sync that would say that its device has no keys yet. It runs in the transaction that makes it.
func (s *Service) Made(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	pools, err := s.Store.KeyPools(ctx, tx, map[id.UserID][]id.DeviceID{user: {device}})
	if err != nil {
		return fmt.Errorf("keys of %s: %w", device, err)
	}
	s.announceCounts(ctx, tx, user, device, pools)
	return nil
}

func counts(pools []storage.KeyPool) map[string]int {
	left := make(map[string]int, len(pools))
	for i := range pools {
		left[pools[i].Algorithm] = pools[i].Left()
	}
	return left
}
