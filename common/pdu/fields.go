package pdu

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// read takes the fields from canonical JSON. checked is for events from outside: every field must be there, of its type and
// within its limits.
func (e *Event) read(canonicalJSON []byte, checked bool) error {
	e.json = canonicalJSON
	var seen fields
	err := scanObject(e.json, func(key, value []byte) error { return e.field(&seen, string(key), value) })
	if err != nil {
		if err == errNotCanonical {
			return mxerr.BadJSON("the event: %v", err)
		}
		return err
	}
	if e.content == nil {
		return mxerr.BadJSON("the event has no content")
	}
	e.readContent(seen.redacts)
	if checked {
		if err := e.check(&seen); err != nil {
			return err
		}
	}
	if e.props.HashIDs() {
		if e.id == "" {
			e.id = e.computeID()
		}
	} else if e.id == "" {
		e.id = id.EventID(seen.eventID)
	}
	if e.props.RoomIDIsCreateHash && e.eventType == TypeCreate && len(e.id) > 1 {
		e.roomID = id.RoomID("!" + e.id[1:])
	}
	return nil
}

// fields holds what read has seen besides the fields of Event.
type fields struct {
	eventID                        string
	redacts                        []byte
	sender, eventType, ts, depth   bool
	prev, auth, hashes, signatures bool
}

func (e *Event) field(seen *fields, key string, value []byte) (err error) {
	var s string
	switch key {
	case "type":
		seen.eventType = true
		e.eventType, err = knownString("type", value)
	case "state_key":
		e.isState = true
		e.stateKey, err = knownString("state_key", value)
	case "sender":
		seen.sender = true
		s, err = str("sender", value)
		e.sender = id.UserID(s)
	case "room_id":
		e.roomIDGiven = true
		s, err = str("room_id", value)
		e.roomID = id.RoomID(s)
	case "event_id":
		if !e.props.HashIDs() {
			seen.eventID, err = str("event_id", value)
		}
	case "origin_server_ts":
		seen.ts = true
		e.ts, err = integer("origin_server_ts", value)
	case "depth":
		seen.depth = true
		e.depth, err = integer("depth", value)
	case "prev_events":
		seen.prev = true
		e.prev, err = e.references("prev_events", value, MaxPrevEvents)
	case "auth_events":
		seen.auth = true
		e.auth, err = e.references("auth_events", value, MaxAuthEvents)
	case "redacts":
		seen.redacts = value
	case "content":
		if e.content = value; value[0] != '{' {
			err = mxerr.BadJSON("the event's content is not an object")
		}
	case "hashes":
		if seen.hashes = true; lookup(value, "sha256") == nil {
			err = mxerr.BadJSON("the event's hashes has no sha256")
		}
	case "signatures":
		seen.signatures = true
	}
	return err
}

// knownString decodes a string without an allocation if it is one of the common ones.
func knownString(field string, value []byte) (string, error) {
	switch string(value) {
	case `""`:
		return "", nil
	case `"m.room.message"`:
		return "m.room.message", nil
	case `"m.room.encrypted"`:
		return "m.room.encrypted", nil
	case `"m.reaction"`:
		return "m.reaction", nil
	case `"m.room.member"`:
		return TypeMember, nil
	}
	return str(field, value)
}

// references reads prev_events or auth_events: ids, or pairs of id and hash in room versions 1 and 2.
func (e *Event) references(field string, value []byte, limit int) ([]id.EventID, error) {
	var ids []id.EventID
	err := scanArray(value, func(item []byte) error {
		if len(ids) == limit {
			return mxerr.BadJSON("the event's %s has more than %d entries", field, limit)
		}
		if !e.props.HashIDs() {
			var pair [][]byte
			if err := scanArray(item, func(v []byte) error { pair = append(pair, v); return nil }); err != nil ||
				len(pair) != 2 || pair[1][0] != '{' {
				return mxerr.BadJSON("an entry of the event's %s is not a pair of event id and hash", field)
			}
			item = pair[0]
		}
		s, err := str(field+" entry", item)
		if err != nil {
			return err
		}
		if ids == nil {
			ids = make([]id.EventID, 0, 4)
		}
		ids = append(ids, id.EventID(s))
		return nil
	})
	if err == errNotCanonical {
		return nil, mxerr.BadJSON("the event's %s is not an array", field)
	}
	return ids, err
}

// readContent takes from content what everybody looks at. A value of another type counts as absent: event bodies are free.
func (e *Event) readContent(redacts []byte) {
	switch e.eventType {
	case TypeRedaction:
		if e.props.RedactsInContent {
			redacts = lookup(e.content, "redacts")
		}
		if target, err := id.ParseEventID(optionalString(redacts)); err == nil {
			e.redacts = target
		}
	case TypeMember:
		e.membership = knownMembership(lookup(e.content, "membership"))
	}
}

func knownMembership(value []byte) string {
	switch string(value) {
	case `"join"`:
		return "join"
	case `"leave"`:
		return "leave"
	case `"invite"`:
		return "invite"
	case `"ban"`:
		return "ban"
	case `"knock"`:
		return "knock"
	}
	return optionalString(value)
}

