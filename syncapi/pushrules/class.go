package pushrules

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
)

// Class is how a user's rules treat the ordinary events of a room. Users of one class share running counts.
type Class int

// The classes.
const (
	ClassDefault  Class = iota // as the default rules say
	ClassMentions              // only what an override rule or a keyword notifies
	ClassNone                  // nothing
)

// Classes are all of them.
const Classes = 3

var nobody = Compile(Defaults(""))

// ByClass evaluates an event for the classes, for a user whom it does not name: mentions of single users come on top.
// Errors are those of the Subject's Power.
func ByClass(s *Subject) ([Classes]Result, error) {
	byDefault, err := nobody.Evaluate(s, "", nil)
	var r [Classes]Result
	r[ClassDefault] = byDefault
	if byDefault.Highlight {
		r[ClassMentions] = byDefault // every default that highlights is an override rule
	}
	return r, err
}

// classes are what a document says of all rooms.
type classes struct {
	others   verdict               // by the override rules, of rooms that none names
	rooms    map[id.RoomID]verdict // of those that some name
	notifies map[id.RoomID]bool    // by the room rules
}

type verdict struct {
	class Class
	exact bool
}

// Classify finds the class that is nearest to a user's rules in a room, and whether they follow it in all: if not, each
// event has to be evaluated for this user, and what differs from the class is counted for the user alone.
func (d *Document) Classify(room id.RoomID) (class Class, exact bool) {
	c := d.classes.Load()
	if c == nil {
		c = d.classify()
		d.classes.Store(c)
	}
	v := c.overridden(fold(room))
	if notifies, named := c.notifies[room]; named && v.class == ClassDefault {
		if notifies {
			return ClassDefault, false
		}
		return ClassMentions, v.exact
	}
	return v.class, v.exact
}

func (c *classes) overridden(room id.RoomID) verdict {
	if v, named := c.rooms[room]; named {
		return v
	}
	return c.others
}

// fold makes names of rooms equal that event_match takes for equal.
func fold[T ~string](room T) id.RoomID { return id.RoomID(strings.ToLower(string(room))) }

// classify goes through the rules once, however many rooms there are.
func (d *Document) classify() *classes {
	c := &classes{rooms: make(map[id.RoomID]verdict), notifies: make(map[id.RoomID]bool)}
	c.others.exact = !anyEnabled(d.Rules[Content]) && !anyEnabled(d.Rules[Sender]) && !anyEnabled(d.Rules[Underride])
	for ruleID, change := range d.Changes {
		if ruleID == master && change.Enabled != nil && *change.Enabled {
			c.others = verdict{ClassNone, change.Actions == nil || !resultOf(change.Actions).Notify}
			return c
		}
		c.others.exact = c.others.exact && change.Enabled == nil && sameNotify(ruleID, change.Actions)
	}
	for i := range d.Rules[Override] {
		if r := &d.Rules[Override][i]; r.Enabled {
			c.override(r)
		}
	}
	for i := range d.Rules[Room] {
		if r := &d.Rules[Room][i]; r.Enabled {
			c.notifies[id.RoomID(r.RuleID)] = resultOf(r.Actions).Notify
		}
	}
	return c
}

// override adds an override rule, less important than those before it.
func (c *classes) override(r *Rule) {
	room, named, whole := r.onlyRoom()
	if !named {
		c.others.exact = false
		for name, v := range c.rooms {
			v.exact = v.exact && v.class == ClassNone // where nothing notifies, no later rule is asked
			c.rooms[name] = v
		}
		return
	}
	v := c.overridden(room)
	switch {
	case v.class == ClassNone:
	case whole && !resultOf(r.Actions).Notify:
		v.class = ClassNone
	default:
		v.exact = false
	}
	c.rooms[room] = v
}

func anyEnabled(rules []Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.Enabled })
}

// onlyRoom tells whether the rule names a room, which one, and whether it is about all events of it.
func (r *Rule) onlyRoom() (room id.RoomID, named, whole bool) {
	for _, c := range r.Conditions {
		if c.Kind == "event_match" && c.Key == "room_id" && c.Pattern != nil && !glob.HasMeta(*c.Pattern) {
			room, named = fold(*c.Pattern), true
		}
	}
	return room, named, named && len(r.Conditions) == 1
}

// sameNotify tells whether changed actions count as those of the default rule do.
func sameNotify(ruleID string, actions []json.RawMessage) bool {
	if actions == nil {
		return true
	}
	defaults := Defaults("")
	for _, kind := range kinds {
		if at := find(defaults[kind], ruleID); at >= 0 {
			was, is := resultOf(defaults[kind][at].Actions), resultOf(actions)
			return was.Notify == is.Notify && was.Highlight == is.Highlight
		}
	}
	return false
}
