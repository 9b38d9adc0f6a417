package pushrules

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/pdu"
)

// path is a dot-separated property path (Appendices, § Dot-separated property paths).
type path struct {
	name  string   // the same for all ways to write it
	names []string // escaped for gjson
}

func parsePath(key string) *path {
	names := splitPath(key)
	for i, n := range names {
		names[i] = gjson.Escape(n)
	}
	return &path{strings.Join(names, "."), names}
}

const (
	// readInStep is how many bytes of JSON are read in a step.
	readInStep = 4
	// workOfPath is what it takes to look for a property, beside reading.
	workOfPath = 100
)

// in finds the property in an event. found is false if there is not enough work left to look for it.
func (p *path) in(e *pdu.Event, w *glob.Work) (value gjson.Result, found bool) {
	if len(p.names) == 1 {
		if text, is := known(p.name, e); is {
			return text, true
		}
	}
	raw, names := e.JSON(), p.names
	if names[0] == "content" && len(names) > 1 {
		raw, names = e.Content(), names[1:]
	}
	if !w.Spend(workOfPath + len(raw)/readInStep) {
		return gjson.Result{}, false
	}
	value = gjson.GetBytes(raw, names[0])
	for _, name := range names[1:] {
		if !value.IsObject() {
			return gjson.Result{}, true
		}
		if !w.Spend(1 + len(value.Raw)/readInStep) {
			return gjson.Result{}, false
		}
		value = value.Get(name)
	}
	return value, true
}

// known are the properties that every event has, and that are not in the JSON of all.
func known(name string, e *pdu.Event) (value gjson.Result, is bool) {
	var text string
	switch name {
	case "event_id":
		text = string(e.ID())
	case "room_id":
		text = string(e.RoomID())
	case "type":
		text = e.Type()
	case "sender":
		text = string(e.Sender())
	case "state_key":
		stateKey, isState := e.StateKey()
		if !isState {
			return gjson.Result{}, true
		}
		text = stateKey
	default:
		return gjson.Result{}, false
	}
	return gjson.Result{Type: gjson.String, Str: text}, true
}

func splitPath(key string) []string {
	var names []string
	var name strings.Builder
	for i := 0; i < len(key); i++ {
		switch {
		case key[i] == '\\' && i+1 < len(key) && (key[i+1] == '.' || key[i+1] == '\\'):
			i++
			name.WriteByte(key[i])
		case key[i] == '.':
			names = append(names, name.String())
			name.Reset()
		default:
			name.WriteByte(key[i])
		}
	}
	return append(names, name.String())
}
