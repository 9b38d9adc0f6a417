package api

import (
	"encoding/json"
	"unsafe"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

// Viewer is who a read is for. The zero Viewer is the server itself, which sees everything; only answers that never reach a
// client may use it.
type Viewer struct {
	UserID   id.UserID   `json:"user,omitempty"`
	DeviceID id.DeviceID `json:"device,omitempty"` // whose transaction ids appear in unsigned
	Guest    bool        `json:"guest,omitempty"`  // sees joined and world-readable rooms only
	// Ignored are the users whose events do not count where events are aggregated.
	Ignored []id.UserID `json:"ignored,omitempty"`
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
	// Relations is what relates to it, where a call aggregates that; nil if nothing does.
	Relations *Relations `json:"relations,omitempty"`
}

// Size is the memory that an event takes, in bytes, about, without its Relations.
func (e *Event) Size() int {
	n := int(unsafe.Sizeof(*e)) + e.PDU.Size() + len(e.ReplacesState) + len(e.PrevContent)
	n += len(e.DeviceID) + len(e.TransactionID) + len(e.Membership)
	if e.RedactedBecause != nil {
		n += e.RedactedBecause.Size()
	}
	return n
}

// Relations aggregates the events that relate to one (Client-Server API, § Aggregations of child events), as far as the viewer may see
// them.
type Relations struct {
	Replace   *Event       `json:"replace,omitempty"`   // the most recent valid one
	Reference []id.EventID `json:"reference,omitempty"` // oldest first
	Thread    *Thread      `json:"thread,omitempty"`
}

// Thread sums up the events of a thread.
type Thread struct {
	Latest       Event `json:"latest"`
	Count        int64 `json:"count"`
	Participated bool  `json:"participated"` // whether the viewer has sent its root or one of its events
}
