package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
)

// QueryDevicesRequest names local users.
type QueryDevicesRequest struct {
	UserIDs []id.UserID `json:"user_ids"`
}

// QueryDevicesResponse has the ids of the devices of each user who has any.
type QueryDevicesResponse struct {
	Devices map[id.UserID][]id.DeviceID `json:"devices"`
}

// QueryDehydratedDeviceRequest asks about a local user.
type QueryDehydratedDeviceRequest struct {
	UserID id.UserID `json:"user_id"`
}

// QueryDehydratedDeviceResponse names the device.
type QueryDehydratedDeviceResponse struct {
	DeviceID id.DeviceID `json:"device_id"`
}

// QueryKeysRequest asks for keys of devices of local users; an empty list stands for all devices of the user.
type QueryKeysRequest struct {
	// Viewer is who sees the answer: local users see their own user-signing key and what it has signed. Empty stands
	// for another server.
	Viewer  id.UserID                   `json:"viewer,omitempty"`
	Devices map[id.UserID][]id.DeviceID `json:"devices"`
}

// QueryKeysResponse has the keys as JSON objects with the signatures that the viewer may see. Users who are unknown,
// and devices that are unknown or have no keys, are missing.
type QueryKeysResponse struct {
	// DeviceKeys have unsigned.device_display_name.
	DeviceKeys      map[id.UserID]map[id.DeviceID]json.RawMessage `json:"device_keys"`
	MasterKeys      map[id.UserID]json.RawMessage                 `json:"master_keys,omitempty"`
	SelfSigningKeys map[id.UserID]json.RawMessage                 `json:"self_signing_keys,omitempty"`
	UserSigningKeys map[id.UserID]json.RawMessage                 `json:"user_signing_keys,omitempty"`
	// StreamIDs are those of the last OutputDeviceList of each user who has one.
	StreamIDs map[id.UserID]int64 `json:"stream_ids,omitempty"`
}

// ClaimKeysRequest asks for one key of an algorithm for each device of local users.
type ClaimKeysRequest struct {
	RequestKey string                               `json:"request_key"`
	Keys       map[id.UserID]map[id.DeviceID]string `json:"keys"`
}

// ClaimKeysResponse has for each device that had a key an object of one "algorithm:id" and its key.
type ClaimKeysResponse struct {
	Keys map[id.UserID]map[id.DeviceID]json.RawMessage `json:"keys"`
}

// OutputDeviceList says that others must fetch a user's keys anew: those of a device, or the cross-signing keys.
type OutputDeviceList struct {
	UserID id.UserID `json:"user_id"`
	// DeviceID is empty where cross-signing keys have changed.
	DeviceID id.DeviceID `json:"device_id,omitempty"`
	Deleted  bool        `json:"deleted,omitempty"` // the device has no keys any more
	// StreamID counts the changes of this user, from 1 (Server-Server API, § m.device_list_update). PrevID is that of
	// the change before; 0: there is none.
	StreamID int64 `json:"stream_id"`
	PrevID   int64 `json:"prev_id"`
}

// OutputSignedUsers says that a user has signed keys of others in a way that only this user sees: only their own
// devices must fetch these keys anew.
type OutputSignedUsers struct {
	UserID id.UserID   `json:"user_id"`
	Signed []id.UserID `json:"signed"`
}

// OutputKeyCounts says what keys of a device can be claimed now.
type OutputKeyCounts struct {
	UserID   id.UserID   `json:"user_id"`
	DeviceID id.DeviceID `json:"device_id"`
	// OneTime has, for each algorithm that the device has ever had keys of, how many are left: 0 is said.
	OneTime map[string]int `json:"one_time"`
	// UnusedFallback are the algorithms with a fallback key that was not given yet.
	UnusedFallback []string `json:"unused_fallback"`
}
