package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

// Viewer is who a read is for. The zero Viewer is the server itself, which sees everything; only answers that never reach a
// client may use it.
type Viewer struct {
	UserID   id.UserID   `json:"user,omitempty"`
	DeviceID id.DeviceID `json:"device,omitempty"` // whose transaction ids appear in unsigned
	Guest    bool        `json:"guest,omitempty"`  // sees joined and world-readable rooms only
}

// Event is an event as its viewer may see it.
type Event struct {
	PDU *pdu.Event `json:"pdu"` // in redacted form where it is redacted
	// Order is the event's place in the room. Outliers and rejected events have none and are never returned.
	Order OrderKey `json:"order"`
	// RedactedBecause is the redaction that took effect on this event.
	RedactedBecause *pdu.Event `json:"redacted_because,omitempty"`
	// ReplacesState and PrevContent are of the state event that a state event replaced.
	ReplacesState id.EventID      `json:"replaces_state,omitempty"`
	PrevContent   json.RawMessage `json:"prev_content,omitempty"`
	// DeviceID and TransactionID are of the client that sent it, if it was sent here.
	DeviceID      id.DeviceID `json:"device_id,omitempty"`
	TransactionID string      `json:"transaction_id,omitempty"`
	// Membership is the viewer's own at the time of the event (unsigned.membership).
	Membership string `json:"membership,omitempty"`
}

// EventFilter is the specification's RoomEventFilter and StateFilter (Client-Server API, § Filtering), the parts that
// select events. Types and not_types may end in or contain '*'.
type EventFilter struct {
	Limit                   int         `json:"limit,omitempty"`
	Types                   []string    `json:"types,omitempty"`
	NotTypes                []string    `json:"not_types,omitempty"`
	Senders                 []id.UserID `json:"senders,omitempty"`
	NotSenders              []id.UserID `json:"not_senders,omitempty"`
	Rooms                   []id.RoomID `json:"rooms,omitempty"`
	NotRooms                []id.RoomID `json:"not_rooms,omitempty"`
	ContainsURL             *bool       `json:"contains_url,omitempty"`
	LazyLoadMembers         bool        `json:"lazy_load_members,omitempty"`
	IncludeRedundantMembers bool        `json:"include_redundant_members,omitempty"`
	UnreadThreadNotifs      bool        `json:"unread_thread_notifications,omitempty"`
	HasTypes                bool        `json:"-"` // types was given, even if empty (which selects nothing)
	RelatedByRelTypes       []string    `json:"related_by_rel_types,omitempty"`
	RelatedBySenders        []id.UserID `json:"related_by_senders,omitempty"`
}
