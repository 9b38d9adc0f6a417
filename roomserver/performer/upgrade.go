package performer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	typeTombstone  = "m.room.tombstone"
	typeSpaceChild = "m.space.child"
)

// transferred are the types of state events that a replacement room gets from its predecessor (§ Room Upgrades, step 3), besides
// m.room.power_levels, the children of a space, and bans.
var transferred = []string{"m.room.server_acl", "m.room.encryption", "m.room.name", "m.room.avatar", "m.room.topic", typeGuestAccess,
	"m.room.history_visibility", pdu.TypeJoinRules, "m.room.canonical_alias"}

// upgrade is a room that is being replaced.
type upgrade struct {
	req    *api.UpgradeRoomRequest
	props  *roomversion.Properties // of the new room
	room   *storage.Room
	state  map[auth.Key]*storage.Event
	levels *auth.PowerLevels
}

// UpgradeRoom replaces a room by one of another version (Client-Server API, § Room Upgrades). It is done in two commits: that of the
// new room, with what moves to it, and that of the old room's last events. A call that is repeated goes on where an earlier one ended.
func (p *Performer) UpgradeRoom(ctx context.Context, req api.UpgradeRoomRequest) (res api.UpgradeRoomResponse, err error) {
	u := &upgrade{req: &req}
	known := false
	if u.props, known = roomversion.Get(req.NewVersion); !known {
		return res, unknownVersion(req.NewVersion)
	}
	if err := p.readUpgrade(ctx, u); err != nil {
		return res, err
	}
	protos, err := p.replacement(ctx, u)
	if err != nil {
		return res, err
	}
	published, err := p.Storage.Published(ctx, u.room.NID)
	if err != nil {
		return res, err
	}
	var roomID id.RoomID
	if !u.props.RoomIDIsCreateHash {
		roomID = id.RoomID("!" + rand.Text() + ":" + string(p.ServerName))
	}
	key := api.RequestKey(fmt.Sprintf("upgrade %q %q %q %q", req.RoomID, req.UserID, req.NewVersion, unique(req.AdditionalCreators)))
	res.RoomID, err = p.Input.Create(ctx, req.NewVersion, roomID, key, protos, func(ctx context.Context, tx *sqlutil.Tx, room *storage.Room) error {
		if err := p.Storage.MoveNetworks(ctx, tx, u.room.NID, room.NID); err != nil {
			return err
		}
		if err := p.Storage.MoveAliases(ctx, tx, req.RoomID, room.ID); err != nil || !published {
			return err
		}
		if err := p.Storage.Publish(ctx, tx, u.room.NID, false); err != nil {
			return err
		}
		return p.Storage.Publish(ctx, tx, room.NID, true)
	})
	if err != nil {
		return res, p.creationError(ctx, "", err)
	}
	_, err = p.Input.Local(ctx, req.RoomID, key, func(ctx context.Context, v input.View) ([]input.Proto, id.EventID, error) {
		return lastEvents(ctx, v, &req, res.RoomID)
	})
	return res, err
}

func unknownVersion(version id.RoomVersion) error {
	return mxerr.New(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "this server does not know room version %q", version)
}

// readUpgrade reads what the upgrade carries over, and checks that the user may send the tombstone (steps 1 and 2).
func (p *Performer) readUpgrade(ctx context.Context, u *upgrade) (err error) {
	if u.room, err = p.Reader.Room(ctx, u.req.RoomID); err != nil {
		return err
	}
	forbidden := mxerr.Forbidden("you are not in the room %s", u.req.RoomID)
	if u.room == nil {
		return forbidden
	}
	self := auth.Key{Type: pdu.TypeMember, StateKey: string(u.req.UserID)}
	keys := []auth.Key{self, {Type: pdu.TypeCreate}, {Type: pdu.TypePowerLevels}}
	for _, t := range transferred {
		keys = append(keys, auth.Key{Type: t})
	}
	if u.state, err = p.Reader.Get(ctx, u.room.NID, u.room.Root, keys); err != nil {
		return err
	}
	if m := u.state[self]; m == nil || m.PDU.Membership() != join {
		return forbidden
	}
	u.levels = auth.LevelsFrom(u.body(pdu.TypeCreate), u.body(pdu.TypePowerLevels))
	if own, needed := u.levels.User(u.req.UserID), u.levels.Event(typeTombstone, true); own < needed {
		return mxerr.Forbidden("upgrading the room needs power level %d for %s, yours is %d", needed, typeTombstone, own)
	}
	return nil
}

func (u *upgrade) body(eventType string) *pdu.Event {
	if e := u.state[auth.Key{Type: eventType}]; e != nil {
		return e.PDU
	}
	return nil
}

