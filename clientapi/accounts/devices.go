package accounts

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Devices lists the devices of a user, oldest first.
func (s *Service) Devices(ctx context.Context, user id.UserID) ([]storage.Device, error) {
	var devices []storage.Device
	err := s.Store.DB.ReadOne(ctx, "devices", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		devices, err = s.Store.Devices(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("devices of %s: %w", user, err)
	}
	return devices, nil
}

// Device returns one device of a user. M_NOT_FOUND if there is none.
func (s *Service) Device(ctx context.Context, user id.UserID, device id.DeviceID) (*storage.Device, error) {
	var d *storage.Device
	err := s.Store.DB.ReadOne(ctx, "device", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		d, err = s.Store.Device(ctx, tx, user, device)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("device %s of %s: %w", device, user, err)
	}
	if d == nil {
		return nil, noDevice(device)
	}
	return d, nil
}

func noDevice(device id.DeviceID) error { return mxerr.NotFound("you have no device %s", device) }

// RenameDevice sets the display name of a device. M_NOT_FOUND if there is none.
func (s *Service) RenameDevice(ctx context.Context, user id.UserID, device id.DeviceID, name string) error {
	if err := CheckDisplayName(name); err != nil {
		return err
	}
	exists := false
	err := s.Store.DB.Write(ctx, "rename device", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		exists, err = s.rename(ctx, tx, user, device, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("rename device %s of %s: %w", device, user, err)
	}
	if !exists {
		return noDevice(device)
	}
	return nil
}

// rename tells whether there is such a device. It has the name then.
func (s *Service) rename(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID, name string) (bool, error) {
	renamed, err := s.Store.RenameDevice(ctx, tx, user, device, name)
	if err != nil {
		return false, err
	}
	if renamed {
		return true, s.Keys.Renamed(ctx, tx, user, device)
	}
	same, err := s.Store.Device(ctx, tx, user, device)
	return same != nil, err
}

// PutDevice sets the display name of a device, or makes one that has no tokens, as application services may. nil leaves the
// name as it is. It returns whether it made one.
func (s *Service) PutDevice(ctx context.Context, user id.UserID, device id.DeviceID, name *string) (bool, error) {
	request := &DeviceRequest{ID: device}
	if name != nil {
		request.DisplayName = *name
	}
	d, err := s.device(request, &Session{UserID: user})
	if err != nil {
		return false, err
	}
	exists := false
	err = s.Store.DB.Write(ctx, "put device", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if err := tokens.StillActive(ctx, tx, s.Store, user); err != nil {
			return err
		}
		if name != nil {
			exists, err = s.rename(ctx, tx, user, device, *name)
		} else {
			var same *storage.Device
			same, err = s.Store.Device(ctx, tx, user, device)
			exists = same != nil
		}
		switch {
		case err != nil:
			return err
		case exists:
			return s.tellService(ctx, tx, user, device)
		}
		return s.addDevice(ctx, tx, d)
	})
	if err != nil {
		return false, fmt.Errorf("put device %s of %s: %w", device, user, err)
	}
	return !exists, nil
}

// RemoveDevices removes devices of a user with their tokens. Those that are gone already count as removed.
func (s *Service) RemoveDevices(ctx context.Context, user id.UserID, devices ...id.DeviceID) error {
	err := s.Store.DB.Write(ctx, "remove devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.remove(ctx, tx, user, devices)
	})
	if err != nil {
		return fmt.Errorf("remove devices of %s: %w", user, err)
	}
	return nil
}

// RemoveIn is RemoveDevices in a transaction of the caller.
func (s *Service) RemoveIn(ctx context.Context, tx *sqlutil.Tx, user id.UserID, devices ...id.DeviceID) error {
	return s.remove(ctx, tx, user, devices)
}

func (s *Service) remove(ctx context.Context, tx *sqlutil.Tx, user id.UserID, devices []id.DeviceID) error {
	removed, err := s.Store.DeleteDevices(ctx, tx, user, devices)
	if err != nil {
		return fmt.Errorf("delete the devices: %w", err)
	}
	if _, err := s.Store.DeleteTokens(ctx, tx, user, devices...); err != nil {
		return fmt.Errorf("delete their tokens: %w", err)
	}
	if err := s.Keys.RemoveDevices(ctx, tx, user, removed...); err != nil {
		return fmt.Errorf("remove their keys: %w", err)
	}
	for _, device := range removed {
		s.tell(ctx, tx, api.TypeTokens, user, device)
		s.tell(ctx, tx, api.TypeDeviceDeleted, user, device)
	}
	return nil
}

// MaxDevices is how many devices a user has. Beyond, a login ends those that were not seen for the longest time: to
// refuse it would lock out who uses a script that never logs out, and could not tell why.
const MaxDevices = 1000

// addDevice adds a device, or notes that it was seen.
func (s *Service) addDevice(ctx context.Context, tx *sqlutil.Tx, d storage.Device) error {
	if err := s.Keys.CheckDeviceID(ctx, tx, d.UserID, d.DeviceID); err != nil {
		return err
	}
	if err := s.insertDevice(ctx, tx, d); err != nil {
		return err
	}
	surplus, err := s.Store.SurplusDevices(ctx, tx, d.UserID, d.DeviceID, MaxDevices)
	if err != nil {
		return fmt.Errorf("look for devices beyond %d: %w", MaxDevices, err)
	}
	if len(surplus) == 0 {
		return nil
	}
	return s.remove(ctx, tx, d.UserID, surplus)
}

