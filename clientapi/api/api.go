// Package api is what other components may ask of clientapi, the owner of accounts, devices, tokens and profiles.
package api

import (
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Topic is clientapi's log of what happens to users, keyed by user id.
const Topic = "user"

// ClientAPI is the contract.
type ClientAPI struct {
	// QueryToken tells whose an access token is. M_UNKNOWN_TOKEN if nobody's, with soft_logout where the client may log in
	// again to the same device.
	QueryToken rpc.Call[QueryTokenRequest, QueryTokenResponse]
	// QueryProfiles returns the profiles of local users; unknown users are left out.
	QueryProfiles rpc.Call[QueryProfilesRequest, QueryProfilesResponse]
	// QueryUsers tells which of these local users have an account that is not deactivated, and which are guests.
	QueryUsers rpc.Call[QueryUsersRequest, QueryUsersResponse]

	// QueryOpenID tells whose an OpenID token is. M_UNKNOWN_TOKEN if nobody's who is active.
	QueryOpenID rpc.Call[QueryOpenIDRequest, QueryOpenIDResponse]

	// QueryDevices lists the devices of local users, dehydrated ones included. Unknown users are left out.
	QueryDevices rpc.Call[QueryDevicesRequest, QueryDevicesResponse]
	// QueryDehydratedDevice tells which device of a user is dehydrated (MSC3814). M_NOT_FOUND if none is.
	QueryDehydratedDevice rpc.Call[QueryDehydratedDeviceRequest, QueryDehydratedDeviceResponse]
	// QueryKeys returns identity keys of local users, as a viewer may see them.
	QueryKeys rpc.Call[QueryKeysRequest, QueryKeysResponse]
	// ClaimKeys takes one-time keys of local users, or fallback keys where there are none left. A call that is repeated
	// with its request key gets the keys that it took.
	ClaimKeys rpc.Call[ClaimKeysRequest, ClaimKeysResponse]

	ReadLog rpc.Call[eventlog.ReadRequest, eventlog.ReadResponse]
	Heads   rpc.Call[eventlog.HeadsRequest, eventlog.HeadsResponse]
}

// QueryTokenRequest has the token as the client sent it.
type QueryTokenRequest struct {
	Token string `json:"token"`
	// UserID and DeviceID are those that an application service wants to act as.
	UserID   id.UserID   `json:"user_id,omitempty"`
	DeviceID id.DeviceID `json:"device_id,omitempty"`
	// Address is the client's, for the device's last_seen_ip; empty if it is not known.
	Address string `json:"address,omitempty"`
}

// QueryTokenResponse is who the token stands for.
type QueryTokenResponse struct {
	Caller httputil.Caller `json:"caller"`
}

// QueryProfilesRequest names local users.
type QueryProfilesRequest struct {
	UserIDs []id.UserID `json:"user_ids"`
}

// QueryProfilesResponse has the profiles that exist.
type QueryProfilesResponse struct {
	Profiles map[id.UserID]Profile `json:"profiles"`
}

// Profile is a user's profile.
type Profile struct {
	DisplayName string `json:"displayname,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// QueryUsersRequest names local users.
type QueryUsersRequest struct {
	UserIDs []id.UserID `json:"user_ids"`
}

// QueryUsersResponse has the active ones, and those of them who are guests.
type QueryUsersResponse struct {
	Active []id.UserID `json:"active"`
	Guests []id.UserID `json:"guests,omitempty"`
}

// QueryOpenIDRequest has the token as another service got it from its user.
type QueryOpenIDRequest struct {
	Token string `json:"token"`
}

// QueryOpenIDResponse is who the token stands for.
type QueryOpenIDResponse struct {
	UserID id.UserID `json:"user_id"`
}

// Types of the messages on Topic.
const (
	TypeDeviceDeleted = "device_deleted" // OutputDevice
	TypeProfile       = "profile"        // OutputProfile
	TypeErased        = "erased"         // OutputErased
	TypeTokens        = "tokens"         // OutputDevice: tokens of the device, or of all devices, ceased to be valid
	TypeDeviceList    = "device_list"    // OutputDeviceList
	TypeSignedUsers   = "signed_users"   // OutputSignedUsers
	TypeKeyCounts     = "key_counts"     // OutputKeyCounts
)

// OutputDevice names a device; an empty DeviceID stands for all devices of the user.
type OutputDevice struct {
	UserID   id.UserID   `json:"user_id"`
	DeviceID id.DeviceID `json:"device_id,omitempty"`
}

// OutputErased names a user who was deactivated and wants nothing to be kept.
type OutputErased struct {
	UserID id.UserID `json:"user_id"`
}

// OutputProfile is a user's new profile.
type OutputProfile struct {
	UserID  id.UserID `json:"user_id"`
	Profile Profile   `json:"profile"`
}
