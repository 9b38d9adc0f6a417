package pushrules

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
)

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
	names bool
	cost  int
	size  int
}

type compiled struct {
	conditions []condition
	result     Result
	predefined bool
}

// Sizes in memory, about.
const (
	sizeOfRule      = 200
	sizeOfCondition = 200
)

// Compile prepares the enabled rules of a set.
func Compile(set Ruleset) *Evaluator {
	e := new(Evaluator)
	for _, kind := range kinds {
		for i := range set[kind] {
			if r := &set[kind][i]; r.Enabled {
				e.add(kind, r)
			}
		}
	}
	return e
}

func (e *Evaluator) add(kind Kind, r *Rule) {
	c := compiled{result: resultOf(r.Actions), predefined: r.Default}
	cost := 1
	switch kind {
	case Content:
		holds, more := eventMatch("content.body", r.Pattern)
		c.conditions, cost = []condition{holds}, cost+more
	case Room:
		room := id.RoomID(r.RuleID)
		c.conditions = []condition{func(t *trial) bool { return t.Event.RoomID() == room }}
	case Sender:
		sender := id.UserID(r.RuleID)
		c.conditions = []condition{func(t *trial) bool { return t.Event.Sender() == sender }}
	default:
		for i := range r.Conditions {
			holds, more := compile(&r.Conditions[i])
			c.conditions, cost = append(c.conditions, holds), cost+more
			e.names = e.names || r.Conditions[i].Kind == displayNameKind
		}
	}
	e.rules = append(e.rules, c)
	e.size += sizeOfRule + sizeOfCondition*len(c.conditions) + r.jsonSize()
	if !r.Default {
		e.cost += cost
	}
}

// NeedsDisplayName tells whether a condition looks for the display name of the rules' owner.
func (e *Evaluator) NeedsDisplayName() bool { return e.names }

// Cost is how much work the user's own rules may take, compared with those of others.
func (e *Evaluator) Cost() int { return e.cost }

// Size is about how many bytes of memory it has.
func (e *Evaluator) Size() int { return e.size }

// Evaluate finds the first rule that matches. The caller leaves out the user's own events, which never notify.
// displayName is that of the rules' owner in the room, if they need it. Once the work is spent, no further rule of the
// user's own matches; the default rules do, as they need no budget. Errors are those of the Subject's Power.
func (e *Evaluator) Evaluate(s *Subject, displayName string, w *glob.Work) (Result, error) {
	if len(displayName) > MaxText {
		displayName = "" // nobody has such a name by the endpoints of profiles
	}
	t := trial{Subject: s, displayName: strings.ToLower(displayName)}
	for i := range e.rules {
		if t.work = w; e.rules[i].predefined {
			t.work = nil
		}
		if t.matches(&e.rules[i]) {
			return e.rules[i].result, s.err
		}
	}
	return Result{}, s.err
}

func (t *trial) matches(r *compiled) bool {
	for _, holds := range r.conditions {
		if !t.work.Spend(1) || !holds(t) {
			return false
		}
	}
	return t.work.Spend(1) // a rule without conditions takes a step too
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
