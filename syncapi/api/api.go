// Package api is what other components may ask of syncapi.
package api

import (
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/rpc"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Topic is syncapi's log of what other servers and application services must hear: receipts, presence, to-device.
// It is keyed by user id.
const Topic = "sync"

// SyncAPI is the contract.
type SyncAPI struct {
	// TranslateToken turns a token of /sync into the place in a room up to which that sync had seen it. M_INVALID_PARAM if
	// it is no token of ours.
	TranslateToken rpc.Call[TranslateTokenRequest, TranslateTokenResponse]
	// QueryIgnored lists the users whom a user ignores.
	QueryIgnored rpc.Call[QueryIgnoredRequest, QueryIgnoredResponse]

	// QueryBlockInvites finds those of some users who want no invites (m.invite_permission_config).
	QueryBlockInvites rpc.Call[QueryBlockInvitesRequest, QueryBlockInvitesResponse]
	// InheritRoom gives a user's settings for a room, tags and push rules among them, to the room that replaces it.
	InheritRoom rpc.Call[InheritRoomRequest, Empty]
	// TagRoom adds a tag to a user's room. A tag that is there stays as it is.
	TagRoom rpc.Call[TagRoomRequest, Empty]

	// SendToDevice keeps messages for devices of this server, and hands those for other servers over. Devices that do
	// not exist get nothing.
	SendToDevice rpc.Call[SendToDeviceRequest, Empty]

	ReadLog rpc.Call[eventlog.ReadRequest, eventlog.ReadResponse]
	Heads   rpc.Call[eventlog.HeadsRequest, eventlog.HeadsResponse]
}

// TranslateTokenRequest has the token as the client sent it.
type TranslateTokenRequest struct {
	RoomID id.RoomID `json:"room_id"`
	Token  string    `json:"token"`
}

// TranslateTokenResponse is the place of the newest event that the token covers.
type TranslateTokenResponse struct {
	Order roomserver.OrderKey `json:"order"`
}

// QueryBlockInvitesRequest asks about users of this server.
type QueryBlockInvitesRequest struct {
	UserIDs []id.UserID `json:"user_ids"`
}

// QueryBlockInvitesResponse has those who block invites.
type QueryBlockInvitesResponse struct {
	Blocking []id.UserID `json:"blocking"`
}

// InheritRoomRequest names the two rooms. What the user has set for the new one already stays.
type InheritRoomRequest struct {
	UserID id.UserID `json:"user_id"`
	From   id.RoomID `json:"from"`
	To     id.RoomID `json:"to"`
}

// TagRoomRequest names the tag.
type TagRoomRequest struct {
	UserID id.UserID `json:"user_id"`
	RoomID id.RoomID `json:"room_id"`
	Tag    string    `json:"tag"`
}

// Empty is the response of a call that has nothing to say.
type Empty struct{}

// QueryIgnoredRequest asks about one user.
type QueryIgnoredRequest struct {
	UserID id.UserID `json:"user_id"`
}

// QueryIgnoredResponse has m.ignored_user_list as it is stored now.
type QueryIgnoredResponse struct {
	Users []id.UserID `json:"users"`
}

// Types of the messages on Topic.
const (
	TypeReceipt  = "receipt"   // OutputReceipt
	TypeToDevice = "to_device" // OutputToDevice
	// TypeServiceToDevice is an OutputServiceToDevice.
	TypeServiceToDevice = "service_to_device"
	// TypePrivateReceipt is an OutputReceipt of a user whose application service wants what is ephemeral: nobody else hears of it.
	TypePrivateReceipt = "private_receipt"
	// TypePresence is an OutputPresence. It is written only while an application service is registered that wants it.
	TypePresence = "presence"
)

// OutputPresence is what a user of this server is from now on.
type OutputPresence struct {
	UserID    id.UserID `json:"user_id"`
	Presence  string    `json:"presence"`
	StatusMsg string    `json:"status_msg,omitempty"`
	Active    int64     `json:"active"` // when the user last did something, ms
	// Rooms are some of those that the user is joined to; all, where they are not very many.
	Rooms []id.RoomID `json:"rooms,omitempty"`
}

// OutputReceipt is a public read receipt of a user of this server.
type OutputReceipt struct {
	RoomID    id.RoomID  `json:"room_id"`
	UserID    id.UserID  `json:"user_id"`
	EventID   id.EventID `json:"event_id"`
	ThreadID  string     `json:"thread_id,omitempty"` // "main", the root of a thread, or nothing
	Timestamp int64      `json:"ts"`                  // ms
}
