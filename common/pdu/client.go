package pdu

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// ClientOptions says how an event is shown to a client.
type ClientOptions struct {
	// WithRoomID adds room_id, which /sync leaves out.
	WithRoomID bool
	// Unsigned appends the object that becomes unsigned; nil for none. What the PDU itself came with is not shown: any server
	// could have written it.
	Unsigned func(dst []byte) []byte
	// Fields are the dot-separated paths of a filter's event_fields; nil for all.
	Fields []string
	// Federation asks for the PDU as servers exchange it (event_format of a filter).
	Federation bool
}

// AppendClient appends the event in the form of the Client-Server API (§ Room event format). The target of a redaction is both at
// the top level and in content, in every room version.
func (e *Event) AppendClient(dst []byte, o ClientOptions) []byte {
	out := dst
	if o.Federation {
		out = append(out, e.json[:len(e.json)-1]...)
		if e.props.HashIDs() && lookup(e.json, "event_id") == nil {
			out = AppendString(append(out, `,"event_id":`...), e.id)
		}
	} else {
		out = append(append(out, `{"content":`...), e.clientContent()...)
		out = AppendString(append(out, `,"event_id":`...), e.id)
		out = strconv.AppendInt(append(out, `,"origin_server_ts":`...), e.ts, 10)
		if e.redacts != "" {
			out = AppendString(append(out, `,"redacts":`...), e.redacts)
		}
		if o.WithRoomID {
			out = AppendString(append(out, `,"room_id":`...), e.roomID)
		}
		out = AppendString(append(out, `,"sender":`...), e.sender)
		if e.isState {
			out = AppendString(append(out, `,"state_key":`...), e.stateKey)
		}
		out = AppendString(append(out, `,"type":`...), e.eventType)
	}
	if o.Unsigned != nil {
		out = o.Unsigned(append(out, `,"unsigned":`...))
	}
	out = append(out, '}')
	if o.Fields != nil {
		return parsePaths(o.Fields).filter(dst, slices.Clone(out[len(dst):]))
	}
	return out
}

// clientContent adds the target to the content of redactions of room versions that have it at the top level only.
func (e *Event) clientContent() []byte {
	if e.redacts == "" || e.props.RedactsInContent {
		return e.content
	}
	content := appendMembers(nil, e.content, func(key string) bool { return key != "redacts" })
	content = appendKey(content[:len(content)-1], 0, []byte("redacts"))
	return append(AppendString(content, e.redacts), '}')
}

// Stripped is the event as stripped state (Client-Server API, § Stripped state).
func (e *Event) Stripped() json.RawMessage {
	out := append(append(make([]byte, 0, len(e.content)+256), `{"content":`...), e.content...)
	out = AppendString(append(out, `,"sender":`...), e.sender)
	out = AppendString(append(out, `,"state_key":`...), e.stateKey)
	return append(AppendString(append(out, `,"type":`...), e.eventType), '}')
}

// paths is a tree of property names. A nil subtree selects the whole property.
type paths map[string]paths

// parsePaths reads dot-separated property paths (Appendices, § Dot-separated property paths).
func parsePaths(fields []string) paths {
	tree := paths{}
	for _, field := range fields {
		at, names := tree, splitPath(field)
		for i, name := range names {
			sub, seen := at[name]
			if seen && sub == nil {
				break // the whole of it is selected already
			}
			if i == len(names)-1 {
				at[name] = nil
				break
			}
			if !seen {
				sub = paths{}
				at[name] = sub
			}
			at = sub
		}
	}
	return tree
}

// splitPath splits at dots. A backslash escapes a dot and a backslash, and stands for itself elsewhere.
func splitPath(path string) []string {
	var names []string
	var name strings.Builder
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			name.WriteByte(path[i])
		case c == '.':
			names = append(names, name.String())
			name.Reset()
		default:
			name.WriteByte(c)
		}
	}
	return append(names, name.String())
}

// filter writes the selected members of an object.
func (p paths) filter(dst, object []byte) []byte {
	begin := len(dst)
	dst = append(dst, '{')
	eachMember(object, func(key, value []byte) {
		sub, selected := p[string(unescape(key))]
		switch {
		case !selected:
		case sub == nil:
			dst = append(appendKey(dst, begin, key), value...)
		case value[0] == '{':
			dst = sub.filter(appendKey(dst, begin, key), value)
		}
	})
	return append(dst, '}')
}
