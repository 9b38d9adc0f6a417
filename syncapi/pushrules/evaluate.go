package pushrules

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
)

// Subject is an event and what else the conditions look at.
type Subject struct {
	Event       *pdu.Event
	Members     int64  // joined members of the room
	DisplayName string // of the rules' owner in the room, for contains_display_name
	// MayNotify tells whether the sender has the power to trigger notifications of a kind, such as "room".
	MayNotify func(key string) bool
}

// Result is what the rules say of an event.
type Result struct {
	Notify    bool
	Highlight bool
	Actions   []json.RawMessage // of the rule that matched
}

// Tweaks are the tweaks that the actions set, by name.
func (r *Result) Tweaks() map[string]json.RawMessage {
	tweaks := make(map[string]json.RawMessage)
	for _, a := range r.Actions {
		tweak := gjson.ParseBytes(a)
		if name := tweak.Get("set_tweak"); name.Exists() {
			value := tweak.Get("value").Raw
			if value == "" && name.Str == "highlight" {
				value = "true"
			}
			if value != "" {
				tweaks[name.Str] = json.RawMessage(value)
			}
		}
	}
	return tweaks
}

// Evaluator is a user's rules, compiled. It may be shared.
type Evaluator struct {
	rules []compiled
}

type compiled struct {
	conditions []condition
	result     Result
}

type condition func(*Subject) bool

// Compile prepares the enabled rules of a set.
func Compile(set Ruleset) *Evaluator {
	e := new(Evaluator)
	for _, kind := range kinds {
		for _, r := range set[kind] {
			if !r.Enabled {
				continue
			}
			c := compiled{result: resultOf(r.Actions)}
			switch kind {
			case Content:
				c.conditions = []condition{eventMatch("content.body", r.Pattern)}
			case Room:
				c.conditions = []condition{func(s *Subject) bool { return string(s.Event.RoomID()) == r.RuleID }}
			case Sender:
				c.conditions = []condition{func(s *Subject) bool { return string(s.Event.Sender()) == r.RuleID }}
			default:
				for _, cond := range r.Conditions {
					c.conditions = append(c.conditions, compile(cond))
				}
			}
			e.rules = append(e.rules, c)
		}
	}
	return e
}

// Evaluate finds the first rule that matches. The caller leaves out the user's own events, which never notify.
func (e *Evaluator) Evaluate(s *Subject) Result {
rules:
	for i := range e.rules {
		for _, holds := range e.rules[i].conditions {
			if !holds(s) {
				continue rules
			}
		}
		return e.rules[i].result
	}
	return Result{}
}

func resultOf(actions []json.RawMessage) Result {
	r := Result{Actions: actions}
	for _, a := range actions {
		if string(a) == `"notify"` {
			r.Notify = true
		}
		tweak := gjson.ParseBytes(a)
		if tweak.Get("set_tweak").Str == "highlight" {
			r.Highlight = tweak.Get("value").Type != gjson.False
		}
	}
	r.Highlight = r.Highlight && r.Notify
	return r
}

func never(*Subject) bool { return false }

// compile turns a condition into a function. One that is unknown, or lacks what it needs, never holds.
func compile(c Condition) condition {
	switch c.Kind {
	case "event_match":
		if c.Pattern == nil {
			return never
		}
		return eventMatch(c.Key, *c.Pattern)
	case "event_property_is":
		property, want := path(c.Key), gjson.ParseBytes(c.Value)
		return func(s *Subject) bool { return same(property(s), want) }
	case "event_property_contains":
		property, want := path(c.Key), gjson.ParseBytes(c.Value)
		return func(s *Subject) bool {
			list := property(s)
			if !list.IsArray() {
				return false
			}
			found := false
			list.ForEach(func(_, v gjson.Result) bool {
				found = same(v, want)
				return !found
			})
			return found
		}
	case displayNameKind:
		return func(s *Subject) bool {
			body := gjson.GetBytes(s.Event.Content(), "body")
			return s.DisplayName != "" && body.Type == gjson.String && containsWord(strings.ToLower(body.Str), strings.ToLower(s.DisplayName))
		}
	case "room_member_count":
		return memberCount(c.Is)
	case "sender_notification_permission":
		return func(s *Subject) bool { return s.MayNotify != nil && s.MayNotify(c.Key) }
	}
	return never
}

// same compares values that are not compound, exactly.
func same(got, want gjson.Result) bool {
	switch want.Type {
	case gjson.String:
		return got.Type == gjson.String && got.Str == want.Str
	case gjson.Number:
		return got.Type == gjson.Number && got.Raw == want.Raw && !strings.ContainsAny(want.Raw, ".eE")
	case gjson.True, gjson.False:
		return got.Type == want.Type
	case gjson.Null:
		return want.Raw == "null" && got.Exists() && got.Type == gjson.Null
	}
	return false
}

func eventMatch(key, pattern string) condition {
	property := path(key)
	pattern = strings.ToLower(pattern)
	matches := func(s string) bool { return glob.Match(pattern, s) }
	if key == "content.body" {
		matches = wordMatcher(pattern)
	}
	return func(s *Subject) bool {
		value := property(s)
		return value.Type == gjson.String && matches(strings.ToLower(value.Str))
	}
}

