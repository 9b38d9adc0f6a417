// Package api is what other components may ask of the typingserver: who is typing where. Nothing of it is durable.
package api

import (
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Topic is the ephemeral topic on which each change is announced as an OutputTyping, to all replicas of who
// subscribes.
const Topic = "typing"

// TypingserverAPI is the contract.
type TypingserverAPI struct {
	// SetTyping begins, prolongs or ends that a user types in a room. The caller has checked that the user is joined.
	SetTyping rpc.Call[SetTypingRequest, SetTypingResponse]
	// QueryTyping lists who types in rooms now, for a subscriber that starts or has missed something.
	QueryTyping rpc.Call[QueryTypingRequest, QueryTypingResponse]
}

// SetTypingRequest is PUT /rooms/{roomId}/typing/{userId}.
type SetTypingRequest struct {
	RoomID  id.RoomID     `json:"room_id"`
	UserID  id.UserID     `json:"user_id"`
	Typing  bool          `json:"typing"`
	Timeout time.Duration `json:"timeout"` // ns
}

// AffinityKey keeps a room on one replica.
func (r SetTypingRequest) AffinityKey() string { return string(r.RoomID) }

// SetTypingResponse has the number of the change; a client's own change is in a sync that covers it.
type SetTypingResponse struct {
	Number int64 `json:"number"`
}

// QueryTypingRequest names rooms; none stands for every room in which somebody types and that the replica keeps that
// answers.
type QueryTypingRequest struct {
	RoomIDs []id.RoomID `json:"room_ids,omitempty"`
}

// AffinityKey asks the replica that keeps a room; which one is asked of all rooms does not matter, because none knows
// of all.
func (r QueryTypingRequest) AffinityKey() string {
	if len(r.RoomIDs) != 1 {
		return ""
	}
	return string(r.RoomIDs[0])
}

// QueryTypingResponse has one entry for each room in which somebody types.
type QueryTypingResponse struct {
	Rooms []OutputTyping `json:"rooms"`
}

// OutputTyping is all who type in a room, from a moment on. Number is clock-based (µs) and grows with each change of a
// room: of two that overtake each other, the one with the greater number holds.
type OutputTyping struct {
	RoomID id.RoomID   `json:"room_id"`
	Users  []id.UserID `json:"users"` // in order of their ids
	Number int64       `json:"number"`
	// Until has for each of Users when they end, unless they go on by then, in ms since the epoch.
	Until []int64 `json:"until,omitempty"`
	// Changes are those users of this server who have begun or ended since the output before: what other servers are
	// told (Server-Server API, § Typing Notifications).
	Changes []Change `json:"changes,omitempty"`
	// Replica is the one that has made the change.
	Replica string `json:"replica,omitempty"`
}

// Change says that a user has begun or ended to type.
type Change struct {
	UserID id.UserID `json:"user_id"`
	Typing bool      `json:"typing"`
}
