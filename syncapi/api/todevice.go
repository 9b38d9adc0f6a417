package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
)

// AllDevices stands for all devices of a user in messages to devices.
const AllDevices id.DeviceID = "*"

// SendToDeviceRequest has one message for each device that it names (Client-Server API, § Send-to-Device messaging).
type SendToDeviceRequest struct {
	// RequestKey is that of the sender's transaction: what is sent twice with it arrives once.
	RequestKey string                                        `json:"request_key"`
	Sender     id.UserID                                     `json:"sender"`
	Type       string                                        `json:"type"`
	Messages   map[id.UserID]map[id.DeviceID]json.RawMessage `json:"messages"`
}

// OutputToDevice is what one PUT has for users of one other server (Server-Server API, § m.direct_to_device).
type OutputToDevice struct {
	Server    id.ServerName                                 `json:"server"`
	Sender    id.UserID                                     `json:"sender"`
	Type      string                                        `json:"type"`
	MessageID string                                        `json:"message_id"`
	Messages  map[id.UserID]map[id.DeviceID]json.RawMessage `json:"messages"`
}

// OutputServiceToDevice is what one request has for devices of users of application services that take messages to devices
// in their transactions (MSC4203). It has some hundred KiB at most: what is more is in further records.
type OutputServiceToDevice struct {
	Sender id.UserID `json:"sender"`
	Type   string    `json:"type"`
	// Contents are all different.
	Contents []json.RawMessage   `json:"contents"`
	To       []ToDeviceRecipient `json:"to"`
}

// ToDeviceRecipient is a device that gets the content of that number, from 0.
type ToDeviceRecipient struct {
	UserID   id.UserID   `json:"user_id"`
	DeviceID id.DeviceID `json:"device_id"`
	Content  int         `json:"content,omitempty"`
}
