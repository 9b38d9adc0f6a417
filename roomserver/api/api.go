// Package api is what other components may ask of the roomserver, and the messages of its log.
//
// The roomserver is the one place where events are stored, where rooms change, and where it is decided who may see what.
// Writes are idempotent by their request key: a call that is repeated with the same key, by a retry of rpc or of a client,
// returns the first result. Reads that return event bodies take a Viewer, and the check of history visibility happens behind
// them and nowhere else.
//
// Errors are *mxerr.Error where a client is to see them (M_FORBIDDEN, M_NOT_FOUND, …); every other error may pass when the
// call is repeated.
package api

import (
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Topic is the roomserver's log of room changes: OutputEvent and OutputInvite messages, keyed by room id.
const Topic = "room"

// RoomserverAPI is the contract.
type RoomserverAPI struct {
	// CreateRoom makes a room with its first events, up to and including the invites of local users, in one commit.
	CreateRoom rpc.Call[CreateRoomRequest, CreateRoomResponse]
	// UpgradeRoom replaces a room by one of another version.
	UpgradeRoom rpc.Call[UpgradeRoomRequest, UpgradeRoomResponse]
	// SendEvent builds, signs, checks and stores an event of a local user: messages, state and redactions. Membership goes
	// through ChangeMembership or JoinRoom, but a member event given here is checked in the same way.
	SendEvent rpc.Call[SendEventRequest, SendEventResponse]
	// JoinRoom joins a local user to a room, by id or alias. It is a success if the user has joined already.
	JoinRoom rpc.Call[JoinRoomRequest, JoinRoomResponse]
	// ChangeMembership invites, kicks, bans, unbans, knocks or leaves.
	ChangeMembership rpc.Call[ChangeMembershipRequest, SendEventResponse]
	// ForgetRoom makes a room that the user has left invisible to them.
	ForgetRoom rpc.Call[ForgetRoomRequest, Empty]
	// EraseUser makes that who joins a room of a deactivated user from now on gets the user's events as if they were redacted.
	EraseUser rpc.Call[EraseUserRequest, Empty]
	// InputPDUs takes events that other servers made: each is stored, rejected or staged before it answers.
	InputPDUs rpc.Call[InputPDUsRequest, InputPDUsResponse]

	SetAlias    rpc.Call[SetAliasRequest, Empty]
	RemoveAlias rpc.Call[RemoveAliasRequest, Empty]
	QueryAlias  rpc.Call[QueryAliasRequest, QueryAliasResponse]
	// QueryRoomAliases lists the local aliases of a room, to those who may see them.
	QueryRoomAliases rpc.Call[QueryRoomAliasesRequest, QueryRoomAliasesResponse]
	PublishRoom      rpc.Call[PublishRoomRequest, Empty]
	QueryPublished   rpc.Call[QueryPublishedRequest, QueryPublishedResponse]
	QueryPublicRooms rpc.Call[QueryPublicRoomsRequest, QueryPublicRoomsResponse]

	// QueryEvents returns those of the events that exist and that the viewer may see, in the order asked for.
	QueryEvents rpc.Call[QueryEventsRequest, QueryEventsResponse]
	// QueryState returns the room's state, whole or a part, now or at a root, as far as the viewer may see it.
	QueryState rpc.Call[QueryStateRequest, QueryStateResponse]
	// QueryStateDiff compares two roots of a room in O(changes).
	QueryStateDiff rpc.Call[QueryStateDiffRequest, QueryStateDiffResponse]
	// QueryStrippedState returns the stripped state that an invited or knocking user may see.
	QueryStrippedState rpc.Call[QueryStrippedStateRequest, QueryStrippedStateResponse]
	QueryMembers       rpc.Call[QueryMembersRequest, QueryMembersResponse]
	// QueryServerMembers lists the users of one server who are joined to a room at a root.
	QueryServerMembers rpc.Call[QueryServerMembersRequest, QueryServerMembersResponse]
	QueryMessages      rpc.Call[QueryMessagesRequest, QueryMessagesResponse]
	QueryContext       rpc.Call[QueryContextRequest, QueryContextResponse]
	// QuerySearch finds events by their words, in all rooms that the viewer is or was in.
	QuerySearch rpc.Call[QuerySearchRequest, QuerySearchResponse]
	// QueryRelations lists the events that relate to one. M_NOT_FOUND if the viewer may not see that one.
	QueryRelations rpc.Call[QueryRelationsRequest, QueryPageResponse]
	// QueryThreads lists the roots of threads, that of the thread with the newest event first.
	QueryThreads rpc.Call[QueryThreadsRequest, QueryPageResponse]
	// QueryAggregations aggregates what relates to events.
	QueryAggregations rpc.Call[QueryAggregationsRequest, QueryAggregationsResponse]
	// QueryTimestamp finds the visible event closest to a time. M_NOT_FOUND if there is none in that direction.
	QueryTimestamp rpc.Call[QueryTimestampRequest, QueryTimestampResponse]
	// QueryMemberships lists the rooms of one user.
	QueryMemberships rpc.Call[QueryMembershipsRequest, QueryMembershipsResponse]
	// QueryMembership answers the question of authority: what is this user in this room, now?
	QueryMembership rpc.Call[QueryMembershipRequest, QueryMembershipResponse]
	// QueryMutualRooms lists the rooms that two users are joined to.
	QueryMutualRooms rpc.Call[QueryMutualRoomsRequest, QueryMutualRoomsResponse]
	// QueryRoomSummary returns what the viewer may know of a room before they join it. M_NOT_FOUND if that is nothing.
	QueryRoomSummary rpc.Call[QueryRoomSummaryRequest, QueryRoomSummaryResponse]
	// QueryHierarchy walks the tree of a space. M_FORBIDDEN if the viewer may not know of the space.
	QueryHierarchy rpc.Call[QueryHierarchyRequest, QueryHierarchyResponse]
	// QueryVisibleUsers tells which users a user may know of: those who share a room with them, are joined to a room that anybody may join
	// or read, or are the user (§ User Directory).
	QueryVisibleUsers rpc.Call[QueryVisibleUsersRequest, QueryVisibleUsersResponse]
	// QueryRooms returns the summary rows of rooms.
	QueryRooms rpc.Call[QueryRoomsRequest, QueryRoomsResponse]

	ReadLog rpc.Call[eventlog.ReadRequest, eventlog.ReadResponse]
	Heads   rpc.Call[eventlog.HeadsRequest, eventlog.HeadsResponse]
}

// Empty is the request or response of a call that has nothing to say.
type Empty struct{}
