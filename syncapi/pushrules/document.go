package pushrules

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Document is what a user changed: rules of their own, most important first, and changes of default rules. It is stored as
// JSON, which Encode writes and UnmarshalJSON reads, both within the bounds; the zero Document is a new user's.
type Document struct {
	Rules   map[Kind][]Rule   `json:"rules,omitempty"`
	Changes map[string]Change `json:"changes,omitempty"` // by the id of a default rule

	classes atomic.Pointer[classes] // once they are asked for; whatever changes the document forgets them
}

// Change of a default rule; nil fields are as the default is.
type Change struct {
	Enabled *bool             `json:"enabled,omitempty"`
	Actions []json.RawMessage `json:"actions"`
}

// Clone is a document that can be changed without the other one.
func (d *Document) Clone() *Document {
	c := &Document{Rules: maps.Clone(d.Rules), Changes: maps.Clone(d.Changes)}
	for kind, rules := range c.Rules {
		c.Rules[kind] = slices.Clone(rules)
	}
	return c
}

// ParseKind checks the name of a kind. M_INVALID_PARAM otherwise.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); slices.Contains(kinds[:], k) {
		return k, nil
	}
	return "", mxerr.InvalidParam("%q is no kind of push rule: use override, content, room, sender or underride", s)
}

// Get finds a rule of the user, default or their own. M_NOT_FOUND otherwise.
func (d *Document) Get(user id.UserID, kind Kind, ruleID string) (Rule, error) {
	for _, r := range d.Merge(user)[kind] {
		if r.RuleID == ruleID {
			return r, nil
		}
	}
	return Rule{}, notFound(kind, ruleID)
}

// Put adds a rule, or replaces one that keeps then whether it is enabled. It is placed before or after another rule of
// the user's, if one of these is named, else a new rule becomes the most important of its kind. Errors have the
// errcodes of the specification; M_INVALID_PARAM or M_TOO_LARGE beyond the bounds.
func (d *Document) Put(kind Kind, rule Rule, before, after string) error {
	if err := rule.check(kind); err != nil {
		return err
	}
	rules := slices.Clone(d.Rules[kind])
	rule.Default, rule.Enabled = false, true
	at := 0
	if old := find(rules, rule.RuleID); old >= 0 {
		rule.Enabled, at = rules[old].Enabled, old
		rules = slices.Delete(rules, old, old+1)
	} else if d.count() >= MaxRules {
		return mxerr.InvalidParam("a user may have %d push rules: remove some first", MaxRules)
	}
	if relative := before + after; relative != "" {
		if before != "" && after != "" {
			return mxerr.InvalidParam("give before or after, not both")
		}
		if at = find(rules, relative); at < 0 {
			return mxerr.New(http.StatusBadRequest, "M_UNKNOWN", "before/after rule not found: %s", relative)
		}
		if after != "" {
			at++
		}
	}
	if d.Rules == nil {
		d.Rules = make(map[Kind][]Rule)
	}
	d.Rules[kind] = slices.Insert(rules, at, rule)
	d.classes.Store(nil)
	return nil
}

// Delete removes a rule of the user's own. M_NOT_FOUND otherwise.
func (d *Document) Delete(kind Kind, ruleID string) error {
	at := find(d.Rules[kind], ruleID)
	if at < 0 {
		return notFound(kind, ruleID)
	}
	d.Rules[kind] = slices.Delete(slices.Clone(d.Rules[kind]), at, at+1)
	d.classes.Store(nil)
	return nil
}

// SetEnabled switches a rule, default or own. M_NOT_FOUND if there is none.
func (d *Document) SetEnabled(user id.UserID, kind Kind, ruleID string, enabled bool) error {
	return d.change(user, kind, ruleID, func(r *Rule) { r.Enabled = enabled }, func(c *Change) { c.Enabled = &enabled })
}

