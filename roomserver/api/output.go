package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

// Types of the messages on Topic. A consumer that meets a type which it does not know waits: it is older than the producer.
const (
	TypeEvent  = "event"  // OutputEvent
	TypeInvite = "invite" // OutputInvite
)

// OutputEvent says that an event became part of a room, and what this did to the room's current state. Messages of one room
// come in the order in which they were committed, each RootBefore equal to the RootAfter of the one before, except where
// this server joined anew (RootBefore is then the empty state).
type OutputEvent struct {
	RoomID      id.RoomID      `json:"room_id"`
	RoomVersion id.RoomVersion `json:"room_version"`
	Event       *pdu.Event     `json:"event"`
	Order       OrderKey       `json:"order"`
	// RootBefore and RootAfter are the room's current state before and after this event.
	RootBefore Root `json:"root_before"`
	RootAfter  Root `json:"root_after"`
	// StateRoot is the state before the event, where it was sent. It differs from RootBefore when the room has forked.
	StateRoot Root `json:"state_root"`
	// Changes lead from RootBefore to RootAfter.
	Changes []StateChange `json:"changes,omitempty"`
	// Joined and Invited count members after the event.
	Joined  int64 `json:"joined"`
	Invited int64 `json:"invited"`
	// Backfilled events are history: they make no timeline entry in /sync and notify nobody.
	Backfilled bool `json:"backfilled,omitempty"`
	// SoftFailed events change nothing, are not for clients, and come with their state only.
	SoftFailed bool `json:"soft_failed,omitempty"`
	// Visibility is m.room.history_visibility at the event.
	Visibility string `json:"visibility"`
	// Redacts is the event that this one redacted, if the redaction took effect.
	Redacts id.EventID `json:"redacts,omitempty"`
	// DeviceID and TransactionID are of the client that sent the event.
	DeviceID      id.DeviceID `json:"device_id,omitempty"`
	TransactionID string      `json:"transaction_id,omitempty"`
}

// StateChange is one entry of a difference of two states. A key that is gone has no New, one that is new has no Old.
type StateChange struct {
	Type     string     `json:"type"`
	StateKey string     `json:"state_key"`
	Old      id.EventID `json:"old,omitempty"`
	New      id.EventID `json:"new,omitempty"`
	// OldMembership and NewMembership are set for m.room.member; a key that is gone counts as leave.
	OldMembership string `json:"old_membership,omitempty"`
	NewMembership string `json:"new_membership,omitempty"`
}

// OutputInvite says that a local user was invited to, or has knocked on, a room that this server is not in; or, when
// Membership is leave, that this is over.
type OutputInvite struct {
	RoomID        id.RoomID         `json:"room_id"`
	RoomVersion   id.RoomVersion    `json:"room_version"`
	UserID        id.UserID         `json:"user_id"`
	Membership    string            `json:"membership"`
	Event         *pdu.Event        `json:"event,omitempty"`
	StrippedState []json.RawMessage `json:"stripped_state,omitempty"`
}
