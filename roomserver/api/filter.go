package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

// EventFilter is the specification's RoomEventFilter and StateFilter (Client-Server API, § Filtering). A list that is nil
// selects everything; one that is empty but not nil selects nothing. Types may have '*' in them.
type EventFilter struct {
	Limit                   int         `json:"limit,omitempty"`
	Types                   []string    `json:"types"`
	NotTypes                []string    `json:"not_types,omitempty"`
	Senders                 []id.UserID `json:"senders"`
	NotSenders              []id.UserID `json:"not_senders,omitempty"`
	Rooms                   []id.RoomID `json:"rooms"`
	NotRooms                []id.RoomID `json:"not_rooms,omitempty"`
	ContainsURL             *bool       `json:"contains_url,omitempty"`
	LazyLoadMembers         bool        `json:"lazy_load_members,omitempty"`
	IncludeRedundantMembers bool        `json:"include_redundant_members,omitempty"`
	UnreadThreadNotifs      bool        `json:"unread_thread_notifications,omitempty"`
}

// Matches tells whether the filter selects an event. A nil filter selects every event. Limit and lazy loading are not looked
// at: they concern the list, not the event.
func (f *EventFilter) Matches(e *pdu.Event) bool {
	if f == nil {
		return true
	}
	return f.MatchesType(e.Type()) && f.MatchesSender(e.Sender()) && f.MatchesRoom(e.RoomID()) &&
		(f.ContainsURL == nil || *f.ContainsURL == HasURL(e))
}

// MatchesType applies types and not_types.
func (f *EventFilter) MatchesType(eventType string) bool {
	if f == nil {
		return true
	}
	matches := func(pattern string) bool { return glob.MatchStar(pattern, eventType) }
	return (f.Types == nil || slices.ContainsFunc(f.Types, matches)) && !slices.ContainsFunc(f.NotTypes, matches)
}

// MatchesSender applies senders and not_senders.
func (f *EventFilter) MatchesSender(sender id.UserID) bool {
	return f == nil || (f.Senders == nil || slices.Contains(f.Senders, sender)) && !slices.Contains(f.NotSenders, sender)
}

// MatchesRoom applies rooms and not_rooms.
func (f *EventFilter) MatchesRoom(room id.RoomID) bool {
	return f == nil || (f.Rooms == nil || slices.Contains(f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

// HasURL tells whether an event's content has a url key that is a string, which is what contains_url asks.
func HasURL(e *pdu.Event) bool {
	return gjson.GetBytes(e.Content(), "url").Type == gjson.String
}

// MaxFilterBytes limits the JSON of a filter.
const MaxFilterBytes = 64 << 10

// ParseEventFilter reads a RoomEventFilter as /messages and /context take it. Nothing gives nil, which selects everything.
func ParseEventFilter(raw []byte) (*EventFilter, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	f := new(EventFilter)
	if err := UnmarshalFilter(raw, f); err != nil {
		return nil, err
	}
	return f, f.Validate("filter")
}

// UnmarshalFilter reads the JSON object of a filter of any kind. Errors are M_NOT_JSON, M_BAD_JSON and M_TOO_LARGE.
func UnmarshalFilter(raw []byte, into any) error {
	if len(raw) > MaxFilterBytes {
		return mxerr.TooLarge("a filter may have %d bytes, this one has %d", MaxFilterBytes, len(raw))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		if wrongType, is := errors.AsType[*json.UnmarshalTypeError](err); is {
			return mxerr.BadJSON("the filter's %q must not be of JSON type %s", wrongType.Field, wrongType.Value)
		}
		return mxerr.NotJSON("the filter is not JSON: %v", err)
	}
	if bytes.TrimSpace(raw)[0] != '{' {
		return mxerr.BadJSON("a filter must be a JSON object")
	}
	return nil
}

// Validate checks limits and ids. name is what the errors call the filter. They are M_BAD_JSON.
func (f *EventFilter) Validate(name string) error {
	if f == nil {
		return nil
	}
	if f.Limit < 0 {
		return mxerr.BadJSON("the limit of %s must be positive", name)
	}
	for _, user := range slices.Concat(f.Senders, f.NotSenders) {
		if _, err := id.ParseUserID(string(user)); err != nil {
			return mxerr.BadJSON("a sender of %s: %v", name, err)
		}
	}
	for _, room := range slices.Concat(f.Rooms, f.NotRooms) {
		if _, err := id.ParseRoomID(string(room)); err != nil {
			return mxerr.BadJSON("a room of %s: %v", name, err)
		}
	}
	return nil
}