// SetActions replaces the actions of a rule, default or own. M_NOT_FOUND if there is none, M_BAD_JSON for what is no
// action, M_INVALID_PARAM or M_TOO_LARGE beyond the bounds.
func (d *Document) SetActions(user id.UserID, kind Kind, ruleID string, actions []json.RawMessage) error {
	actions, err := cleanActions(actions)
	if err != nil {
		return err
	}
	return d.change(user, kind, ruleID, func(r *Rule) { r.Actions = actions }, func(c *Change) { c.Actions = actions })
}

func (d *Document) change(user id.UserID, kind Kind, ruleID string, own func(*Rule), predefined func(*Change)) error {
	d.classes.Store(nil)
	if at := find(d.Rules[kind], ruleID); at >= 0 {
		own(&d.Rules[kind][at])
		return d.Rules[kind][at].bounds()
	}
	if find(Defaults(user)[kind], ruleID) < 0 {
		return notFound(kind, ruleID)
	}
	if d.Changes == nil {
		d.Changes = make(map[string]Change)
	}
	c := d.Changes[ruleID]
	predefined(&c)
	d.Changes[ruleID] = c
	return actionsBounds(c.Actions)
}

// Inherit gives a room the room rule of another, which it replaces (§ Room Upgrades). It tells whether anything
// changes.
func (d *Document) Inherit(from, to id.RoomID) bool {
	rules := d.Rules[Room]
	at := find(rules, string(from))
	if at < 0 || find(rules, string(to)) >= 0 || d.count() >= MaxRules {
		return false
	}
	rule := rules[at]
	rule.RuleID = string(to)
	d.Rules[Room] = slices.Insert(slices.Clone(rules), at, rule)
	d.classes.Store(nil)
	return true
}

func (d *Document) count() int {
	n := 0
	for _, rules := range d.Rules {
		n += len(rules)
	}
	return n
}

// check refuses what the specification does not allow in a rule of a user, and clears what the kind does not have.
func (r *Rule) check(kind Kind) error {
	switch {
	case r.RuleID == "" || len(r.RuleID) > id.MaxLength:
		return mxerr.InvalidParam("a rule id has 1 to %d bytes", id.MaxLength)
	case strings.HasPrefix(r.RuleID, "."):
		return mxerr.InvalidParam("rule ids that begin with a dot are reserved for the server's default rules")
	case strings.ContainsAny(r.RuleID, `/\`):
		return mxerr.InvalidParam("a rule id must not contain slashes or backslashes")
	case r.Actions == nil:
		return mxerr.MissingParam("a push rule needs actions, if only an empty list")
	case kind == Content && r.Pattern == "":
		return mxerr.MissingParam("a content rule needs a pattern")
	}
	if kind != Content {
		r.Pattern = ""
	}
	switch {
	case kind != Override && kind != Underride:
		r.Conditions = nil
	case r.Conditions == nil:
		r.Conditions = []Condition{}
	}
	for _, c := range r.Conditions {
		if c.Kind == "" {
			return mxerr.BadJSON("each condition needs a kind")
		}
	}
	var err error
	if r.Actions, err = cleanActions(r.Actions); err != nil {
		return err
	}
	return r.bounds()
}

// cleanActions refuses what is no action and drops historical ones (§ Historical Actions).
func cleanActions(actions []json.RawMessage) ([]json.RawMessage, error) {
	clean := []json.RawMessage{}
	for _, a := range actions {
		a = bytes.TrimSpace(a)
		var name string
		if json.Unmarshal(a, &name) == nil {
			if name != "dont_notify" && name != "coalesce" {
				clean = append(clean, a)
			}
			continue
		}
		var tweak struct {
			SetTweak *string `json:"set_tweak"`
		}
		if json.Unmarshal(a, &tweak) != nil || len(a) == 0 || a[0] != '{' || tweak.SetTweak == nil {
			return nil, mxerr.BadJSON("an action is a string, or an object with set_tweak")
		}
		clean = append(clean, a)
	}
	return clean, nil
}

func find(rules []Rule, ruleID string) int {
	return slices.IndexFunc(rules, func(r Rule) bool { return r.RuleID == ruleID })
}

func notFound(kind Kind, ruleID string) error {
	return mxerr.NotFound("there is no %s push rule %q", kind, ruleID)
}
