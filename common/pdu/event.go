// Package pdu is the events of rooms in the form in which servers exchange them (Server-Server API, § PDUs; the event format
// of each room version).
//
// An Event is immutable and safe for concurrent use: everything that the other components look at is read once, when it is
// parsed. What comes from outside goes through Parse, which brings it into canonical form and checks it against the event
// format of its room version, and nothing else; signatures, hashes and authorization are the caller's next steps. What this
// server stored goes through ParseTrusted, which is cheap.
package pdu

import (
	"encoding/json"
	"slices"
	"unsafe"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// Event is a PDU. The byte slices that its methods return must not be changed.
type Event struct {
	props       *roomversion.Properties
	id          id.EventID
	roomID      id.RoomID
	roomIDGiven bool
	eventType   string
	stateKey    string
	isState     bool
	sender      id.UserID
	ts, depth   int64
	prev, auth  []id.EventID
	redacts     id.EventID
	membership  string
	json        []byte // canonical, without unsigned
	content     []byte // part of json
	unsigned    []byte
}

// Types of events that the protocol itself looks at.
const (
	TypeCreate           = "m.room.create"
	TypeMember           = "m.room.member"
	TypeJoinRules        = "m.room.join_rules"
	TypePowerLevels      = "m.room.power_levels"
	TypeThirdPartyInvite = "m.room.third_party_invite"
	TypeAliases          = "m.room.aliases"
	TypeRedaction        = "m.room.redaction"
)

// Limits of events (Client-Server API, § Size limits; the PDU definitions of the room versions).
const (
	MaxBytes      = 65536
	MaxKeyBytes   = 255 // type and state_key
	MaxPrevEvents = 20
	MaxAuthEvents = 10
	// maxReceived bounds the work on a PDU as it was received, with unsigned and before it is canonical.
	maxReceived = 8 * MaxBytes
)

// Parse reads an event that comes from outside, and checks that it is valid by the format of its room version (Server-Server
// API, § Checks performed on receipt of a PDU, step 1). The error is M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE or
// M_UNSUPPORTED_ROOM_VERSION.
func Parse(v id.RoomVersion, raw []byte) (*Event, error) {
	props, err := properties(v)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxReceived {
		return nil, mxerr.TooLarge("an event has %d bytes, of at most %d", len(raw), MaxBytes)
	}
	whole, err := canonical(make([]byte, 0, len(raw)), raw, props.StrictJSON)
	if err != nil {
		return nil, err
	}
	if whole[0] != '{' {
		return nil, mxerr.BadJSON("an event must be a JSON object")
	}
	e := &Event{props: props}
	if e.unsigned = lookup(whole, "unsigned"); e.unsigned != nil {
		if e.unsigned[0] != '{' {
			return nil, mxerr.BadJSON("the event's unsigned is not an object")
		}
		whole = appendMembers(make([]byte, 0, len(whole)), whole, func(key string) bool { return key != "unsigned" })
	}
	if len(whole) > MaxBytes {
		return nil, mxerr.TooLarge("an event has %d bytes, of at most %d", len(whole), MaxBytes)
	}
	if err := e.read(whole, true); err != nil {
		return nil, err
	}
	return e, nil
}

// ParseTrusted reads an event that this server has stored: what JSON() returned for the event with this id. It keeps raw, and
// does not check more than that it can be read. Without an id, the id is computed.
func ParseTrusted(v id.RoomVersion, eventID id.EventID, raw []byte) (*Event, error) {
	props, err := properties(v)
	if err != nil {
		return nil, err
	}
	e := &Event{props: props, id: eventID}
	if err := e.read(raw, false); err != nil {
		return nil, err
	}
	return e, nil
}

// ID is the event's id: the reference hash from room version 3 on.
func (e *Event) ID() id.EventID { return e.id }

// Version is the version of the event's room.
func (e *Event) Version() id.RoomVersion { return e.props.Version }

// Properties are those of the event's room version.
func (e *Event) Properties() *roomversion.Properties { return e.props }

// RoomID is the room's id. For the m.room.create event of a room whose id is that event's hash, it is computed.
func (e *Event) RoomID() id.RoomID { return e.roomID }

// HasRoomID tells whether the event itself has a room_id.
func (e *Event) HasRoomID() bool { return e.roomIDGiven }

// Type is the event's type.
func (e *Event) Type() string { return e.eventType }

// StateKey is the state key; false if this is not a state event.
func (e *Event) StateKey() (string, bool) { return e.stateKey, e.isState }

// IsState tells whether the event has a state key.
func (e *Event) IsState() bool { return e.isState }

// Is tells whether this is the state event of this type and state key.
func (e *Event) Is(eventType, stateKey string) bool {
	return e.isState && e.eventType == eventType && e.stateKey == stateKey
}

// Sender is the user who sent the event.
func (e *Event) Sender() id.UserID { return e.sender }

// OriginServerTS is the time at which the sender's server claims to have made the event, in milliseconds.
func (e *Event) OriginServerTS() int64 { return e.ts }

// Depth is the sender's claim of the event's depth.
func (e *Event) Depth() int64 { return e.depth }

// Content is the event's content, canonical.
func (e *Event) Content() json.RawMessage { return slices.Clip(e.content) }

// Unsigned is the unsigned object that the PDU came with; nil if none. It is never stored.
func (e *Event) Unsigned() json.RawMessage { return slices.Clip(e.unsigned) }

// PrevEvents are the event's parents in the room's DAG.
func (e *Event) PrevEvents() []id.EventID { return slices.Clip(e.prev) }

// AuthEvents are the events that gave the sender permission.
func (e *Event) AuthEvents() []id.EventID { return slices.Clip(e.auth) }

// Redacts is the event that an m.room.redaction redacts; empty if this is none, or if it names none.
func (e *Event) Redacts() id.EventID { return e.redacts }

// Membership is the membership of an m.room.member event; empty if it has none.
func (e *Event) Membership() string { return e.membership }

// JSON is the canonical PDU with its signatures and hashes, without unsigned.
func (e *Event) JSON() []byte { return slices.Clip(e.json) }

// Size is the memory that an event takes, in bytes, about: that of its JSON, and of the strings and lists that were
// read from it.
func (e *Event) Size() int {
	n := int(unsafe.Sizeof(*e)) + len(e.json) + len(e.unsigned) + len(e.id) + len(e.roomID)
	n += len(e.eventType) + len(e.stateKey) + len(e.sender) + len(e.redacts) + len(e.membership)
	for _, ids := range [2][]id.EventID{e.prev, e.auth} {
		for _, i := range ids {
			n += int(unsafe.Sizeof(i)) + len(i)
		}
	}
	return n
}
