package keys

import (
	"context"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Devices lists the devices of users, dehydrated ones included. Users without any are left out.
func (s *Service) Devices(ctx context.Context, users []id.UserID) (map[id.UserID][]id.DeviceID, error) {
	devices := make(map[id.UserID][]id.DeviceID)
	err := s.db().ReadOne(ctx, "devices of users", func(ctx context.Context, tx *sqlutil.Tx) error {
		clear(devices)
		all, err := s.Store.DeviceIDs(ctx, tx, users)
		for i := range all {
			devices[all[i].UserID] = append(devices[all[i].UserID], all[i].DeviceID)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return devices, nil
}

// CheckDeviceID fails with M_FORBIDDEN for a device whose id would be that of a cross-signing key of its user: both
// sign as ed25519:ID (§ Cross-signing). It runs in the transaction that makes the device.
func (s *Service) CheckDeviceID(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	if !IsPublicKey(string(device)) {
		return nil
	}
	if err := s.lock(ctx, tx, user); err != nil {
		return err
	}
	cross, err := s.Store.CrossSigningKeys(ctx, tx, []id.UserID{user})
	if err != nil {
		return fmt.Errorf("read cross-signing keys: %w", err)
	}
	for i := range cross {
		if cross[i].PublicKey == string(device) {
			return mxerr.Forbidden("%s is the id of a cross-signing key: choose another device_id", device)
		}
	}
	return nil
}

// Renamed tells of a device's new name, if it has keys. It runs in the transaction that gives the name.
func (s *Service) Renamed(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	keys, err := s.Store.DeviceKeys(ctx, tx, user, device)
	if err != nil || keys == nil {
		return err
	}
	return s.announce(ctx, tx, user, false, device)
}

// RemoveDevices removes all keys of devices and what they have signed, and tells of those that had identity keys.
// It runs in the transaction that ends the devices, after they were removed.
func (s *Service) RemoveDevices(ctx context.Context, tx *sqlutil.Tx, user id.UserID, devices ...id.DeviceID) error {
	if len(devices) == 0 {
		return nil
	}
	ended, err := s.Store.DeleteDeviceKeys(ctx, tx, user, devices)
	if err != nil {
		return fmt.Errorf("delete identity keys: %w", err)
	}
	pools, err := s.Store.LockKeyPools(ctx, tx, map[id.UserID][]id.DeviceID{user: devices})
	if err != nil {
		return fmt.Errorf("lock one-time keys: %w", err)
	}
	nids := make([]int64, len(pools))
	for i := range pools {
		nids[i] = pools[i].NID
	}
	if len(nids) > 0 {
		if err := s.Store.DeleteKeyPools(ctx, tx, nids); err != nil {
			return fmt.Errorf("delete one-time keys: %w", err)
		}
	}
	if len(ended) == 0 {
		return nil
	}
	if err := s.announce(ctx, tx, user, true, ended...); err != nil { // locks, so that no signature is added any more
		return err
	}
	names := make([]string, len(ended))
	for i, d := range ended {
		names[i] = string(d)
	}
	_, err = s.dropSignatures(ctx, tx, user, names, names)
	return err
}

// dropSignatures removes signatures on keys of a user, and by keys of this user. It returns those others whose keys
// were signed.
func (s *Service) dropSignatures(ctx context.Context, tx *sqlutil.Tx, user id.UserID,
	on, by []string) ([]id.UserID, error) {
	if len(on) > 0 {
		if err := s.Store.DeleteSignaturesOn(ctx, tx, user, on); err != nil {
			return nil, fmt.Errorf("delete signatures on keys: %w", err)
		}
	}
	if len(by) == 0 {
		return nil, nil
	}
	signed, err := s.Store.DeleteSignaturesBy(ctx, tx, user, by)
	if err != nil {
		return nil, fmt.Errorf("delete signatures by keys: %w", err)
	}
	return slices.DeleteFunc(signed, func(u id.UserID) bool { return u == user }), nil
}

// RemoveUser removes all keys of a user whose account ends. The devices' are removed before.
func (s *Service) RemoveUser(ctx context.Context, tx *sqlutil.Tx, user id.UserID) error {
	cross, err := s.Store.CrossSigningKeys(ctx, tx, []id.UserID{user})
	if err != nil || len(cross) == 0 {
		return err
	}
	if err := s.announce(ctx, tx, user, false, ""); err != nil { // locks, so that there are no others
		return err
	}
	if cross, err = s.Store.CrossSigningKeys(ctx, tx, []id.UserID{user}); err != nil {
		return err
	}
	names := make([]string, len(cross))
	usages := make([]string, len(cross))
	for i := range cross {
		names[i], usages[i] = cross[i].PublicKey, cross[i].Usage
	}
	if err := s.Store.DeleteCrossSigningKeys(ctx, tx, user, usages); err != nil {
		return fmt.Errorf("delete cross-signing keys: %w", err)
	}
	_, err = s.dropSignatures(ctx, tx, user, names, names)
	return err
}