// insertDevice adds a device, or notes that it was seen.
func (s *Service) insertDevice(ctx context.Context, tx *sqlutil.Tx, d storage.Device) error {
	if err := s.Store.PutDevice(ctx, tx, d); err != nil {
		return fmt.Errorf("insert the device: %w", err)
	}
	return s.tellService(ctx, tx, d.UserID, d.DeviceID)
}

// tellService tells an application service what keys a device of its user has: bridges upload keys when they hear of it.
func (s *Service) tellService(ctx context.Context, tx *sqlutil.Tx, user id.UserID, device id.DeviceID) error {
	if len(s.Registrations.Load().Users(user)) == 0 {
		return nil
	}
	return s.Keys.Made(ctx, tx, user, device)
}

// RemoveAllDevices logs a user out everywhere.
func (s *Service) RemoveAllDevices(ctx context.Context, user id.UserID) error {
	err := s.Store.DB.Write(ctx, "remove all devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		return s.removeAll(ctx, tx, user)
	})
	if err != nil {
		return fmt.Errorf("remove all devices of %s: %w", user, err)
	}
	return nil
}

// removeAll removes all devices of a user, dehydrated ones too, with their tokens.
func (s *Service) removeAll(ctx context.Context, tx *sqlutil.Tx, user id.UserID) error {
	if _, err := s.deleteOthers(ctx, tx, user, "", true); err != nil {
		return err
	}
	s.tell(ctx, tx, api.TypeTokens, user, "")
	s.tell(ctx, tx, api.TypeDeviceDeleted, user, "")
	return nil
}

// removeOthers removes all devices of a user that are in use but one, with their tokens. An empty keep keeps none.
func (s *Service) removeOthers(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keep id.DeviceID) error {
	removed, err := s.deleteOthers(ctx, tx, user, keep, false)
	for _, device := range removed {
		s.tell(ctx, tx, api.TypeTokens, user, device)
		s.tell(ctx, tx, api.TypeDeviceDeleted, user, device)
	}
	return err
}

func (s *Service) deleteOthers(ctx context.Context, tx *sqlutil.Tx, user id.UserID, keep id.DeviceID, dehydrated bool) ([]id.DeviceID, error) {
	removed, err := s.Store.DeleteOtherDevices(ctx, tx, user, keep, dehydrated)
	if err != nil {
		return nil, fmt.Errorf("delete devices: %w", err)
	}
	if err := s.Store.DeleteOtherTokens(ctx, tx, user, keep); err != nil {
		return nil, fmt.Errorf("delete tokens: %w", err)
	}
	if err := s.Keys.RemoveDevices(ctx, tx, user, removed...); err != nil {
		return nil, fmt.Errorf("delete keys: %w", err)
	}
	return removed, nil
}

const (
	seenEvery = 5 * time.Minute // a device is written at most so often
	// SeenFlush is how often Flush is to be called: devices that were seen in this time are written together.
	SeenFlush  = 10 * time.Second
	maxWaiting = 10000 // beyond, what is seen is not noted
)

// LastSeen notes when and where devices were seen, and writes it now and then, in one transaction for many devices.
type LastSeen struct {
	store *storage.Store
	now   func() time.Time

	mu      sync.Mutex
	written map[deviceKey]time.Time // in the last seenEvery
	waiting map[deviceKey]storage.Device
}

type deviceKey struct {
	user   id.UserID
	device id.DeviceID
}

// NewLastSeen makes a LastSeen.
func NewLastSeen(store *storage.Store, now func() time.Time) *LastSeen {
	return &LastSeen{store: store, now: now, written: make(map[deviceKey]time.Time), waiting: make(map[deviceKey]storage.Device)}
}

// Note says that a device was seen now. It does not wait.
func (l *LastSeen) Note(user id.UserID, device id.DeviceID, ip string) {
	if device == "" {
		return
	}
	key, now := deviceKey{user, device}, l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, recent := l.written[key]; recent && now.Sub(at) < seenEvery || len(l.waiting) >= maxWaiting {
		return
	}
	l.waiting[key] = storage.Device{UserID: user, DeviceID: device, LastSeenMS: now.UnixMilli(), LastSeenIP: ip}
}

// Flush writes what was noted. What could not be written is not kept: the next request notes it again.
func (l *LastSeen) Flush(ctx context.Context) error {
	now := l.now()
	l.mu.Lock()
	waiting := l.waiting
	l.waiting = make(map[deviceKey]storage.Device)
	for key, at := range l.written {
		if now.Sub(at) >= seenEvery {
			delete(l.written, key)
		}
	}
	for key := range waiting {
		l.written[key] = now
	}
	l.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	devices := slices.SortedFunc(maps.Values(waiting), func(a, b storage.Device) int { // two replicas must not wait for each other's rows
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.DeviceID, b.DeviceID))
	})
	err := l.store.DB.Write(ctx, "last seen", func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, d := range devices {
			if err := l.store.TouchDevice(ctx, tx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note when devices were seen: %w", err)
	}
	return nil
}
