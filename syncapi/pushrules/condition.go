package pushrules

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
)

// trial is the evaluation of one user's rules.
type trial struct {
	*Subject
	displayName string // of the user in the room, in lower case
	work        *glob.Work
}

// at is a property, of which nothing is there if there is not enough work left to find it.
func (t *trial) at(path *path) *property {
	if p := t.Subject.at(path, t.work); p != nil {
		return p
	}
	return new(property)
}

// condition tells whether it holds.
type condition func(*trial) bool

func never(*trial) bool { return false }

// displayNameKind is the kind of condition that looks for the display name of the rules' owner.
const displayNameKind = "contains_display_name"

// body is what the keywords of all users are looked for in.
var body = parsePath("content.body")

// compile turns a condition into a function. One that is unknown, or lacks what it needs, never holds. The cost is how
// much it may take, compared with others.
func compile(c *Condition) (holds condition, cost int) {
	switch c.Kind {
	case "event_match":
		if c.Pattern == nil {
			return never, 1
		}
		return eventMatch(c.Key, *c.Pattern)
	case "event_property_is":
		property, want := parsePath(c.Key), gjson.ParseBytes(c.Value)
		return func(t *trial) bool { return same(t.at(property).Result, want) }, 1 + len(c.Key)
	case "event_property_contains":
		property := parsePath(c.Key)
		want, simple := exact(gjson.ParseBytes(c.Value))
		return func(t *trial) bool { return simple && t.at(property).contains(want) }, 1 + len(c.Key)
	case displayNameKind:
		return func(t *trial) bool {
			text := t.at(body)
			return text.Type == gjson.String && glob.HasWord(t.displayName, text.lowered(), t.work)
		}, MaxText
	case "room_member_count":
		return memberCount(c.Is), 1
	case "sender_notification_permission":
		return func(t *trial) bool { return t.hasPower(c.Key, t.work) }, MaxText
	}
	return never, 1
}

func eventMatch(key, pattern string) (holds condition, cost int) {
	property := parsePath(key)
	pattern = strings.ToLower(pattern)
	matches := glob.MatchWithin
	if property.name == body.name {
		if glob.IsWord(pattern) {
			return func(t *trial) bool {
				text := t.at(property)
				return text.Type == gjson.String && text.hasWord(pattern)
			}, 1
		}
		matches = glob.ContainsWord
	}
	return func(t *trial) bool {
		text := t.at(property)
		return text.Type == gjson.String && matches(pattern, text.lowered(), t.work)
	}, 1 + len(key) + len(pattern)
}

func memberCount(is string) condition {
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return never
	}
	switch is[:len(is)-len(digits)] {
	case "", "==":
		return func(t *trial) bool { return t.Members == n }
	case "<":
		return func(t *trial) bool { return t.Members < n }
	case ">":
		return func(t *trial) bool { return t.Members > n }
	case "<=":
		return func(t *trial) bool { return t.Members <= n }
	case ">=":
		return func(t *trial) bool { return t.Members >= n }
	}
	return never
}
