package routing

import (
	"context"
	"net/http"
	"strings"

	"github.com/matrix-org/dendrite/clientapi/unknown"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	usualRooms = 50
	maxRooms   = 500
)

// alias is GET /directory/room/{roomAlias}.
func (e *endpoints) alias(ctx context.Context, r *httputil.Request) (any, error) {
	alias, err := roomAlias(r)
	if err != nil {
		return nil, err
	}
	found, err := e.Unknown.Alias(ctx, unknown.ByOf(r), alias)
	if err != nil {
		return nil, err
	}
	if found.Servers == nil {
		found.Servers = []id.ServerName{}
	}
	return httputil.Object{"room_id": found.RoomID, "servers": found.Servers}, nil
}

// putAlias is PUT /directory/room/{roomAlias}.
func (e *endpoints) putAlias(ctx context.Context, r *httputil.Request) (any, error) {
	alias, err := roomAlias(r)
	if err != nil {
		return nil, err
	}
	if alias.Server() != e.Config.ServerName {
		return nil, mxerr.InvalidParam("%s is an alias of another server: this one is %s", alias, e.Config.ServerName)
	}
	var body struct {
		RoomID string `json:"room_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.RoomID == "" {
		return nil, mxerr.MissingParam("room_id is missing")
	}
	if err := e.mayHaveAlias(r, alias); err != nil {
		return nil, err
	}
	room, err := id.ParseRoomID(body.RoomID)
	if err != nil {
		return nil, mxerr.InvalidParam("%v", err)
	}
	_, err = e.Room.SetAlias(ctx, roomserver.SetAliasRequest{Alias: alias, RoomID: room, UserID: r.Caller.UserID,
		Service: r.Caller.AppService != ""})
	return nil, err
}

// deleteAlias is DELETE /directory/room/{roomAlias}.
func (e *endpoints) deleteAlias(ctx context.Context, r *httputil.Request) (any, error) {
	alias, err := roomAlias(r)
	if err != nil {
		return nil, err
	}
	if err := e.mayHaveAlias(r, alias); err != nil {
		return nil, err
	}
	// A service has full control over the aliases of its namespaces.
	_, err = e.Room.RemoveAlias(ctx, roomserver.RemoveAliasRequest{Alias: alias, UserID: r.Caller.UserID,
		Admin: r.Caller.Admin || r.Caller.AppService != ""})
	return nil, err
}

// roomAliases is GET /rooms/{roomId}/aliases.
func (e *endpoints) roomAliases(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	found, err := e.Room.QueryRoomAliases(ctx, roomserver.QueryRoomAliasesRequest{Viewer: viewer(r), RoomID: room})
	if err != nil {
		return nil, err
	}
	if found.Aliases == nil {
		found.Aliases = []id.RoomAlias{}
	}
	return httputil.Object{"aliases": found.Aliases}, nil
}

// published is GET /directory/list/room/{roomId}.
func (e *endpoints) published(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	found, err := e.Room.QueryPublished(ctx, roomserver.QueryPublishedRequest{RoomID: room})
	if err != nil {
		return nil, err
	}
	visibility := "private"
	if found.Published {
		visibility = "public"
	}
	return httputil.Object{"visibility": visibility}, nil
}

// putPublished is PUT /directory/list/room/{roomId}.
func (e *endpoints) putPublished(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	var body struct {
		Visibility string `json:"visibility"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if err := oneOf("visibility", body.Visibility, "public", "private"); err != nil {
		return nil, err
	}
	_, err = e.Room.PublishRoom(ctx, roomserver.PublishRoomRequest{RoomID: room, UserID: r.Caller.UserID, Publish: body.Visibility != "private",
		Admin: r.Caller.Admin})
	return nil, err
}

// maxNetwork is how long the id of a network may be, in bytes.
const maxNetwork = 255

// putPublishedIn is PUT and DELETE /directory/list/appservice/{networkId}/{roomId} (Application Service API, § Published room
// directories).
func (e *endpoints) putPublishedIn(ctx context.Context, r *httputil.Request) (any, error) {
	room, err := r.RoomID("roomID")
	if err != nil {
		return nil, err
	}
	network := r.Var("networkID")
	if network == "" || len(network) > maxNetwork {
		return nil, mxerr.InvalidParam("the id of a network has from 1 to %d bytes", maxNetwork)
	}
	if r.Caller.AppService == "" {
		return nil, mxerr.Forbidden("only application services have directories of networks")
	}
	visibility := "private"
	if r.Method == http.MethodPut {
		var body struct {
			Visibility string `json:"visibility"`
		}
		if err := r.JSON(&body); err != nil {
			return nil, err
		}
		if visibility = body.Visibility; visibility == "" {
			return nil, mxerr.MissingParam("visibility is missing: public or private")
		}
		if err := oneOf("visibility", visibility, "public", "private"); err != nil {
			return nil, err
		}
	}
	_, err = e.Room.PublishRoom(ctx, roomserver.PublishRoomRequest{RoomID: room, UserID: r.Caller.UserID, Publish: visibility == "public",
		Network: &roomserver.Network{Service: r.Caller.AppService, Network: network}})
	return nil, err
}

// networkOf is the network that a third_party_instance_id names: as GET /thirdparty/protocols has it, the id of a service, a
// bar, and the network's own id. The latter alone names the network of any service. Ids may have bars of their own: the
// longest one of a service counts.
func networkOf(services *registration.Set, instance string) *roomserver.Network {
	service, network, both := strings.Cut(instance, "|")
	if !both {
		return &roomserver.Network{Network: instance}
	}
	for _, r := range services.All() {
		if rest, is := strings.CutPrefix(instance, r.ID+"|"); is && len(r.ID) > len(service) {
			service, network = r.ID, rest
		}
	}
	return &roomserver.Network{Service: service, Network: network}
}

// publicRooms is GET /publicRooms.
func (e *endpoints) publicRooms(ctx context.Context, r *httputil.Request) (any, error) {
	n, err := limit(r, usualRooms, maxRooms)
	if err != nil {
		return nil, err
	}
	return e.listRooms(ctx, r, roomserver.QueryPublicRoomsRequest{Limit: n, Since: r.Query("since")})
}

// searchPublicRooms is POST /publicRooms.
func (e *endpoints) searchPublicRooms(ctx context.Context, r *httputil.Request) (any, error) {
	var body struct {
		Limit  *int   `json:"limit"`
		Since  string `json:"since"`
		Filter struct {
			GenericSearchTerm string    `json:"generic_search_term"`
			RoomTypes         []*string `json:"room_types"`
		} `json:"filter"`
		IncludeAllNetworks   bool   `json:"include_all_networks"`
		ThirdPartyInstanceID string `json:"third_party_instance_id"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.IncludeAllNetworks && body.ThirdPartyInstanceID != "" {
		return nil, mxerr.InvalidParam("third_party_instance_id has no sense with include_all_networks")
	}
	query := roomserver.QueryPublicRoomsRequest{Limit: usualRooms, Since: body.Since, Search: body.Filter.GenericSearchTerm}
	if body.Limit != nil {
		query.Limit = min(max(*body.Limit, 1), maxRooms)
	}
	if body.Filter.RoomTypes != nil {
		query.RoomTypes = make([]string, len(body.Filter.RoomTypes))
		for i, roomType := range body.Filter.RoomTypes {
			if roomType != nil {
				query.RoomTypes[i] = *roomType
			}
		}
	}
	query.AllNetworks = body.IncludeAllNetworks
	if body.ThirdPartyInstanceID != "" {
		query.Network = networkOf(e.Accounts.Registrations.Load(), body.ThirdPartyInstanceID)
	}
	// No database has a text with a NUL.
	if strings.ContainsRune(strings.Join(append(query.RoomTypes, query.Search, body.ThirdPartyInstanceID), ""), 0) {
		return httputil.Object{"chunk": []publicRoom{}, "total_room_count_estimate": 0}, nil
	}
	return e.listRooms(ctx, r, query)
}

type publicRoom struct {
	RoomID           id.RoomID    `json:"room_id"`
	Name             string       `json:"name,omitempty"`
	Topic            string       `json:"topic,omitempty"`
	AvatarURL        string       `json:"avatar_url,omitempty"`
	CanonicalAlias   id.RoomAlias `json:"canonical_alias,omitempty"`
	NumJoinedMembers int64        `json:"num_joined_members"`
	WorldReadable    bool         `json:"world_readable"`
	GuestCanJoin     bool         `json:"guest_can_join"`
	JoinRule         string       `json:"join_rule,omitempty"`
	RoomType         string       `json:"room_type,omitempty"`
}

func publicRoomOf(room *roomserver.RoomSummary) publicRoom {
	return publicRoom{RoomID: room.RoomID, Name: room.Name, Topic: room.Topic, AvatarURL: room.AvatarURL, CanonicalAlias: room.CanonicalAlias,
		NumJoinedMembers: room.Joined, WorldReadable: room.HistoryVisibility == "world_readable", GuestCanJoin: room.GuestAccess == roomserver.GuestsCanJoin,
		JoinRule: room.JoinRule, RoomType: room.RoomType}
}

func (e *endpoints) listRooms(ctx context.Context, r *httputil.Request, query roomserver.QueryPublicRoomsRequest) (any, error) {
	if server := r.Query("server"); server != "" && server != string(e.Config.ServerName) {
		return nil, mxerr.NotFound("the directory of %s cannot be reached from here", server)
	}
	page, err := e.Room.QueryPublicRooms(ctx, query)
	if err != nil {
		return nil, err
	}
	chunk := make([]publicRoom, len(page.Rooms))
	for i, room := range page.Rooms {
		chunk[i] = publicRoomOf(&room)
	}
	answer := httputil.Object{"chunk": chunk, "total_room_count_estimate": page.Total}
	if page.NextBatch != "" {
		answer["next_batch"] = page.NextBatch
	}
	if page.PrevBatch != "" {
		answer["prev_batch"] = page.PrevBatch
	}
	return answer, nil
}
