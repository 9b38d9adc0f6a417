package pdu

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// Proto is an event that has not been built yet.
type Proto struct {
	RoomID   id.RoomID // empty for the m.room.create event of a room whose id is that event's hash
	Type     string
	StateKey *string
	Sender   id.UserID
	Content  json.RawMessage
	// Redacts is the target of an m.room.redaction. It goes where the room version has it.
	Redacts                id.EventID
	PrevEvents, AuthEvents []id.EventID
	Depth                  int64
	OriginServerTS         int64 // milliseconds
	Unsigned               json.RawMessage
	// ReferenceHashes are those of prev and auth events. Room versions 1 and 2 write them beside the ids, the others have no
	// use for them. They may be left out: nothing depends on them.
	ReferenceHashes map[id.EventID][sha256.Size]byte
}

// Signer is a server's identity.
type Signer struct {
	ServerName id.ServerName
	KeyID      gomatrixserverlib.KeyID
	PrivateKey ed25519.PrivateKey
}

// Build makes an event: canonical, hashed, signed, and checked against the event format of the room version as a received one
// is. The content is the only part that comes from clients, and is the only part that is parsed. Errors are M_NOT_JSON,
// M_BAD_JSON, M_TOO_LARGE and M_UNSUPPORTED_ROOM_VERSION.
func Build(v id.RoomVersion, p Proto, s Signer) (*Event, error) {
	props, err := properties(v)
	if err != nil {
		return nil, err
	}
	e, err := newEvent(props, &p)
	if err != nil {
		return nil, err
	}
	if e.content, err = e.buildContent(&p); err != nil {
		return nil, err
	}
	if len(e.content) > MaxBytes {
		return nil, mxerr.TooLarge("the event is too large: its content alone has %d bytes, of at most %d for all", len(e.content), MaxBytes)
	}
	// The parts of an event in the order of their keys: what stands before hashes, between hashes and signatures, and after.
	buf := make([]byte, 0, 1024+len(e.content))
	hashed := e.appendParts(buf, &p, e.content, "", "", false)
	contentHash := sha256.Sum256(hashed)
	hashes := `"hashes":{"sha256":"` + base64.RawStdEncoding.EncodeToString(contentHash[:]) + `"},`

	redactedContent := e.appendRedactedContent(make([]byte, 0, 256))
	redacted := e.appendParts(hashed[:0], &p, redactedContent, hashes, "", true)
	signature := ed25519.Sign(s.PrivateKey, redacted)
	if props.HashIDs() {
		hash := sha256.Sum256(redacted)
		e.id = hashID(props.EventIDs, hash[:])
	}
	signatures := string(appendSignature([]byte(`"signatures":{`), s, signature)) + "},"

	e.json = bytes.Clone(e.appendParts(redacted[:0], &p, e.content, hashes, signatures, false)) // as long as it is: events are kept
	if len(e.json) > MaxBytes {
		return nil, mxerr.TooLarge("the event has %d bytes, of at most %d", len(e.json), MaxBytes)
	}
	e.content = lookup(e.json, "content")
	e.readContent([]byte(strconv.Quote(string(p.Redacts))))
	if props.RoomIDIsCreateHash && e.eventType == TypeCreate {
		e.roomID = id.RoomID("!" + e.id[1:])
	}
	return e, nil
}

// newEvent takes what is given as it is, within the limits.
func newEvent(props *roomversion.Properties, p *Proto) (*Event, error) {
	e := &Event{
		props: props, roomID: p.RoomID, roomIDGiven: p.RoomID != "", eventType: p.Type, isState: p.StateKey != nil,
		sender: p.Sender, ts: p.OriginServerTS, depth: min(p.Depth, props.MaxDepth),
		prev: slices.Clone(p.PrevEvents), auth: slices.Clone(p.AuthEvents), unsigned: p.Unsigned,
	}
	if e.isState {
		e.stateKey = *p.StateKey
	}
	switch {
	case p.Type == "":
		return nil, mxerr.BadJSON("the event has no type")
	case len(p.PrevEvents) > MaxPrevEvents || len(p.AuthEvents) > MaxAuthEvents:
		return nil, mxerr.BadJSON("the event refers to more than %d previous or %d auth events", MaxPrevEvents, MaxAuthEvents)
	case e.depth < 0:
		return nil, mxerr.BadJSON("the event's depth is negative")
	case e.roomIDGiven && props.RoomIDIsCreateHash && p.Type == TypeCreate:
		return nil, mxerr.BadJSON("the create event of a room of version %s has no room_id", props.Version)
	case !e.roomIDGiven && !(props.RoomIDIsCreateHash && p.Type == TypeCreate):
		return nil, mxerr.BadJSON("the event has no room_id")
	}
	if _, err := id.ParseUserID(string(p.Sender)); err != nil {
		return nil, mxerr.BadJSON("the event's sender: %v", err)
	}
	if err := CheckKeys(e.eventType, e.stateKey); err != nil {
		return nil, err
	}
	if err := e.checkRoomID(); err != nil {
		return nil, err
	}
	if !props.HashIDs() {
		e.id = id.EventID("$" + rand.Text() + ":" + string(p.Sender.Server()))
	}
	return e, nil
}