// replacement lists the first events of the new room.
func (p *Performer) replacement(ctx context.Context, u *upgrade) ([]input.Proto, error) {
	req := u.req
	var protos []input.Proto
	add := func(eventType, stateKey string, content any) error {
		proto, err := stateProto(req.UserID, eventType, stateKey, content, time.Now().UnixMilli())
		if err == nil {
			if _, err = pdu.CanonicalJSON(u.props.Version, proto.Content); err != nil {
				err = mxerr.BadJSON("the room's %s cannot be part of a room of version %s: %v", eventType, u.props.Version, err)
			}
		}
		proto.DeviceID = req.DeviceID
		protos = append(protos, proto)
		return err
	}
	create, err := u.createContent()
	if err != nil {
		return nil, err
	}
	first, final, err := u.newLevels()
	if err != nil {
		return nil, err
	}
	if err := add(pdu.TypeCreate, "", create); err != nil {
		return nil, err
	}
	if err := add(pdu.TypeMember, string(req.UserID), memberContent{Membership: join}.with(req.Profile)); err != nil {
		return nil, err
	}
	if err := add(pdu.TypePowerLevels, "", first); err != nil {
		return nil, err
	}
	for _, t := range transferred {
		if e := u.body(t); e != nil && len(e.Content()) > len("{}") {
			if err := add(t, "", u.adapted(e)); err != nil {
				return nil, err
			}
		}
	}
	others, err := p.alsoTransferred(ctx, u)
	if err != nil {
		return nil, err
	}
	for _, e := range others {
		stateKey, _ := e.PDU.StateKey()
		content := any(e.PDU.Content())
		if e.PDU.Type() == pdu.TypeMember {
			content = memberContent{Membership: ban, Reason: state.ContentString(e.PDU, "reason")}
		}
		if err := add(e.PDU.Type(), stateKey, content); err != nil {
			return nil, err
		}
	}
	if final != nil {
		err = add(pdu.TypePowerLevels, "", final)
	}
	return protos, err
}

// createContent is that of the new room's m.room.create (step 2). The additional creators are those of the request only.
func (u *upgrade) createContent() (map[string]any, error) {
	old := u.body(pdu.TypeCreate)
	last := u.room.Extremities[len(u.room.Extremities)-1].EventID
	content := map[string]any{"room_version": u.props.Version, "predecessor": map[string]any{"room_id": u.req.RoomID, "event_id": last}}
	for _, name := range []string{"type", "m.federate"} {
		if value := pdu.Member(old.Content(), name); value != nil {
			content[name] = json.RawMessage(value)
		}
	}
	if u.props.CreatorInContent {
		content["creator"] = u.req.UserID
	}
	if u.props.PrivilegedCreators {
		creators := slices.DeleteFunc(unique(u.req.AdditionalCreators), func(user id.UserID) bool { return user == u.req.UserID })
		if len(creators) > 0 {
			content["additional_creators"] = creators
		}
	}
	return content, nil
}

// newLevels are the power levels with which the new room begins, so that the user may send what follows, and those that it gets in the
// end; nil if they are the same.
func (u *upgrade) newLevels() (first, final map[string]any, err error) {
	if e := u.body(pdu.TypePowerLevels); e != nil {
		if err := unmarshalNumbers(e.Content(), &final); err != nil {
			return nil, nil, mxerr.BadJSON("the room's power levels: %v", err)
		}
	} else if final, err = defaultLevels(u.req.UserID, u.props); err != nil {
		return nil, nil, err
	}
	highest := integers(final, 100)
	users, _ := final["users"].(map[string]any)
	if users == nil {
		users = make(map[string]any)
		final["users"] = users
	}
	old := u.body(pdu.TypeCreate)
	if u.props.PrivilegedCreators {
		// The creators have all power, and may not be named.
		delete(users, string(u.req.UserID))
		for _, user := range u.req.AdditionalCreators {
			delete(users, string(user))
		}
		return final, nil, nil
	}
	if old.Properties().PrivilegedCreators {
		// What only creators could do, nobody could any more.
		for _, user := range auth.Creators(old) {
			users[string(user)] = highest
		}
	}
	first = maps.Clone(final)
	raised := maps.Clone(users)
	raised[string(u.req.UserID)] = highest
	first["users"] = raised
	if level, has := users[string(u.req.UserID)]; has && level == any(highest) {
		return final, nil, nil
	}
	return first, final, nil
}

func defaultLevels(creator id.UserID, props *roomversion.Properties) (levels map[string]any, err error) {
	content, err := powerLevels(&api.CreateRoomRequest{Creator: creator}, props, preset{})
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return levels, unmarshalNumbers(raw, &levels)
}

