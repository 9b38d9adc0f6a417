package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
)

// RequestKey makes a changing call idempotent. The caller makes it once, outside any retry: from user, device, endpoint with
// room, and transaction id where the client gave one, else at random.
type RequestKey string

// Profile is what a member event says of its user.
type Profile struct {
	DisplayName string `json:"displayname,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// MaxInvites limits how many users one createRoom may invite.
const MaxInvites = 500

// CreateRoomRequest is POST /createRoom (Client-Server API, § Creation), its body checked for form by the caller.
type CreateRoomRequest struct {
	RequestKey      RequestKey            `json:"request_key"`
	Creator         id.UserID             `json:"creator"`
	DeviceID        id.DeviceID           `json:"device_id"`
	Profiles        map[id.UserID]Profile `json:"profiles"`     // of the creator and of those invited, as far as known here
	RoomVersion     id.RoomVersion        `json:"room_version"` // empty: the configured default
	Visibility      string                `json:"visibility"`   // public publishes the room in the directory
	Preset          string                `json:"preset"`       // empty: by visibility
	AliasLocalpart  string                `json:"alias_localpart"`
	Name            string                `json:"name"`
	Topic           string                `json:"topic"`
	Invite          []id.UserID           `json:"invite"`
	IsDirect        bool                  `json:"is_direct"`
	CreationContent json.RawMessage       `json:"creation_content,omitempty"` // an object or nothing
	InitialState    []InitialState        `json:"initial_state"`
	PowerLevels     json.RawMessage       `json:"power_levels,omitempty"` // power_level_content_override
	Timestamp       int64                 `json:"timestamp"`              // ms; 0: now
}

// InitialState is one entry of initial_state.
type InitialState struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// CreateRoomResponse names the new room.
type CreateRoomResponse struct {
	RoomID id.RoomID `json:"room_id"`
}

// AffinityKey spreads new rooms.
func (r CreateRoomRequest) AffinityKey() string { return string(r.RequestKey) }

// UpgradeRoomRequest is POST /rooms/{roomId}/upgrade. A call that is repeated with the same fields has the first one's result.
type UpgradeRoomRequest struct {
	RoomID             id.RoomID      `json:"room_id"`
	UserID             id.UserID      `json:"user_id"`
	DeviceID           id.DeviceID    `json:"device_id"`
	Profile            Profile        `json:"profile"`
	NewVersion         id.RoomVersion `json:"new_version"`
	AdditionalCreators []id.UserID    `json:"additional_creators,omitempty"` // for room versions that have such
}

// AffinityKey keeps the writes of a room on one replica.
func (r UpgradeRoomRequest) AffinityKey() string { return string(r.RoomID) }

// UpgradeRoomResponse names the room that replaces the other one.
type UpgradeRoomResponse struct {
	RoomID id.RoomID `json:"room_id"`
}

// SendEventRequest is an event that a local user wants in a room.
type SendEventRequest struct {
	RequestKey    RequestKey      `json:"request_key"`
	RoomID        id.RoomID       `json:"room_id"`
	Sender        id.UserID       `json:"sender"`
	Guest         bool            `json:"guest"`
	Suspended     bool            `json:"suspended,omitempty"` // may redact their own events only
	DeviceID      id.DeviceID     `json:"device_id"`
	TransactionID string          `json:"transaction_id"` // appears in unsigned to the same device
	Type          string          `json:"type"`
	StateKey      *string         `json:"state_key,omitempty"`
	Content       json.RawMessage `json:"content"` // a JSON object; floats and large integers are refused by version
	Redacts       id.EventID      `json:"redacts,omitempty"`
	Timestamp     int64           `json:"timestamp,omitempty"` // ms, from an application service; 0: now
}

// AffinityKey keeps the writes of a room on one replica.
func (r SendEventRequest) AffinityKey() string { return string(r.RoomID) }

// SendEventResponse names the event that was stored, now or by an earlier call with the same request key.
type SendEventResponse struct {
	EventID id.EventID `json:"event_id"`
}

// JoinRoomRequest is POST /join/{roomIdOrAlias} or /rooms/{roomId}/join.
type JoinRoomRequest struct {
	RequestKey       RequestKey      `json:"request_key"`
	UserID           id.UserID       `json:"user_id"`
	DeviceID         id.DeviceID     `json:"device_id"`
	Guest            bool            `json:"guest"`
	RoomIDOrAlias    string          `json:"room_id_or_alias"`
	Via              []id.ServerName `json:"via"`
	Reason           string          `json:"reason"`
	Profile          Profile         `json:"profile"`
	ThirdPartySigned json.RawMessage `json:"third_party_signed,omitempty"`
	Timestamp        int64           `json:"timestamp,omitempty"`
}

// AffinityKey keeps the writes of a room on one replica, where the room is named by its id.
func (r JoinRoomRequest) AffinityKey() string { return r.RoomIDOrAlias }

// JoinRoomResponse names the room that was joined, and the one that it replaced, if any.
type JoinRoomResponse struct {
	RoomID      id.RoomID `json:"room_id"`
	Predecessor id.RoomID `json:"predecessor,omitempty"`
}

// Actions of ChangeMembershipRequest.
const (
	ActionInvite = "invite"
	ActionKick   = "kick"
	ActionBan    = "ban"
	ActionUnban  = "unban"
	ActionLeave  = "leave"
	ActionKnock  = "knock"
)

// ChangeMembershipRequest is any change of membership but a join (Client-Server API, § Room membership).
type ChangeMembershipRequest struct {
	RequestKey RequestKey      `json:"request_key"`
	Action     string          `json:"action"`
	RoomID     id.RoomID       `json:"room_id"`
	Sender     id.UserID       `json:"sender"`
	DeviceID   id.DeviceID     `json:"device_id"`
	Target     id.UserID       `json:"target"`
	Reason     string          `json:"reason"`
	Profile    Profile         `json:"profile"` // of the target, as far as known here
	IsDirect   bool            `json:"is_direct"`
	Via        []id.ServerName `json:"via"`
	Timestamp  int64           `json:"timestamp,omitempty"`
}

// AffinityKey keeps the writes of a room on one replica.
func (r ChangeMembershipRequest) AffinityKey() string { return string(r.RoomID) }

// ForgetRoomRequest is POST /rooms/{roomId}/forget.
type ForgetRoomRequest struct {
	RoomID id.RoomID `json:"room_id"`
	UserID id.UserID `json:"user_id"`
}

// EraseUserRequest names a local user (Client-Server API, § POST /account/deactivate, erase).
type EraseUserRequest struct {
	UserID id.UserID `json:"user_id"`
}

// InputPDUsRequest carries events of one room that another server sent, in the order it sent them.
type InputPDUsRequest struct {
	Origin      id.ServerName     `json:"origin"`
	RoomID      id.RoomID         `json:"room_id"`
	RoomVersion id.RoomVersion    `json:"room_version"` // needed when the room is new here
	PDUs        []json.RawMessage `json:"pdus"`
}

// AffinityKey keeps the writes of a room on one replica.
func (r InputPDUsRequest) AffinityKey() string { return string(r.RoomID) }

// InputPDUsResponse says of each PDU, in the order of the request, what became of it.
type InputPDUsResponse struct {
	Results []InputPDUResult `json:"results"`
}

// Outcomes of an event (Server-Server API, § Checks performed on receipt of a PDU).
const (
	OutcomeAccepted   = "accepted"
	OutcomeSoftFailed = "soft_failed"
	OutcomeRejected   = "rejected"
	OutcomeStaged     = "staged"  // stored, and worked on when its ancestors are here
	OutcomeInvalid    = "invalid" // dropped: it fails steps 1 to 3 in a way that leaves nothing to store
)

// InputPDUResult is what became of one PDU.
type InputPDUResult struct {
	EventID id.EventID `json:"event_id"`
	Outcome string     `json:"outcome"`
	Error   string     `json:"error,omitempty"` // step and rule that it failed
}

// SetAliasRequest is PUT /directory/room/{roomAlias}.
type SetAliasRequest struct {
	Alias  id.RoomAlias `json:"alias"`
	RoomID id.RoomID    `json:"room_id"`
	UserID id.UserID    `json:"user_id"`
	// Service says that an application service sets an alias of its namespaces: its user need not be in the room, and no rule
	// of the configuration counts.
	Service bool `json:"service,omitempty"`
}

// RemoveAliasRequest is DELETE /directory/room/{roomAlias}.
type RemoveAliasRequest struct {
	Alias  id.RoomAlias `json:"alias"`
	UserID id.UserID    `json:"user_id"`
	Admin  bool         `json:"admin"` // a server administrator may remove any
}

// MaxNetworks is in the directories of how many networks a service may publish one room.
const MaxNetworks = 100

// PublishRoomRequest is PUT /directory/list/room/{roomId}.
type PublishRoomRequest struct {
	RoomID  id.RoomID `json:"room_id"`
	UserID  id.UserID `json:"user_id"`
	Publish bool      `json:"publish"`
	Admin   bool      `json:"admin"`
	// Network is in whose directory the room is to be; nil: the server's own. Its service asks, who may publish every room
	// there that exists, in MaxNetworks directories.
	Network *Network `json:"network,omitempty"`
}
