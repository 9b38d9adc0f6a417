package pushrules

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// What a user's rules may be. A client writes about 220 bytes for a room that is muted, and MaxRules of these fit into
// a document. Each change rewrites the document, and each sync after a change shows it.
const (
	MaxRules      = 1000      // of a user's own
	MaxDocument   = 256 << 10 // bytes of JSON
	MaxRule       = 8 << 10   // bytes of all texts of a rule
	MaxText       = 1 << 10   // bytes of a pattern, a key, a value or an action
	MaxConditions = 20        // of a rule
	MaxActions    = 20        // of a rule
)

// tooLarge is the kind of condition that is put in place of those of a rule beyond the bounds. It never holds.
const tooLarge = "org.matrix.dendrite.too_large"

// shownOfPattern is how much of the pattern of such a rule is left.
const shownOfPattern = 64 // bytes

// bounds refuses a rule that is too large. Errors are M_INVALID_PARAM for a number, M_TOO_LARGE for a size.
func (r *Rule) bounds() error {
	if len(r.Conditions) > MaxConditions {
		return mxerr.InvalidParam("a push rule may have %d conditions", MaxConditions)
	}
	if err := actionsBounds(r.Actions); err != nil {
		return err
	}
	texts := []int{len(r.Pattern)}
	for i := range r.Conditions {
		c := &r.Conditions[i]
		texts = append(texts, len(c.Kind), len(c.Key), len(c.Is), len(c.Value))
		if c.Pattern != nil {
			texts = append(texts, len(*c.Pattern))
		}
	}
	all := len(r.RuleID)
	for _, n := range texts {
		if all += n; n > MaxText {
			return mxerr.TooLarge("a pattern, key or value of a push rule may have %d bytes", MaxText)
		}
	}
	for _, a := range r.Actions {
		all += len(a)
	}
	if all > MaxRule {
		return mxerr.TooLarge("a push rule may have %d bytes", MaxRule)
	}
	return nil
}

func actionsBounds(actions []json.RawMessage) error {
	if len(actions) > MaxActions {
		return mxerr.InvalidParam("a push rule may have %d actions", MaxActions)
	}
	for _, a := range actions {
		if len(a) > MaxText {
			return mxerr.TooLarge("an action of a push rule may have %d bytes", MaxText)
		}
	}
	return nil
}

// UnmarshalJSON reads a stored document. What is beyond the bounds, since it was stored before there were any, becomes
// a rule that its owner can see and delete, and that never matches.
func (d *Document) UnmarshalJSON(raw []byte) error {
	stored := struct {
		Rules   *map[Kind][]Rule   `json:"rules"`
		Changes *map[string]Change `json:"changes"`
	}{&d.Rules, &d.Changes}
	if err := json.Unmarshal(raw, &stored); err != nil {
		return err
	}
	d.classes.Store(nil)
	size, number, bound := 0, 0, math.MaxInt
	if len(raw) > MaxDocument {
		bound = MaxDocument
	}
	for _, kind := range kinds {
		rules := d.Rules[kind]
		rules = rules[:min(len(rules), MaxRules-number)]
		number += len(rules)
		for i := range rules {
			if r := &rules[i]; r.bounds() != nil || size+r.jsonSize() > bound {
				r.shrink(kind)
			}
			size += rules[i].jsonSize()
		}
		if rules != nil {
			d.Rules[kind] = rules
		}
	}
	for name, change := range d.Changes {
		if actionsBounds(change.Actions) != nil {
			change.Actions = nil
		}
		d.Changes[name] = change
	}
	return nil
}

// jsonSize is about how much JSON a rule is.
func (r *Rule) jsonSize() int {
	const syntax = 60 // names, quotes and braces
	n := syntax + len(r.RuleID) + len(r.Pattern)
	for _, a := range r.Actions {
		n += 1 + len(a)
	}
	for i := range r.Conditions {
		c := &r.Conditions[i]
		n += syntax + len(c.Kind) + len(c.Key) + len(c.Is) + len(c.Value)
		if c.Pattern != nil {
			n += len(*c.Pattern)
		}
	}
	return n
}

func (r *Rule) shrink(kind Kind) {
	r.Enabled, r.Actions = false, []json.RawMessage{}
	r.RuleID = clip(r.RuleID, id.MaxLength)
	r.Pattern = clip(r.Pattern, shownOfPattern)
	if r.Conditions = nil; kind == Override || kind == Underride {
		r.Conditions = []Condition{{Kind: tooLarge}}
	}
}

func clip(s string, bytes int) string {
	return strings.ToValidUTF8(strings.Clone(s[:min(len(s), bytes)]), "")
}

// Encode writes a changed document. M_TOO_LARGE if it is beyond the bound, unless it is smaller than it was before.
func (d *Document) Encode(before int) (json.RawMessage, error) {
	content, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(content) > max(MaxDocument, before) {
		return nil, mxerr.TooLarge("push rules may have %d bytes together: remove some first", MaxDocument)
	}
	return content, nil
}