// integers makes integers of the power levels that older room versions take for such, drops those that are none, and finds the highest.
func integers(levels map[string]any, highest int64) int64 {
	for name, value := range levels {
		switch v := value.(type) {
		case map[string]any:
			highest = integers(v, highest)
			continue
		case json.Number:
			value = string(v)
		}
		text, _ := value.(string)
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			delete(levels, name)
			continue
		}
		levels[name] = n
		highest = max(highest, n)
	}
	return highest
}

// adapted is the content of a state event in the new room.
func (u *upgrade) adapted(e *pdu.Event) any {
	rule := state.ContentString(e, "join_rule")
	if e.Type() == pdu.TypeJoinRules && (rule == "knock" && !u.props.Knock || rule == "restricted" && !u.props.Restricted ||
		rule == "knock_restricted" && !u.props.KnockRestricted) {
		return map[string]any{"join_rule": invite} // the rule does not exist there
	}
	return e.Content()
}

// The bans and children that one upgrade carries over are bounded in number, the children also in bytes.
const (
	maxTransferred      = 5000
	maxTransferredBytes = 16 << 20
)

// alsoTransferred are the member events of those who are banned, and if the room is a space its children.
func (p *Performer) alsoTransferred(ctx context.Context, u *upgrade) ([]*storage.Event, error) {
	banned, err := p.Storage.Banned(ctx, u.room.NID, maxTransferred)
	if err != nil {
		return nil, err
	}
	keys := make([]auth.Key, len(banned))
	for i, user := range banned {
		keys[i] = auth.Key{Type: pdu.TypeMember, StateKey: string(user)}
	}
	found, err := p.Reader.Get(ctx, u.room.NID, u.room.Root, keys)
	if err != nil {
		return nil, err
	}
	var all []*storage.Event
	for _, k := range keys {
		if e := found[k]; e != nil && e.PDU.Membership() == ban {
			all = append(all, e)
		}
	}
	if state.ContentString(u.body(pdu.TypeCreate), "type") != "m.space" {
		return all, nil
	}
	nids, err := p.Reader.Entries(ctx, u.room.NID, u.room.Root, statetrie.Others)
	if err != nil {
		return nil, err
	}
	bytes := 0
	err = p.Reader.Scan(ctx, nids, func(e *storage.Event) {
		if e.PDU.Type() != typeSpaceChild || len(e.PDU.Content()) <= len("{}") || len(all) >= maxTransferred {
			return
		}
		if bytes += e.Size(); bytes <= maxTransferredBytes {
			all = append(all, e)
		}
	})
	return all, err
}

// lastEvents are those of the old room: the tombstone, and as far as the user may, no alias any more and levels that keep others from
// going on (steps 5 and 6).
func lastEvents(ctx context.Context, v input.View, req *api.UpgradeRoomRequest, replacement id.RoomID) ([]input.Proto, id.EventID, error) {
	create, levels, alias, tombstone := auth.Key{Type: pdu.TypeCreate}, auth.Key{Type: pdu.TypePowerLevels}, keyCanonicalAlias, auth.Key{Type: typeTombstone}
	found, err := v.State(ctx, create, levels, alias, tombstone)
	if err != nil {
		return nil, "", err
	}
	if e := found[tombstone]; e != nil && state.ContentString(e.PDU, "replacement_room") == string(replacement) {
		return nil, e.PDU.ID(), nil
	}
	var protos []input.Proto
	add := func(eventType string, content any) error {
		proto, err := stateProto(req.UserID, eventType, "", content, 0)
		proto.DeviceID = req.DeviceID
		protos = append(protos, proto)
		return err
	}
	if err := add(typeTombstone, map[string]any{"body": "This room has been replaced", "replacement_room": replacement}); err != nil {
		return nil, "", err
	}
	var body *pdu.Event
	if found[levels] != nil {
		body = found[levels].PDU
	}
	now := auth.LevelsFrom(found[create].PDU, body)
	own := now.User(req.UserID)
	if e := found[alias]; e != nil && len(e.PDU.Content()) > len("{}") && own >= now.Event(alias.Type, true) {
		if err := add(alias.Type, map[string]any{}); err != nil {
			return nil, "", err
		}
	}
	if body == nil || own < now.Event(levels.Type, true) {
		return protos, "", nil
	}
	content := make(map[string]any)
	if err := unmarshalNumbers(body.Content(), &content); err != nil {
		return nil, "", err
	}
	usual := int64(0)
	if n, err := strconv.ParseInt(fmt.Sprint(content["users_default"]), 10, 64); err == nil {
		usual = n
	}
	quiet, changed := max(50, usual+1), false
	for name, level := range map[string]int64{"events_default": now.Event("", false), "invite": now.Invite()} {
		if level < quiet && own >= quiet {
			content[name], changed = quiet, true
		}
	}
	if changed {
		err = add(levels.Type, content)
	}
	return protos, "", err
}
