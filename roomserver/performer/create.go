package performer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
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
	"github.com/matrix-org/dendrite/roomserver/storage"
)

type preset struct {
	joinRule, visibility, guestAccess string
	trusted                           bool
}

// presets of § Creation.
func presetOf(req *api.CreateRoomRequest) (preset, error) {
	name := req.Preset
	if name == "" {
		name = "private_chat"
		if req.Visibility == "public" {
			name = "public_chat"
		}
	}
	switch name {
	case "private_chat":
		return preset{"invite", "shared", api.GuestsCanJoin, false}, nil
	case "trusted_private_chat":
		return preset{"invite", "shared", api.GuestsCanJoin, true}, nil
	case "public_chat":
		return preset{"public", "shared", "forbidden", false}, nil
	}
	return preset{}, mxerr.BadJSON("preset must be private_chat, trusted_private_chat or public_chat, not %q", name)
}

// maxInitialState limits how many events initial_state may have.
const maxInitialState = 1000

// CreateRoom makes a room with its first events (Client-Server API, § Creation).
func (p *Performer) CreateRoom(ctx context.Context, req api.CreateRoomRequest) (api.CreateRoomResponse, error) {
	version := req.RoomVersion
	if version == "" {
		version = p.DefaultVersion
	}
	props, known := roomversion.Get(version)
	if !known {
		return api.CreateRoomResponse{}, unknownVersion(version)
	}
	preset, err := presetOf(&req)
	if err != nil {
		return api.CreateRoomResponse{}, err
	}
	for _, user := range req.Invite {
		if user.Server() != p.ServerName {
			return api.CreateRoomResponse{}, notFederated(user)
		}
	}
	if len(req.Invite) > api.MaxInvites {
		return api.CreateRoomResponse{}, mxerr.InvalidParam("at most %d users can be invited when a room is created",
			api.MaxInvites)
	}
	if n := len(req.InitialState); n > maxInitialState {
		return api.CreateRoomResponse{}, mxerr.InvalidParam(
			"initial_state has %d events, and may have %d: send the others when the room is there", n, maxInitialState)
	}
	var roomID id.RoomID
	if !props.RoomIDIsCreateHash {
		roomID = id.RoomID("!" + rand.Text() + ":" + string(p.ServerName))
	}
	alias, err := p.newAlias(ctx, &req, roomID)
	if err != nil {
		return api.CreateRoomResponse{}, err
	}
	if req.Visibility == "public" && !p.MayPublish(req.Creator, roomID, "") {
		return api.CreateRoomResponse{}, mxerr.Forbidden("this server does not let you publish a room: create it with visibility private")
	}
	protos, err := creation(&req, props, preset, alias)
	if err != nil {
		return api.CreateRoomResponse{}, err
	}
	if req.Timestamp == 0 {
		req.Timestamp = time.Now().UnixMilli()
	}
	for i := range protos {
		protos[i].OriginServerTS, protos[i].DeviceID = req.Timestamp, req.DeviceID
	}
	roomID, err = p.Input.Create(ctx, version, roomID, req.RequestKey, protos, func(ctx context.Context, tx *sqlutil.Tx, room *storage.Room) error {
		if alias != "" {
			if err := p.Storage.InsertAlias(ctx, tx, storage.Alias{Alias: alias, RoomID: room.ID, Creator: req.Creator}); err != nil {
				return err
			}
		}
		if req.Visibility == "public" {
			return p.Storage.Publish(ctx, tx, room.NID, true)
		}
		return nil
	})
	if err != nil {
		return api.CreateRoomResponse{}, p.creationError(ctx, alias, err)
	}
	return api.CreateRoomResponse{RoomID: roomID}, nil
}

// creationError names what is wrong with a room that could not be created.
func (p *Performer) creationError(ctx context.Context, alias id.RoomAlias, err error) error {
	if refused, is := errors.AsType[*auth.Error](err); is {
		return mxerr.New(http.StatusBadRequest, "M_INVALID_ROOM_STATE", "the room's first events are not allowed: %v", refused)
	}
	if alias == "" || !sqlutil.IsUniqueViolation(err) {
		return err
	}
	if taken, readErr := p.Storage.Alias(ctx, alias); readErr == nil && taken != nil {
		return aliasTaken(alias)
	}
	return err
}

func aliasTaken(alias id.RoomAlias) error {
	return mxerr.New(http.StatusBadRequest, "M_ROOM_IN_USE", "the alias %s is taken", alias)
}

func notFederated(user id.UserID) error {
	return mxerr.New(http.StatusBadGateway, "M_UNREACHABLE", "%s is not a user of this server, which reaches no other servers yet", user)
}

func (p *Performer) newAlias(ctx context.Context, req *api.CreateRoomRequest, room id.RoomID) (id.RoomAlias, error) {
	if req.AliasLocalpart == "" {
		return "", nil
	}
	if strings.Contains(req.AliasLocalpart, ":") {
		return "", mxerr.InvalidParam("room_alias_name is the part before the colon, without a server")
	}
	alias, err := id.ParseRoomAlias("#" + req.AliasLocalpart + ":" + string(p.ServerName))
	if err != nil {
		return "", mxerr.InvalidParam("room_alias_name: %v", err)
	}
	if !p.MayPublish(req.Creator, room, alias) {
		return "", mxerr.Forbidden("this server does not let you create the alias %s", alias)
	}
	taken, err := p.Storage.Alias(ctx, alias)
	if err != nil {
		return "", err
	}
	if taken != nil {
		// A repeated request finds its own alias: the request key tells the two apart.
		if earlier, err := p.Input.RoomOfRequest(ctx, req.RequestKey); err != nil || earlier == "" {
			return "", errors.Join(err, aliasTaken(alias))
		}
	}
	return alias, nil
}

