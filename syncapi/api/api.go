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
