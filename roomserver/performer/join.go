package performer

import (
	"context"
	"net/http"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// authorisers is how many members of this server without a power level of their own are looked at for one who may invite.
const authorisers = 20

var keyCanonicalAlias = auth.Key{Type: "m.room.canonical_alias"}

// JoinRoom joins a local user to a room (Client-Server API, § Joining rooms).
func (p *Performer) JoinRoom(ctx context.Context, req api.JoinRoomRequest) (api.JoinRoomResponse, error) {
	roomID, err := p.resolve(ctx, req.RoomIDOrAlias)
	if err != nil {
		return api.JoinRoomResponse{}, err
	}
	var predecessor id.RoomID // may be read only when the room's worker is done
	_, err = p.Input.Local(ctx, roomID, req.RequestKey, func(ctx context.Context, v input.View) ([]input.Proto, id.EventID, error) {
		create, err := v.One(ctx, pdu.TypeCreate, "")
		if err != nil {
			return nil, "", err
		}
		if create != nil {
			if predecessor, err = id.ParseRoomID(state.ContentString(create.PDU, "predecessor.room_id")); err != nil {
				predecessor = "" // there is none, or no valid one
			}
		}
		return p.join(ctx, v, &req)
	})
	if err != nil {
		return api.JoinRoomResponse{}, err
	}
	return api.JoinRoomResponse{RoomID: roomID, Predecessor: predecessor}, nil
}

// resolve finds the room that an id or an alias stands for.
func (p *Performer) resolve(ctx context.Context, idOrAlias string) (id.RoomID, error) {
	if len(idOrAlias) > 0 && idOrAlias[0] == '!' {
		roomID, err := id.ParseRoomID(idOrAlias)
		if err != nil {
			return "", mxerr.InvalidParam("%v", err)
		}
		return roomID, nil
	}
	alias, err := id.ParseRoomAlias(idOrAlias)
	if err != nil {
		return "", mxerr.InvalidParam("%q is neither a room id nor an alias", idOrAlias)
	}
	if alias.Server() != p.ServerName {
		return "", mxerr.NotFound("the alias %s is not one of this server, which reaches no other servers yet", alias)
	}
	found, err := p.Storage.Alias(ctx, alias)
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", mxerr.NotFound("there is no alias %s", alias)
	}
	return found.RoomID, nil
}

func (p *Performer) join(ctx context.Context, v input.View, req *api.JoinRoomRequest) ([]input.Proto, id.EventID, error) {
	now, err := v.One(ctx, pdu.TypeMember, string(req.UserID))
	if err != nil {
		return nil, "", err
	}
	if now != nil && now.PDU.Membership() == join {
		return nil, now.PDU.ID(), nil
	}
	content := memberContent{Membership: join, Reason: req.Reason}.with(req.Profile)
	if content.Authoriser, err = p.mayJoin(ctx, v, now, req.UserID, req.Guest); err != nil {
		return nil, "", err
	}
	proto, err := member(req.UserID, req.UserID, content, req.Timestamp)
	proto.DeviceID = req.DeviceID
	return []input.Proto{proto}, "", err
}

// mayJoin applies what servers decide of a join of their own users: whether guests may, and who authorises it where the room is
// restricted and the user, whose member event now is, is not invited.
func (p *Performer) mayJoin(ctx context.Context, v input.View, now *storage.Event, user id.UserID, guest bool) (authoriser id.UserID, err error) {
	if guest {
		access, err := v.One(ctx, typeGuestAccess, "")
		if err != nil {
			return "", err
		}
		if access == nil || state.ContentString(access.PDU, "guest_access") != api.GuestsCanJoin {
			return "", mxerr.New(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests may not join this room")
		}
	}
	if now != nil && now.PDU.Membership() == invite {
		return "", nil
	}
	return p.authoriser(ctx, v, user)
}

// authoriser finds who authorises a join of a restricted room: a local member who may invite, if the user is in one of the rooms
// that the join rules name (§ Restricted rooms). It is empty where nobody is needed.
func (p *Performer) authoriser(ctx context.Context, v input.View, user id.UserID) (id.UserID, error) {
	rules, err := v.One(ctx, pdu.TypeJoinRules, "")
	if err != nil || rules == nil {
		return "", err
	}
	switch state.ContentString(rules.PDU, "join_rule") {
	case "restricted", "knock_restricted":
	default:
		return "", nil
	}
	allowed, err := p.allowed(ctx, rules.PDU, user)
	if err != nil {
		return "", err
	}
	if !allowed {
		return "", mxerr.Forbidden("this room is for the members of other rooms, and you are in none of them")
	}
	levels, err := input.PowerLevels(ctx, v)
	if err != nil {
		return "", err
	}
	var named []auth.Key
	for _, u := range levels.Named() {
		if u.Server() == p.ServerName && levels.User(u) >= levels.Invite() {
			named = append(named, auth.Key{Type: pdu.TypeMember, StateKey: string(u)})
		}
	}
	members, err := v.State(ctx, named...)
	if err != nil {
		return "", err
	}
	for _, k := range named {
		if m := members[k]; m != nil && m.PDU.Membership() == join {
			return id.UserID(k.StateKey), nil
		}
	}
	others, err := p.Storage.JoinedOfServer(ctx, v.Room().NID, p.ServerName, "", authorisers)
	if err != nil {
		return "", err
	}
	for _, u := range others {
		if levels.User(u) >= levels.Invite() {
			return u, nil
		}
	}
	return "", mxerr.New(http.StatusBadRequest, "M_UNABLE_TO_GRANT_JOIN", "no user of this server may invite to this room")
}

// allowed tells whether a user fulfils one of the conditions of restricted join rules.
func (p *Performer) allowed(ctx context.Context, rules *pdu.Event, user id.UserID) (bool, error) {
	rooms, err := p.Storage.UserRooms(ctx, user)
	if err != nil {
		return false, err
	}
	joined := make(map[id.RoomID]bool, len(rooms))
	for _, r := range rooms {
		joined[r.RoomID] = r.Membership == join
	}
	return slices.ContainsFunc(state.AllowedRooms(rules), func(room id.RoomID) bool { return joined[room] }), nil
}
