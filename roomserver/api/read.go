package api

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
)

// QueryAliasRequest is GET /directory/room/{roomAlias}.
type QueryAliasRequest struct {
	Alias id.RoomAlias `json:"alias"`
}

// QueryAliasResponse says where an alias leads. M_NOT_FOUND if nowhere.
type QueryAliasResponse struct {
	RoomID  id.RoomID       `json:"room_id"`
	Servers []id.ServerName `json:"servers"`
}

// QueryRoomAliasesRequest is GET /rooms/{roomId}/aliases.
type QueryRoomAliasesRequest struct {
	Viewer Viewer    `json:"viewer"`
	RoomID id.RoomID `json:"room_id"`
}

// QueryRoomAliasesResponse lists aliases in order of their names.
type QueryRoomAliasesResponse struct {
	Aliases []id.RoomAlias `json:"aliases"`
}

// QueryPublishedRequest is GET /directory/list/room/{roomId}.
type QueryPublishedRequest struct {
	RoomID id.RoomID `json:"room_id"`
}

// QueryPublishedResponse tells whether the room is in the directory.
type QueryPublishedResponse struct {
	Published bool `json:"published"`
}

// QueryPublicRoomsRequest is GET or POST /publicRooms of this server.
type QueryPublicRoomsRequest struct {
	Search    string   `json:"search"`     // generic_search_term, in name, topic and alias
	RoomTypes []string `json:"room_types"` // "" stands for rooms without a type; nil for all
	Limit     int      `json:"limit"`
	Since     string   `json:"since"`
	// Network is whose directory it is; nil: the server's own. AllNetworks adds those of all networks to that.
	Network     *Network `json:"network,omitempty"`
	AllNetworks bool     `json:"all_networks,omitempty"`
}

// Network is one of a third party that an application service connects rooms with. Each has a directory.
type Network struct {
	Service string `json:"service,omitempty"` // id of the application service; empty in a query: any
	Network string `json:"network"`           // never empty
}

// QueryPublicRoomsResponse is a page of the directory, most members first.
type QueryPublicRoomsResponse struct {
	Rooms     []RoomSummary `json:"rooms"`
	NextBatch string        `json:"next_batch"`
	PrevBatch string        `json:"prev_batch"`
	Total     int64         `json:"total"`
}

// RoomSummary is the one row of what is said of a room in lists.
type RoomSummary struct {
	RoomID            id.RoomID      `json:"room_id"`
	RoomVersion       id.RoomVersion `json:"room_version"`
	Root              Root           `json:"root"` // current state
	Last              OrderKey       `json:"last"` // newest event
	Name              string         `json:"name"`
	Topic             string         `json:"topic"`
	AvatarURL         string         `json:"avatar_url"`
	CanonicalAlias    id.RoomAlias   `json:"canonical_alias"`
	Joined            int64          `json:"joined"`
	Invited           int64          `json:"invited"`
	JoinRule          string         `json:"join_rule"`
	HistoryVisibility string         `json:"history_visibility"`
	GuestAccess       string         `json:"guest_access"` // GuestsCanJoin, or anything else
	RoomType          string         `json:"room_type"`
	Encryption        string         `json:"encryption"`
	Creator           id.UserID      `json:"creator"`
	// Heroes are set where they are asked for and the room has neither a name nor an alias.
	Heroes []id.UserID `json:"heroes,omitempty"`
}

// MaxHeroes is how many members name a room that has no name (Client-Server API, § Calculating the display name for a
// room).
const MaxHeroes = 5

// QueryVisibleUsersRequest names users of any server.
type QueryVisibleUsersRequest struct {
	Viewer  id.UserID   `json:"viewer"`
	UserIDs []id.UserID `json:"user_ids"`
}

// QueryVisibleUsersResponse has those whom the viewer may know of, in any order.
type QueryVisibleUsersResponse struct {
	Visible []id.UserID `json:"visible"`
}

// GuestsCanJoin is the guest_access of rooms that guests may join (Client-Server API, § m.room.guest_access).
const GuestsCanJoin = "can_join"

// QueryRoomSummaryRequest is GET /room_summary/{roomIdOrAlias}. The zero Viewer is nobody here, who sees what everybody sees.
type QueryRoomSummaryRequest struct {
	Viewer Viewer    `json:"viewer"`
	RoomID id.RoomID `json:"room_id"`
}

// QueryRoomSummaryResponse is what the viewer may know of a room.
type QueryRoomSummaryResponse struct {
	RoomSummary
	Allowed    []id.RoomID `json:"allowed,omitempty"` // whose members may join, where the room is restricted
	Membership string      `json:"membership"`        // the viewer's
}

