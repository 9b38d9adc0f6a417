// Package filter reads the filters that clients give to /sync and /filter (Client-Server API, § Filtering).
package filter

import (
	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

// Limits of what a filter may ask for.
const (
	MaxTimelineLimit = 1000 // a larger limit is taken as this one
	DefaultTimeline  = 10   // where none is asked for
)

// MaxKept is how many filters a user keeps. Clients upload theirs when they start, and the same again is the same
// filter. Of more, the oldest go: whoever uses one of these is told to upload it again.
const MaxKept = 300

// Filter says what of a sync a client wants. A part that is nil selects everything.
type Filter struct {
	EventFields []string                `json:"event_fields,omitempty"`
	EventFormat string                  `json:"event_format,omitempty"`
	Presence    *roomserver.EventFilter `json:"presence,omitempty"`
	AccountData *roomserver.EventFilter `json:"account_data,omitempty"`
	Room        RoomFilter              `json:"room"`

	noTimeline bool // a limit of 0 is asked for
}

// RoomFilter is the part about rooms. Rooms and NotRooms go before those of the parts.
type RoomFilter struct {
	Rooms        []id.RoomID             `json:"rooms"`
	NotRooms     []id.RoomID             `json:"not_rooms,omitempty"`
	IncludeLeave bool                    `json:"include_leave,omitempty"`
	Ephemeral    *roomserver.EventFilter `json:"ephemeral,omitempty"`
	State        *roomserver.EventFilter `json:"state,omitempty"`
	Timeline     *roomserver.EventFilter `json:"timeline,omitempty"`
	AccountData  *roomserver.EventFilter `json:"account_data,omitempty"`
}

// Event formats.
const (
	FormatClient     = "client"
	FormatFederation = "federation"
)

// Default is what a sync without a filter uses.
func Default() *Filter { return &Filter{EventFormat: FormatClient} }

// Parse reads a filter, checks it, and sets what it leaves out. Errors are M_NOT_JSON, M_BAD_JSON and M_TOO_LARGE.
func Parse(raw []byte) (*Filter, error) {
	f := Default()
	if err := roomserver.UnmarshalFilter(raw, f); err != nil {
		return nil, err
	}
	limit := gjson.GetBytes(raw, "room.timeline.limit")
	f.noTimeline = limit.Type == gjson.Number && limit.Num == 0
	if f.EventFormat != FormatClient && f.EventFormat != FormatFederation {
		return nil, mxerr.BadJSON("event_format must be %q or %q", FormatClient, FormatFederation)
	}
	for name, part := range map[string]*roomserver.EventFilter{
		"presence": f.Presence, "account_data": f.AccountData, "room.ephemeral": f.Room.Ephemeral, "room.state": f.Room.State,
		"room.timeline": f.Room.Timeline, "room.account_data": f.Room.AccountData,
	} {
		if err := part.Validate(name); err != nil {
			return nil, err
		}
	}
	rooms := roomserver.EventFilter{Rooms: f.Room.Rooms, NotRooms: f.Room.NotRooms}
	if err := rooms.Validate("room"); err != nil {
		return nil, err
	}
	return f, nil
}

// TimelineLimit is how many events of a room a sync returns at most. A limit must be greater than 0, but clients ask for 0 where they want
// none.
func (f *Filter) TimelineLimit() int {
	if f.noTimeline {
		return 0
	}
	if f.Room.Timeline == nil || f.Room.Timeline.Limit == 0 {
		return DefaultTimeline
	}
	return min(f.Room.Timeline.Limit, MaxTimelineLimit)
}

// WantsRoom applies rooms and not_rooms of the room part.
func (f *Filter) WantsRoom(room id.RoomID) bool {
	return (&roomserver.EventFilter{Rooms: f.Room.Rooms, NotRooms: f.Room.NotRooms}).MatchesRoom(room)
}

// LazyLoadMembers tells whether member events are sent only for the senders of the events that are sent: /sync looks at the state
// part alone.
func (f *Filter) LazyLoadMembers() bool { return f.Room.State != nil && f.Room.State.LazyLoadMembers }

// IncludeRedundantMembers tells whether member events are sent again that the client has.
func (f *Filter) IncludeRedundantMembers() bool {
	return f.Room.State != nil && f.Room.State.IncludeRedundantMembers
}

// UnreadThreadNotifications tells whether counts are wanted for each thread.
func (f *Filter) UnreadThreadNotifications() bool {
	return f.Room.Timeline != nil && f.Room.Timeline.UnreadThreadNotifs
}
