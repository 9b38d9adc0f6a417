package api

import (
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
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
