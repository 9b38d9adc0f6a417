package performer

import (
	"context"
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/state"
)

// maxMembers is more members than a room has.
const maxMembers = 1_000_000

var keyCanonicalAlias = auth.Key{Type: "m.room.canonical_alias"}

// JoinRoom joins a local user to a room (Client-Server API, § Joining rooms).
func (p *Performer) JoinRoom(ctx context.Context, req api.JoinRoomRequest) (api.JoinRoomResponse, error) {
	roomID, err := p.resolve(ctx, req.RoomIDOrAlias)
	if err != nil {
		return api.JoinRoomResponse{}, err
	}
	_, err = p.Input.Local(ctx, roomID, req.RequestKey, func(ctx context.Context, v input.View) ([]input.Proto, id.EventID, error) {
		return p.join(ctx, v, &req)
	})
	return api.JoinRoomResponse{RoomID: roomID}, err
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
	if req.Guest {
		access, err := v.One(ctx, "m.room.guest_access", "")
		if err != nil {
			return nil, "", err
		}
		if access == nil || state.ContentString(access.PDU, "guest_access") != "can_join" {
			return nil, "", mxerr.New(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "guests may not join this room")
		}
	}
	content := memberContent{Membership: join, Reason: req.Reason}.with(req.Profile)
	if now == nil || now.PDU.Membership() != invite {
		if content.Authoriser, err = p.authoriser(ctx, v, req.UserID); err != nil {
			return nil, "", err
		}
	}
	proto, err := member(req.UserID, req.UserID, content, req.Timestamp)
	proto.DeviceID = req.DeviceID
	return []input.Proto{proto}, "", err
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
	members, err := p.Storage.Members(ctx, v.Room().NID, []string{join}, maxMembers)
	if err != nil {
		return "", err
	}
	for _, m := range members {
		if m.UserID.Server() == p.ServerName && levels.User(m.UserID) >= levels.Invite() {
			return m.UserID, nil
		}
	}
	return "", mxerr.New(http.StatusBadRequest, "M_UNABLE_TO_GRANT_JOIN", "no user of this server may invite to this room")
}

// allowed tells whether a user fulfils one of the conditions of restricted join rules.
func (p *Performer) allowed(ctx context.Context, rules *pdu.Event, user id.UserID) (bool, error) {
	for _, condition := range gjson.GetBytes(rules.Content(), "allow").Array() {
		if condition.Get("type").Str != "m.room_membership" {
			continue
		}
		room, err := p.Reader.Room(ctx, id.RoomID(condition.Get("room_id").Str))
		if err != nil {
			return false, err
		}
		if room == nil {
			continue
		}
		m, err := p.Storage.Membership(ctx, room.NID, user)
		if err != nil || m.Membership == join {
			return err == nil, err
		}
	}
	return false, nil
}
