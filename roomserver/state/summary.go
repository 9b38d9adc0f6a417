package state

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

var summaryTypes = []string{pdu.TypeCreate, pdu.TypeJoinRules, "m.room.name", "m.room.topic", "m.room.avatar", "m.room.canonical_alias",
	"m.room.guest_access", "m.room.encryption"}

// InSummary tells whether a room's summary is made from the state events of this type.
func InSummary(eventType string) bool { return slices.Contains(summaryTypes, eventType) }

// SummaryKeys are the entries of the state that a summary is made from.
func SummaryKeys() []auth.Key {
	keys := make([]auth.Key, len(summaryTypes))
	for i, t := range summaryTypes {
		keys[i].Type = t
	}
	return keys
}

// ContentString is a string of an event's content; empty if it is absent or no string.
func ContentString(e *pdu.Event, path string) string {
	if v := gjson.GetBytes(e.Content(), path); v.Type == gjson.String {
		return v.Str
	}
	return ""
}

// AllowedRooms are the rooms whose members may join a room with restricted join rules (Client-Server API, § Restricted rooms).
func AllowedRooms(joinRules *pdu.Event) (rooms []id.RoomID) {
	allow := gjson.GetBytes(joinRules.Content(), "allow")
	if !allow.IsArray() {
		return nil
	}
	for _, condition := range allow.Array() {
		if room, err := id.ParseRoomID(condition.Get("room_id").Str); err == nil && condition.Get("type").Str == "m.room_membership" {
			rooms = append(rooms, room)
		}
	}
	return rooms
}

// Summarize makes the part of a room's summary that comes from its state.
func Summarize(entries map[auth.Key]*storage.Event) *api.RoomSummary {
	get := func(eventType, path string) string {
		e := entries[auth.Key{Type: eventType}]
		if e == nil {
			return ""
		}
		// Events may have a NUL, which no text column of Postgres keeps.
		return strings.ReplaceAll(ContentString(e.PDU, path), "\x00", "")
	}
	s := &api.RoomSummary{
		Name: get("m.room.name", "name"), Topic: get("m.room.topic", "topic"), AvatarURL: get("m.room.avatar", "url"),
		CanonicalAlias: id.RoomAlias(get("m.room.canonical_alias", "alias")), JoinRule: get(pdu.TypeJoinRules, "join_rule"),
		GuestAccess: get("m.room.guest_access", "guest_access"), RoomType: get(pdu.TypeCreate, "type"), Encryption: get("m.room.encryption", "algorithm"),
	}
	if s.JoinRule == "" {
		s.JoinRule = "invite"
	}
	if create := entries[auth.Key{Type: pdu.TypeCreate}]; create != nil {
		s.Creator = create.PDU.Sender()
	}
	return s
}
