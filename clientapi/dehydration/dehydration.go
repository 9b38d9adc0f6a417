// Package dehydration keeps a device for each user who wants one that nobody is logged in on (MSC3814): it gets
// messages while the user has no other device, and whoever logs in next reads them as that device.
//
// A user has one at most. It is a device like any other: others see its keys, it is listed, and it can be deleted, then
// with its keys and messages, and this is told. Only logging out of other devices leaves it.
package dehydration

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/keys"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// MaxData is how many bytes of JSON device_data may have. A device with 100 one-time keys has about 5,000.
const MaxData = 64 << 10

// races is how often a device is put again because another one was put at the same moment.
const races = 5

// Service has the dehydrated devices of all users.
type Service struct {
	Store    *storage.Store
	Accounts *accounts.Service
	Keys     *keys.Service
	Now      func() time.Time
}

// Device is a device as its owner uploads it.
type Device struct {
	ID          id.DeviceID
	Data        json.RawMessage // a JSON object, with algorithm
	DisplayName string
	Keys        keys.Upload
}

// Put stores a user's dehydrated device with its keys, and removes the one that there was. With the id of that one, it
// keeps its messages, and the data is replaced. M_INVALID_PARAM for keys that are not those of a dehydrated device, or
// for the id of a device in use; M_TOO_LARGE for the data; and the errors of uploading keys. Then the old one stays.
func (s *Service) Put(ctx context.Context, user id.UserID, d Device) error {
	if d.ID == "" || len(d.ID) > accounts.MaxDeviceID {
		return mxerr.InvalidParam("a device_id has 1 to %d bytes", accounts.MaxDeviceID)
	}
	if len(d.Data) > MaxData {
		return mxerr.TooLarge("device_data may have %d bytes", MaxData)
	}
	if err := accounts.CheckDisplayName(d.DisplayName); err != nil {
		return err
	}
	checked, err := s.Keys.CheckUpload(ctx, user, d.ID, d.Keys)
	if err != nil {
		return err
	}
	if err := checked.CheckDehydrated(); err != nil {
		return err
	}
	row := storage.Device{UserID: user, DeviceID: d.ID, DisplayName: d.DisplayName, CreatedMS: s.Now().UnixMilli()}
	for range races {
		err = s.Store.DB.Write(ctx, "dehydrate device", func(ctx context.Context, tx *sqlutil.Tx) error {
			return s.put(ctx, tx, row, d.Data, checked)
		})
		if !sqlutil.IsUniqueViolation(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("dehydrate the device %s of %s: %w", d.ID, user, err)
	}
	return nil
}

func (s *Service) put(ctx context.Context, tx *sqlutil.Tx, d storage.Device, data json.RawMessage,
	upload *keys.Checked) error {
	if err := tokens.StillActive(ctx, tx, s.Store, d.UserID); err != nil {
		return err
	}
	old, err := s.Store.Dehydrated(ctx, tx, d.UserID)
	if err != nil {
		return fmt.Errorf("look for an older one: %w", err)
	}
	if old != nil && old.DeviceID != d.DeviceID {
		if err := s.Accounts.RemoveIn(ctx, tx, d.UserID, old.DeviceID); err != nil {
			return fmt.Errorf("remove the older one: %w", err)
		}
	}
	free, err := s.Store.PutDehydrated(ctx, tx, d, data)
	if err != nil {
		return fmt.Errorf("insert the device: %w", err)
	}
	if !free {
		return mxerr.InvalidParam("%s is the id of a device that is in use", d.DeviceID)
	}
	return s.Keys.PutUpload(ctx, tx, upload)
}

// Get returns the dehydrated device of a user. M_NOT_FOUND if there is none.
func (s *Service) Get(ctx context.Context, user id.UserID) (d *storage.Dehydrated, err error) {
	err = s.Store.DB.ReadOne(ctx, "dehydrated device", func(ctx context.Context, tx *sqlutil.Tx) error {
		d, err = s.Store.Dehydrated(ctx, tx, user)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the dehydrated device of %s: %w", user, err)
	}
	if d == nil {
		return nil, none()
	}
	return d, nil
}

func none() error { return mxerr.NotFound("No dehydrated device available") }

// Delete removes the dehydrated device of a user, and returns its id. M_NOT_FOUND if there is none.
func (s *Service) Delete(ctx context.Context, user id.UserID) (device id.DeviceID, err error) {
	err = s.Store.DB.Write(ctx, "delete dehydrated device", func(ctx context.Context, tx *sqlutil.Tx) error {
		d, err := s.Store.Dehydrated(ctx, tx, user)
		if err != nil {
			return err
		}
		if d == nil {
			return none()
		}
		device = d.DeviceID
		return s.Accounts.RemoveIn(ctx, tx, user, device)
	})
	if err != nil {
		return "", fmt.Errorf("delete the dehydrated device of %s: %w", user, err)
	}
	return device, nil
}
