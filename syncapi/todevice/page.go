package todevice

import (
	"context"
	"fmt"
	"strconv"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// Bounds of the messages that one answer has.
const (
	pageSize  = 100     // as § Send-to-Device messaging recommends
	pageBytes = 4 << 20 // with the message that goes beyond
)

// Page returns the first messages to a device after a position and up to another, and whether these may not be all.
func (s *Service) Page(ctx context.Context, user id.UserID, device id.DeviceID, after, upTo int64,
) (messages []storage.ToDevice, isCut bool, err error) {
	messages, err = s.Storage.ToDevice(ctx, user, device, after, upTo, pageSize+1, pageBytes)
	if len(messages) > pageSize {
		return messages[:pageSize], true, err
	}
	var size int64
	for i := range messages {
		size += messages[i].Size
	}
	return messages, size >= pageBytes, err
}

// Dehydrated returns messages to a user's dehydrated device (MSC3814) from a token on, which is empty at first, and the
// token of what comes after; there is none after an empty page, which is the last. Nothing is removed. M_FORBIDDEN if
// that is not the user's dehydrated device.
func (s *Service) Dehydrated(ctx context.Context, user id.UserID, device id.DeviceID, from string,
) (messages []storage.ToDevice, next string, err error) {
	var after int64
	if from != "" {
		if after, err = strconv.ParseInt(from, 10, 64); err != nil || after < 0 {
			return nil, "", mxerr.InvalidParam("%q is no token of this endpoint: begin without one", from)
		}
	}
	found, err := s.Client.QueryDehydratedDevice(ctx, clientapi.QueryDehydratedDeviceRequest{UserID: user})
	if mxerr.Is(err, "M_NOT_FOUND") || err == nil && found.DeviceID != device {
		return nil, "", mxerr.Forbidden("%s is not your dehydrated device: ask for that first", device)
	}
	if err == nil {
		err = s.Barrier(ctx)
	}
	if err == nil {
		err = s.Hub.Reach(ctx)
	}
	if err != nil {
		return nil, "", fmt.Errorf("dehydrated device: %w", err)
	}
	messages, _, err = s.Page(ctx, user, device, after, s.Hub.Position())
	if n := len(messages); n > 0 {
		next = strconv.FormatInt(messages[n-1].Pos, 10)
	}
	return messages, next, err
}
