package storage

import (
	"errors"
	"strings"

	"github.com/klauspost/compress/s2"
)

// Events are stored as a byte that says how, and their JSON as an S2 block with a dictionary of what events say again and again: two
// thirds of the room, for some two microseconds. What begins with '{' is the JSON itself, as it was stored before.

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

const compressed1 = 1 // S2, dictionary1

// Most events begin as the one at the dictionary's end does.
var s2Dictionary1 = s2.MakeDictManual([]byte(dictionary1), uint16(strings.LastIndex(dictionary1, `{"auth_events"`)))

// compress makes what is stored of an event's JSON.
func compress(json []byte) []byte {
	return append([]byte{compressed1}, s2Dictionary1.Encode(nil, json)...)
}

// decompress gives the JSON of an event, byte by byte as it was.
func decompress(stored []byte) ([]byte, error) {
	switch {
	case len(stored) > 0 && stored[0] == '{':
		return stored, nil
	case len(stored) > 0 && stored[0] == compressed1:
		return s2Dictionary1.Decode(nil, stored[1:])
	}
	return nil, errors.New("its JSON is stored in a way that this version does not know")
}
