package pdu

import (
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
)

// wire is the form of an event in rpc and log messages.
type wire struct {
	Version  id.RoomVersion  `json:"v"`
	ID       id.EventID      `json:"id"`
	PDU      json.RawMessage `json:"pdu"`
	Unsigned json.RawMessage `json:"unsigned,omitempty"`
}

// MarshalJSON writes the event with its version and id, for other components of this server.
func (e *Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{e.props.Version, e.id, e.json, e.unsigned})
}

// UnmarshalJSON reads what MarshalJSON wrote; the event is trusted.
func (e *Event) UnmarshalJSON(raw []byte) error {
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return fmt.Errorf("reading an event of an internal message: %w", err)
	}
	// encoding/json escapes characters on the way that the canonical form does not.
	canonicalJSON, err := canonical(make([]byte, 0, len(w.PDU)), w.PDU, false)
	if err != nil {
		return fmt.Errorf("reading event %s of an internal message: %w", w.ID, err)
	}
	parsed, err := ParseTrusted(w.Version, w.ID, canonicalJSON)
	if err != nil {
		return fmt.Errorf("reading event %s of an internal message: %w", w.ID, err)
	}
	*e = *parsed
	e.unsigned = w.Unsigned
	return nil
}