// wordMatcher matches a part of a text that begins and ends at word boundaries.
func wordMatcher(pattern string) func(string) bool {
	if !glob.HasMeta(pattern) {
		return func(s string) bool { return containsWord(s, pattern) }
	}
	quoted := regexp.QuoteMeta(pattern)
	quoted = strings.NewReplacer(`\*`, `.*?`, `\?`, `.`).Replace(quoted)
	re, err := regexp.Compile(`(?s)(?:^|[^a-z0-9_])` + quoted + `(?:[^a-z0-9_]|$)`)
	if err != nil {
		return func(string) bool { return false } // larger than what regexp takes: such a rule never holds
	}
	return re.MatchString
}

func containsWord(text, word string) bool {
	if word == "" {
		return false
	}
	for from := 0; from <= len(text)-len(word); {
		at := strings.Index(text[from:], word)
		if at < 0 {
			return false
		}
		at += from
		end := at + len(word)
		if (at == 0 || !isWord(text[at-1])) && (end == len(text) || !isWord(text[end])) {
			return true
		}
		from = at + 1
	}
	return false
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func memberCount(is string) condition {
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return never
	}
	switch is[:len(is)-len(digits)] {
	case "", "==":
		return func(s *Subject) bool { return s.Members == n }
	case "<":
		return func(s *Subject) bool { return s.Members < n }
	case ">":
		return func(s *Subject) bool { return s.Members > n }
	case "<=":
		return func(s *Subject) bool { return s.Members <= n }
	case ">=":
		return func(s *Subject) bool { return s.Members >= n }
	}
	return never
}

// path reads a dot-separated property path (Appendices, § Dot-separated property paths).
func path(key string) func(*Subject) gjson.Result {
	names := splitPath(key)
	text := func(s string) gjson.Result { return gjson.Result{Type: gjson.String, Str: s, Raw: strconv.Quote(s)} }
	switch {
	case key == "event_id":
		return func(s *Subject) gjson.Result { return text(string(s.Event.ID())) }
	case key == "room_id":
		return func(s *Subject) gjson.Result { return text(string(s.Event.RoomID())) }
	case key == "type":
		return func(s *Subject) gjson.Result { return text(s.Event.Type()) }
	case key == "sender":
		return func(s *Subject) gjson.Result { return text(string(s.Event.Sender())) }
	case key == "state_key":
		return func(s *Subject) gjson.Result {
			if stateKey, isState := s.Event.StateKey(); isState {
				return text(stateKey)
			}
			return gjson.Result{}
		}
	case names[0] == "content" && len(names) > 1:
		inner := joinPath(names[1:])
		return func(s *Subject) gjson.Result { return gjson.GetBytes(s.Event.Content(), inner) }
	}
	whole := joinPath(names)
	return func(s *Subject) gjson.Result { return gjson.GetBytes(s.Event.JSON(), whole) }
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

func joinPath(names []string) string {
	escaped := make([]string, len(names))
	for i, n := range names {
		escaped[i] = gjson.Escape(n)
	}
	return strings.Join(escaped, ".")
}

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
func ByClass(s *Subject) [Classes]Result {
	byDefault := nobody.Evaluate(s)
	var r [Classes]Result
	r[ClassDefault] = byDefault
	if byDefault.Highlight {
		r[ClassMentions] = byDefault // every default that highlights is an override rule
	}
	return r
}

// Classify finds the class that is nearest to a user's rules in a room, and whether they follow it in all: if not, each event
// has to be evaluated for this user, and what differs from the class is counted for the user alone.
func (d *Document) Classify(room id.RoomID) (class Class, exact bool) {
	exact = len(d.Rules[Content])+len(d.Rules[Sender])+len(d.Rules[Underride]) == 0
	for ruleID, change := range d.Changes {
		if ruleID == master && change.Enabled != nil && *change.Enabled {
			return ClassNone, change.Actions == nil || !resultOf(change.Actions).Notify
		}
		exact = exact && change.Enabled == nil && sameNotify(ruleID, change.Actions)
	}
	for _, r := range d.Rules[Override] {
		if !r.Enabled {
			continue
		}
		if other, whole := r.onlyRoom(room); whole {
			if !resultOf(r.Actions).Notify {
				return ClassNone, exact
			}
		} else if other {
			continue
		}
		exact = false
	}
	for _, r := range d.Rules[Room] {
		if r.Enabled && r.RuleID == string(room) {
			if resultOf(r.Actions).Notify {
				return ClassDefault, false
			}
			class = ClassMentions
		}
	}
	return class, exact
}

// onlyRoom tells whether the rule is about another room, or about all events of this room.
func (r *Rule) onlyRoom(room id.RoomID) (other, whole bool) {
	for _, c := range r.Conditions {
		if c.Kind == "event_match" && c.Key == "room_id" && c.Pattern != nil && !glob.HasMeta(*c.Pattern) {
			if *c.Pattern != string(room) {
				return true, false
			}
			whole = true
		}
	}
	return false, whole && len(r.Conditions) == 1
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