// QueryHierarchyRequest is GET /rooms/{roomId}/hierarchy.
type QueryHierarchyRequest struct {
	Viewer        Viewer    `json:"viewer"`
	RoomID        id.RoomID `json:"room_id"`
	SuggestedOnly bool      `json:"suggested_only"`
	MaxDepth      int       `json:"max_depth"` // 0: the space itself
	Skip          int       `json:"skip"`      // rooms of earlier pages
	Limit         int       `json:"limit"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryHierarchyRequest) AffinityKey() string { return string(r.RoomID) }

// QueryHierarchyResponse is a page of the tree, depth first. More says that there are further rooms.
type QueryHierarchyResponse struct {
	Rooms []HierarchyRoom `json:"rooms"`
	More  bool            `json:"more"`
}

// HierarchyRoom is a room of a tree of spaces.
type HierarchyRoom struct {
	QueryRoomSummaryResponse
	Children []json.RawMessage `json:"children"` // stripped m.space.child events with origin_server_ts
}

// QueryEventsRequest asks for events by id. With a RoomID, events of other rooms count as absent.
type QueryEventsRequest struct {
	Viewer   Viewer       `json:"viewer"`
	RoomID   id.RoomID    `json:"room_id,omitempty"`
	EventIDs []id.EventID `json:"event_ids"`
	// Aggregate asks for Relations.
	Aggregate bool `json:"aggregate,omitempty"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryEventsRequest) AffinityKey() string { return string(r.RoomID) }

// QueryEventsResponse has the visible ones of the events asked for, in that order.
type QueryEventsResponse struct {
	Events []Event `json:"events"`
}

// QueryStateRequest asks for state. Without a Root and an At it is the current state for those who are joined (or where the
// room is world readable), and the state at leaving for those who left. M_FORBIDDEN for others.
type QueryStateRequest struct {
	Viewer Viewer    `json:"viewer"`
	RoomID id.RoomID `json:"room_id"`
	// Root asks for the state of this root, without a look at membership: for components that know why they ask.
	Root *Root `json:"root,omitempty"`
	// Keys asks for these entries only; nil for all.
	Keys []StateKeyTuple `json:"keys"`
	// Filter selects by type and sender. With LazyLoadMembers no m.room.member but those of Keys or Members is returned.
	Filter *EventFilter `json:"filter,omitempty"`
	// Members are the users whose member events are wanted when Filter.LazyLoadMembers is set.
	Members []id.UserID `json:"members,omitempty"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryStateRequest) AffinityKey() string { return string(r.RoomID) }

// QueryStateResponse has the state events in no particular order.
type QueryStateResponse struct {
	Root   Root    `json:"root"`
	Events []Event `json:"events"`
}

// QueryStateDiffRequest asks what leads from one root to another.
type QueryStateDiffRequest struct {
	RoomID id.RoomID `json:"room_id"`
	From   Root      `json:"from"`
	To     Root      `json:"to"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryStateDiffRequest) AffinityKey() string { return string(r.RoomID) }

// QueryStateDiffResponse has one entry for each key that differs.
type QueryStateDiffResponse struct {
	Changes []StateChange `json:"changes"`
}

// QueryStrippedStateRequest asks for stripped state (Client-Server API, § Stripped state) for an invite or a knock.
type QueryStrippedStateRequest struct {
	RoomID id.RoomID `json:"room_id"`
	Root   Root      `json:"root"`
	UserID id.UserID `json:"user_id"` // the invited or knocking user, whose member event is part of it
	Sender id.UserID `json:"sender"`  // who invites, whose member event shows who that is; empty if it is not known
}

// QueryStrippedStateResponse has the events in stripped form.
type QueryStrippedStateResponse struct {
	State []json.RawMessage `json:"state"`
}

// QueryMembersRequest is GET /rooms/{roomId}/members.
type QueryMembersRequest struct {
	Viewer        Viewer    `json:"viewer"`
	RoomID        id.RoomID `json:"room_id"`
	At            *OrderKey `json:"at,omitempty"`
	Membership    string    `json:"membership,omitempty"`
	NotMembership string    `json:"not_membership,omitempty"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryMembersRequest) AffinityKey() string { return string(r.RoomID) }

// QueryMembersResponse has the member events.
type QueryMembersResponse struct {
	Events []Event `json:"events"`
}

// QueryServerMembersRequest asks for the members of a server at a root that the log has told of.
type QueryServerMembersRequest struct {
	RoomID id.RoomID     `json:"room_id"`
	Root   Root          `json:"root"`
	Server id.ServerName `json:"server"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryServerMembersRequest) AffinityKey() string { return string(r.RoomID) }

