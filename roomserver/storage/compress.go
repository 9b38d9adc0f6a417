package storage

import (
	"bytes"
	"errors"
	"strings"

	"github.com/klauspost/compress/s2"

	"github.com/matrix-org/dendrite/common/id"
)

// Events are stored as a byte that says how, and their JSON, its base64 folded, as an S2 block with a dictionary of what events say again
// and again: little more than half of the room, for some four microseconds. What begins with '{' is the JSON itself.

// dictionary1 must stay as it is for as long as there are events that were stored with it: another is another byte.
const dictionary1 = `m.megolm.v1.aes-sha2","ciphertext":"","device_id":"","sender_key":"","session_id":"` +
	`{"auth_events":["$"],"content":{"creator":"@","m.federate":true,"predecessor":{"event_id":"$","room_id":"!"},"room_version":"10","type":"m.space"},"depth":1,"type":"m.room.create"` +
	`{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,"m.room.tombstone":100},"events_default":0,"historical":100,"invite":0,"kick":50,"notifications":{"room":50},"redact":50,"state_default":50,"users":{"@":100},"users_default":0},"state_key":"","type":"m.room.power_levels"` +
	`"content":{"guest_access":"can_join"},"type":"m.room.guest_access"` +
	`"content":{"history_visibility":"shared"},"type":"m.room.history_visibility"` +
	`"content":{"allow":[{"room_id":"!","type":"m.room_membership"}],"join_rule":"public"},"join_rule":"invite"},"type":"m.room.join_rules"` +
	`"content":{"alias":"#"},"type":"m.room.canonical_alias"` + `"content":{"topic":""},"type":"m.room.topic"` + `"content":{"name":""},"type":"m.room.name"` +
	`"content":{"algorithm":"m.megolm.v1.aes-sha2"},"type":"m.room.encryption"` + `"content":{"suggested":false,"via":["matrix.org"]},"type":"m.space.child"` +
	`{"m.relates_to":{"event_id":"$","key":"👍️","rel_type":"m.annotation"}},"type":"m.reaction"` +
	`{"content":{"reason":""},"redacts":"$","type":"m.room.redaction","unsigned":{}` +
	`"m.new_content":{"body":"","m.mentions":{},"msgtype":"m.text"},"m.relates_to":{"event_id":"$","rel_type":"m.replace"},` +
	`"info":{"h":600,"mimetype":"image/png","size":100000,"thumbnail_info":{"h":600,"mimetype":"image/jpeg","size":10000,"w":800},"thumbnail_url":"mxc://","w":800,"xyz.amorgan.blurhash":""},"msgtype":"m.image","msgtype":"m.notice","url":"mxc://` +
	`,"content":{"avatar_url":"mxc://","displayname":"","is_direct":true,"join_authorised_via_users_server":"@","membership":"invite","reason":""},"content":{"avatar_url":null,"displayname":"","membership":"leave"},` +
	`"content":{"avatar_url":"mxc://matrix.org/","displayname":"","membership":"join"},"depth":2,"hashes":{"sha256":"` +
	`"},"origin":"matrix.org","origin_server_ts":1790000000000,"prev_events":["$"],"prev_state":[],"room_id":"!","sender":"@","signatures":{"matrix.org":{"ed25519:auto":""}},"state_key":"@","type":"m.room.member"}` +
	`{"auth_events":["$","$","$"],"content":{"body":"> <@","format":"org.matrix.custom.html","formatted_body":"<a href=\"https://matrix.to/#/@</a><p></p>","m.mentions":{"user_ids":["@"]},` +
	`"m.relates_to":{"event_id":"$","is_falling_back":true,"m.in_reply_to":{"event_id":"$"},"rel_type":"m.thread"},"msgtype":"m.text"},` +
	`{"auth_events":["$","$","$"],"content":{"body":"","m.mentions":{},"msgtype":"m.text"},"depth":1000,"hashes":{"sha256":"` +
	`"},"origin_server_ts":1790000000000,"prev_events":["$"],"room_id":"!","sender":"@","signatures":{"matrix.org":{"ed25519:a_key":""}},"type":"m.room.message"}`

const (
	compressed1 = 1 // S2 with dictionary1, as it was before base64 was folded
	compressed2 = 2 // folded, S2 with dictionary2
)

// dictionary2 is dictionary1 with the beginnings of what is folded.
var dictionary2 = strings.NewReplacer(`["$"`, "[\"$\x01\x40\"", `,"$"`, ",\"$\x01\x40\"", `"room_id":"!"`, "\"room_id\":\x02",
	`"sha256":"`, "\"sha256\":\"\x01\x41",
	`"ed25519:a_key":""`, "\"ed25519:a_key\":\"\x01\x81\x01\"").Replace(dictionary1)

var s2Dictionary1, s2Dictionary2 = s2Dictionary(dictionary1), s2Dictionary(dictionary2)

// s2Dictionary takes for granted that most events begin as the one at its end does.
func s2Dictionary(text string) *s2.Dict {
	return s2.MakeDictManual([]byte(text), uint16(strings.LastIndex(text, `{"auth_events"`)))
}

// compress makes what is stored of an event's JSON.
func compress(json []byte, room id.RoomID) []byte {
	if bytes.IndexByte(json, foldMark) >= 0 || bytes.IndexByte(json, roomMark) >= 0 {
		return json // it is not quite JSON, and begins as an event does
	}
	return append([]byte{compressed2}, s2Dictionary2.Encode(nil, fold(json, room))...)
}

// decompress gives the JSON of an event of a room, byte by byte as it was.
func decompress(stored []byte, room id.RoomID) ([]byte, error) {
	switch {
	case len(stored) > 0 && stored[0] == '{':
		return stored, nil
	case len(stored) > 0 && stored[0] == compressed1:
		return s2Dictionary1.Decode(nil, stored[1:])
	case len(stored) > 0 && stored[0] == compressed2:
		folded, err := s2Dictionary2.Decode(nil, stored[1:])
		if err != nil {
			return nil, err
		}
		return unfold(folded, room)
	}
	return nil, errors.New("its JSON is stored in a way that this version does not know")
}