func (e *Event) buildContent(p *Proto) ([]byte, error) {
	content, err := canonical(make([]byte, 0, len(p.Content)+64), p.Content, e.props.StrictJSON)
	if err != nil {
		return nil, err
	}
	if content[0] != '{' {
		return nil, mxerr.BadJSON("the event's content must be a JSON object")
	}
	if p.Redacts == "" || e.eventType != TypeRedaction {
		return content, nil
	}
	// The target has one place: what a client wrote in the other one would contradict it.
	content = appendMembers(make([]byte, 0, len(content)+64), content, func(key string) bool { return key != "redacts" })
	if !e.props.RedactsInContent {
		return content, nil
	}
	content = appendKey(content[:len(content)-1], 0, []byte("redacts"))
	content = append(AppendString(content, p.Redacts), '}')
	return canonical(make([]byte, 0, len(content)), content, e.props.StrictJSON)
}

// appendParts writes the event in the order of its keys. hashes and signatures are whole members, or empty.
func (e *Event) appendParts(dst []byte, p *Proto, content []byte, hashes, signatures string, redacted bool) []byte {
	dst = e.appendReferences(append(dst, `{"auth_events":`...), p.AuthEvents, p)
	dst = append(append(dst, `,"content":`...), content...)
	dst = strconv.AppendInt(append(dst, `,"depth":`...), e.depth, 10)
	if !e.props.HashIDs() {
		dst = AppendString(append(dst, `,"event_id":`...), e.id)
	}
	dst = append(append(dst, ','), hashes...)
	dst = strconv.AppendInt(append(dst, `"origin_server_ts":`...), e.ts, 10)
	dst = e.appendReferences(append(dst, `,"prev_events":`...), p.PrevEvents, p)
	if p.Redacts != "" && e.eventType == TypeRedaction && !e.props.RedactsInContent && !redacted {
		dst = AppendString(append(dst, `,"redacts":`...), p.Redacts)
	}
	if e.roomIDGiven {
		dst = AppendString(append(dst, `,"room_id":`...), e.roomID)
	}
	dst = AppendString(append(dst, `,"sender":`...), e.sender)
	dst = append(append(dst, ','), signatures...)
	if e.isState {
		dst = append(AppendString(append(dst, `"state_key":`...), e.stateKey), ',')
	}
	return append(AppendString(append(dst, `"type":`...), e.eventType), '}')
}

func (e *Event) appendReferences(dst []byte, refs []id.EventID, p *Proto) []byte {
	dst = append(dst, '[')
	for i, ref := range refs {
		if i > 0 {
			dst = append(dst, ',')
		}
		if e.props.HashIDs() {
			dst = AppendString(dst, ref)
			continue
		}
		dst = append(AppendString(append(dst, '['), ref), ",{"...)
		if hash, known := p.ReferenceHashes[ref]; known {
			dst = append(dst, `"sha256":"`+base64.RawStdEncoding.EncodeToString(hash[:])+`"`...)
		}
		dst = append(dst, "}]"...)
	}
	return append(dst, ']')
}

func hashID(form roomversion.EventIDs, hash []byte) id.EventID {
	if form == roomversion.EventIDHash {
		return id.EventID("$" + base64.RawStdEncoding.EncodeToString(hash))
	}
	return id.EventID("$" + base64.RawURLEncoding.EncodeToString(hash))
}