// QueryServerMembersResponse lists the joined users in no particular order.
type QueryServerMembersResponse struct {
	Users []id.UserID `json:"users"`
}

// QueryMessagesRequest is GET /rooms/{roomId}/messages.
type QueryMessagesRequest struct {
	Viewer   Viewer       `json:"viewer"`
	RoomID   id.RoomID    `json:"room_id"`
	From     *OrderKey    `json:"from,omitempty"` // nil: the newest end for backwards, the oldest for forwards
	To       *OrderKey    `json:"to,omitempty"`
	Backward bool         `json:"backward"`
	Limit    int          `json:"limit"`
	Filter   *EventFilter `json:"filter,omitempty"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryMessagesRequest) AffinityKey() string { return string(r.RoomID) }

// QueryMessagesResponse is a page. End is nil when there is nothing more in this direction.
type QueryMessagesResponse struct {
	Start OrderKey  `json:"start"`
	End   *OrderKey `json:"end,omitempty"`
	Chunk []Event   `json:"chunk"`
	State []Event   `json:"state"` // members of the senders, when lazily loaded
}

// QueryContextRequest is GET /rooms/{roomId}/context/{eventId}.
type QueryContextRequest struct {
	Viewer  Viewer       `json:"viewer"`
	RoomID  id.RoomID    `json:"room_id"`
	EventID id.EventID   `json:"event_id"`
	Limit   int          `json:"limit"`
	Filter  *EventFilter `json:"filter,omitempty"`
}

// QueryContextResponse surrounds an event.
type QueryContextResponse struct {
	Start  OrderKey `json:"start"`
	End    OrderKey `json:"end"`
	Event  Event    `json:"event"`
	Before []Event  `json:"before"` // newest first
	After  []Event  `json:"after"`  // oldest first
	State  []Event  `json:"state"`  // at the last of these events
}

// QuerySearchRequest is the category room_events of POST /search.
type QuerySearchRequest struct {
	Viewer         Viewer       `json:"viewer"`
	Term           string       `json:"term"`
	Keys           []string     `json:"keys"` // of body, name and topic
	Filter         *EventFilter `json:"filter,omitempty"`
	Recent         bool         `json:"recent"`         // newest first, instead of best
	From           *SearchPlace `json:"from,omitempty"` // where the page before ended
	Limit          int          `json:"limit"`
	Context        bool         `json:"context"`
	Before         int          `json:"before"`
	After          int          `json:"after"`
	IncludeProfile bool         `json:"include_profile"`
	IncludeState   bool         `json:"include_state"`
}

// QuerySearchResponse is a page of results. Everything in it follows from events that the viewer may see: it would be
// the same if there were no others. A page has fewer results than its limit where they are large. Next is where the
// next page begins; nil if there is none.
type QuerySearchResponse struct {
	// Count is how many there are, those of earlier pages included, or a thousand if there are more.
	Count      int64                 `json:"count"`
	Highlights []string              `json:"highlights"`
	Results    []SearchResult        `json:"results"`
	State      map[id.RoomID][]Event `json:"state,omitempty"`
	Next       *SearchPlace          `json:"next,omitempty"`
}

// SearchResult is an event that was found.
type SearchResult struct {
	Rank    float64        `json:"rank"` // higher is closer
	RoomID  id.RoomID      `json:"room_id"`
	Event   Event          `json:"event"`
	Context *SearchContext `json:"context,omitempty"`
}

// SearchContext is what surrounds a result; its Event and State are not set.
type SearchContext struct {
	QueryContextResponse
	Profiles map[id.UserID]Profile `json:"profiles,omitempty"`
}

// QueryRelationsRequest is GET /rooms/{roomId}/relations/{eventId}, with its relType and eventType where they are given.
type QueryRelationsRequest struct {
	Viewer    Viewer     `json:"viewer"`
	RoomID    id.RoomID  `json:"room_id"`
	EventID   id.EventID `json:"event_id"`
	RelType   string     `json:"rel_type,omitempty"`
	EventType string     `json:"event_type,omitempty"`
	From      *OrderKey  `json:"from,omitempty"`
	To        *OrderKey  `json:"to,omitempty"`
	Backward  bool       `json:"backward"`
	Limit     int        `json:"limit"`
	Recurse   bool       `json:"recurse"` // events that relate to those that relate to it too, RelationsDepth levels deep
}

// RelationsDepth is how many levels of relations are followed where that is asked for.
const RelationsDepth = 3

// AffinityKey finds the replica that has the room in its caches.
func (r QueryRelationsRequest) AffinityKey() string { return string(r.RoomID) }

// QueryThreadsRequest is GET /rooms/{roomId}/threads.
type QueryThreadsRequest struct {
	Viewer       Viewer    `json:"viewer"`
	RoomID       id.RoomID `json:"room_id"`
	Participated bool      `json:"participated"` // only those in which the viewer has taken part
	From         *OrderKey `json:"from,omitempty"`
	Limit        int       `json:"limit"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryThreadsRequest) AffinityKey() string { return string(r.RoomID) }