// creation lists the first events of a room in the order of § Creation.
func creation(req *api.CreateRoomRequest, props *roomversion.Properties, preset preset, alias id.RoomAlias) ([]input.Proto, error) {
	var protos []input.Proto
	var failed error
	add := func(eventType, stateKey string, content any) {
		proto, err := stateProto(req.Creator, eventType, stateKey, content, 0)
		failed = errors.Join(failed, err)
		protos = append(protos, proto)
	}
	create, err := createContent(req, props, preset)
	if err != nil {
		return nil, err
	}
	levels, err := powerLevels(req, props, preset)
	if err != nil {
		return nil, err
	}
	add(pdu.TypeCreate, "", create)
	add(pdu.TypeMember, string(req.Creator), memberContent{Membership: join}.with(req.Profiles[req.Creator]))
	add(pdu.TypePowerLevels, "", levels)
	if alias != "" {
		add("m.room.canonical_alias", "", map[string]any{"alias": alias})
	}
	for _, e := range []struct{ eventType, key, value string }{
		{pdu.TypeJoinRules, "join_rule", preset.joinRule},
		{"m.room.history_visibility", "history_visibility", preset.visibility},
		{typeGuestAccess, "guest_access", preset.guestAccess},
	} {
		if !slices.ContainsFunc(req.InitialState, func(s api.InitialState) bool { return s.Type == e.eventType && s.StateKey == "" }) {
			add(e.eventType, "", map[string]any{e.key: e.value})
		}
	}
	for _, s := range req.InitialState {
		if s.Type == pdu.TypeCreate || s.Type == pdu.TypeMember {
			return nil, mxerr.New(http.StatusBadRequest, "M_INVALID_ROOM_STATE", "initial_state cannot have %s", s.Type)
		}
		add(s.Type, s.StateKey, s.Content)
	}
	if req.Name != "" {
		add("m.room.name", "", map[string]any{"name": req.Name})
	}
	if req.Topic != "" {
		add("m.room.topic", "", map[string]any{"topic": req.Topic,
			"m.topic": map[string]any{"m.text": []any{map[string]any{"body": req.Topic}}}})
	}
	for _, user := range unique(req.Invite) {
		if user != req.Creator {
			add(pdu.TypeMember, string(user), memberContent{Membership: invite, IsDirect: req.IsDirect}.with(req.Profiles[user]))
		}
	}
	return protos, failed
}

func unique(users []id.UserID) []id.UserID {
	users = slices.Clone(users)
	slices.Sort(users)
	return slices.Compact(users)
}

func createContent(req *api.CreateRoomRequest, props *roomversion.Properties, preset preset) (map[string]any, error) {
	content := map[string]any{}
	if len(req.CreationContent) > 0 {
		if err := unmarshalNumbers(req.CreationContent, &content); err != nil {
			return nil, mxerr.BadJSON("creation_content must be an object: %v", err)
		}
	}
	content["room_version"] = props.Version
	delete(content, "creator")
	if props.CreatorInContent {
		content["creator"] = req.Creator
	}
	if !props.PrivilegedCreators {
		return content, nil
	}
	var creators []id.UserID
	if given, has := content["additional_creators"]; has {
		list, is := given.([]any)
		if !is {
			return nil, mxerr.BadJSON("creation_content.additional_creators must be an array")
		}
		for _, u := range list {
			s, _ := u.(string)
			user, err := id.ParseUserID(s)
			if err != nil {
				return nil, mxerr.BadJSON("creation_content.additional_creators: %v", err)
			}
			creators = append(creators, user)
		}
	}
	if preset.trusted {
		creators = append(creators, req.Invite...)
	}
	creators = slices.DeleteFunc(unique(creators), func(u id.UserID) bool { return u == req.Creator })
	delete(content, "additional_creators")
	if len(creators) > 0 {
		content["additional_creators"] = creators
	}
	return content, nil
}

func powerLevels(req *api.CreateRoomRequest, props *roomversion.Properties, preset preset) (map[string]any, error) {
	users := map[string]any{}
	tombstone := 150
	if !props.PrivilegedCreators {
		tombstone = 100
		users[string(req.Creator)] = 100
		if preset.trusted {
			for _, user := range req.Invite {
				users[string(user)] = 100
			}
		}
	}
	content := map[string]any{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0,
		"events": map[string]any{
			"m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50, pdu.TypePowerLevels: 100, "m.room.history_visibility": 100,
			"m.room.server_acl": 100, "m.room.encryption": 100, "m.room.tombstone": tombstone,
		},
	}
	if len(req.PowerLevels) == 0 {
		return content, nil
	}
	override := map[string]any{}
	if err := unmarshalNumbers(req.PowerLevels, &override); err != nil {
		return nil, mxerr.BadJSON("power_level_content_override must be an object: %v", err)
	}
	for key, value := range override {
		content[key] = value
	}
	if props.PrivilegedCreators {
		guardTombstone(content, tombstone)
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	return content, checkLevels(raw)
}

// guardTombstone keeps the level for replacing the room above that of other state events, where the client has given levels of events
// without it (§ Creation).
func guardTombstone(content map[string]any, level int) {
	events, is := content["events"].(map[string]any)
	if _, given := events["m.room.tombstone"]; !is || given {
		return
	}
	if n, is := content["state_default"].(json.Number); is {
		if usual, err := n.Int64(); err == nil && usual < math.MaxInt32 {
			level = max(level, int(usual)+1)
		}
	}
	events["m.room.tombstone"] = level
}

// unmarshalNumbers keeps numbers as they are written.
func unmarshalNumbers(raw []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	return d.Decode(into)
}