// check applies the event format of the room version (§ Event format, and Client-Server API, § Size limits).
func (e *Event) check(seen *fields) error {
	for _, required := range []struct {
		name    string
		present bool
	}{
		{"type", seen.eventType},
		{"sender", seen.sender},
		{"origin_server_ts", seen.ts},
		{"depth", seen.depth},
		{"prev_events", seen.prev},
		{"auth_events", seen.auth},
		{"hashes", seen.hashes},
		{"signatures", seen.signatures},
		{"event_id", seen.eventID != "" || e.props.HashIDs()},
		{"room_id", e.roomIDGiven || e.props.RoomIDIsCreateHash && e.eventType == TypeCreate},
	} {
		if !required.present {
			return mxerr.BadJSON("the event has no %s", required.name)
		}
	}
	if err := CheckKeys(e.eventType, e.stateKey); err != nil {
		return err
	}
	if e.depth < 0 || e.depth > e.props.MaxDepth {
		return mxerr.BadJSON("the event's depth %d is not between 0 and %d", e.depth, e.props.MaxDepth)
	}
	if _, err := id.ParseUserID(string(e.sender)); err != nil {
		return mxerr.BadJSON("the event's sender: %v", err)
	}
	if err := e.checkRoomID(); err != nil {
		return err
	}
	for _, ref := range slices.Concat(e.prev, e.auth) {
		if _, err := id.ParseEventID(string(ref)); err != nil {
			return mxerr.BadJSON("a reference of the event: %v", err)
		}
	}
	if !e.props.HashIDs() {
		if _, err := id.ParseEventID(seen.eventID); err != nil {
			return mxerr.BadJSON("the event's event_id: %v", err)
		}
		if _, err := id.ParseServerName(string(id.EventID(seen.eventID).Server())); err != nil {
			return mxerr.BadJSON("the event's event_id has no server name: %v", err)
		}
	}
	return e.checkSignatures()
}

// CheckKeys limits the type and state_key of an event. A NUL is refused, although the specification does not speak of
// it: no text column of a database keeps one, here or on other servers.
func CheckKeys(eventType, stateKey string) error {
	switch {
	case len(eventType) > MaxKeyBytes:
		return mxerr.TooLarge("the event's type is longer than %d bytes", MaxKeyBytes)
	case len(stateKey) > MaxKeyBytes:
		return mxerr.TooLarge("the event's state_key is longer than %d bytes", MaxKeyBytes)
	case strings.ContainsRune(eventType, 0) || strings.ContainsRune(stateKey, 0):
		return mxerr.BadJSON("the event's type or state_key has a NUL")
	}
	return nil
}

// checkRoomID wants the form of the room version. The create event of a room whose id is its hash has none; that it has one
// nevertheless is for the authorization rules.
func (e *Event) checkRoomID() error {
	if !e.roomIDGiven {
		return nil
	}
	if _, err := id.ParseRoomID(string(e.roomID)); err != nil {
		return mxerr.BadJSON("the event's room_id: %v", err)
	}
	if e.props.RoomIDIsCreateHash {
		if hash, err := base64.RawURLEncoding.DecodeString(string(e.roomID[1:])); err != nil || len(hash) != 32 {
			return mxerr.BadJSON("the event's room_id %q is not the hash of a create event", e.roomID)
		}
	} else if e.roomID.Server() == "" {
		return mxerr.BadJSON("the event's room_id %q has no server name", e.roomID)
	}
	return nil
}

// checkSignatures wants an object of objects of strings.
func (e *Event) checkSignatures() error {
	wrong := mxerr.BadJSON("the event's signatures is not an object of objects of strings")
	if scanObject(lookup(e.json, "signatures"), func(_, ofServer []byte) error {
		return scanObject(ofServer, func(_, signature []byte) error {
			_, err := str("signature", signature)
			return err
		})
	}) != nil {
		return wrong
	}
	return nil
}

// Relation is what an event says of another one that it relates to (Client-Server API, § Forming relationships between events).
type Relation struct {
	Type   string     // rel_type; empty for what is no relationship by the specification, such as a rich reply
	Parent id.EventID // event_id; empty if there is none
	Key    string     // of an m.annotation
}

// The types of relations that the server looks at.
const (
	RelAnnotation = "m.annotation"
	RelReference  = "m.reference"
	RelReplace    = "m.replace"
	RelThread     = "m.thread"
)

// Relation reads m.relates_to. What does not match its schema is no relation.
func (e *Event) Relation() Relation { return RelationIn(e.content) }

// RelationIn reads m.relates_to of an event's content, which need not be canonical.
func RelationIn(content []byte) (r Relation) {
	relates := gjson.GetBytes(content, `m\.relates_to`)
	if !relates.IsObject() {
		return r
	}
	parent, err := id.ParseEventID(relates.Get("event_id").Str)
	if err != nil {
		return r // anything may stand there
	}
	r = Relation{Type: relates.Get("rel_type").Str, Parent: parent, Key: relates.Get("key").Str}
	if strings.ContainsRune(r.Type, 0) {
		r.Type = "" // a name has no such characters
	}
	return r
}