// QueryPageResponse is a page of events. End is nil when there is nothing more in this direction.
type QueryPageResponse struct {
	Chunk []Event   `json:"chunk"`
	End   *OrderKey `json:"end,omitempty"`
}

// QueryAggregationsRequest asks what relates to events of any rooms.
type QueryAggregationsRequest struct {
	Viewer   Viewer       `json:"viewer"`
	EventIDs []id.EventID `json:"event_ids"`
	Bytes    int          `json:"bytes,omitempty"` // of what is found, about; 0 is without a bound
}

// QueryAggregationsResponse has those of the events to which something relates. Left is how many of the last events
// were not looked at, because there was enough.
type QueryAggregationsResponse struct {
	Relations map[id.EventID]*Relations `json:"relations"`
	Left      int                       `json:"left,omitempty"`
}

// QueryTimestampRequest is GET /rooms/{roomId}/timestamp_to_event.
type QueryTimestampRequest struct {
	Viewer    Viewer    `json:"viewer"`
	RoomID    id.RoomID `json:"room_id"`
	Timestamp int64     `json:"timestamp"` // ms
	Backward  bool      `json:"backward"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryTimestampRequest) AffinityKey() string { return string(r.RoomID) }

// QueryTimestampResponse is the closest event.
type QueryTimestampResponse struct {
	EventID   id.EventID `json:"event_id"`
	Timestamp int64      `json:"timestamp"` // ms
}

// QueryMembershipsRequest asks for the rooms in which a user has one of these memberships; nil for all but forgotten ones.
type QueryMembershipsRequest struct {
	UserID      id.UserID `json:"user_id"`
	Memberships []string  `json:"memberships,omitempty"`
}

// QueryMembershipsResponse lists rooms in no particular order.
type QueryMembershipsResponse struct {
	Rooms []UserRoom `json:"rooms"`
}

// UserRoom is the membership of one user in one room.
type UserRoom struct {
	RoomID     id.RoomID  `json:"room_id"`
	Membership string     `json:"membership"`
	EventID    id.EventID `json:"event_id"`
	Forgotten  bool       `json:"forgotten,omitempty"`
}

// QueryMutualRoomsRequest is GET /mutual_rooms. After is the Next of the page before.
type QueryMutualRoomsRequest struct {
	UserID id.UserID `json:"user_id"`
	Other  id.UserID `json:"other"`
	After  id.RoomID `json:"after,omitempty"`
	Limit  int       `json:"limit,omitempty"` // 0: as many as a page may have
}

// QueryMutualRoomsResponse is a page of the rooms, of which there are Count in all. Next is empty if there is no
// further page.
type QueryMutualRoomsResponse struct {
	Rooms []id.RoomID `json:"rooms"`
	Count int64       `json:"count"`
	Next  id.RoomID   `json:"next,omitempty"`
}

// QueryMembershipRequest asks for one membership.
type QueryMembershipRequest struct {
	RoomID id.RoomID `json:"room_id"`
	UserID id.UserID `json:"user_id"`
}

// AffinityKey finds the replica that has the room in its caches.
func (r QueryMembershipRequest) AffinityKey() string { return string(r.RoomID) }

// QueryMembershipResponse has an empty Membership where the user never had one, and RoomExists false where this server has
// never been in the room.
type QueryMembershipResponse struct {
	RoomExists bool       `json:"room_exists"`
	Membership string     `json:"membership"`
	EventID    id.EventID `json:"event_id"`
	Forgotten  bool       `json:"forgotten,omitempty"`
}

// QueryRoomsRequest asks for summaries. HeroesFor is the user, if any, for whom heroes are wanted: the first MaxHeroes
// others who are joined or invited now, in the order of the events that made them so; where there are none, the first
// of those who have left or are banned.
type QueryRoomsRequest struct {
	RoomIDs   []id.RoomID `json:"room_ids"`
	HeroesFor id.UserID   `json:"heroes_for,omitempty"`
}

// QueryRoomsResponse has those rooms that exist, in the order asked for.
type QueryRoomsResponse struct {
	Rooms []RoomSummary `json:"rooms"`
}
