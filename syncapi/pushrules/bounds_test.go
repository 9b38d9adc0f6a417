package pushrules

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// override is an override rule of one condition on the text of a property.
func override(ruleID, key, pattern string) Rule {
	return Rule{RuleID: ruleID, Enabled: true, Actions: []json.RawMessage{notify, highlight},
		Conditions: []Condition{{Kind: "event_match", Key: key, Pattern: &pattern}}}
}

func times[T any](n int, v T) []T { return slices.Repeat([]T{v}, n) }

// tooLargeRules are rules beyond each bound.
func tooLargeRules() map[string]struct {
	kind Kind
	rule Rule
	code string
} {
	long := strings.Repeat("x", MaxText+1)
	value, err := json.Marshal(long)
	if err != nil {
		value = nil
	}
	with := func(c ...Condition) Rule {
		return Rule{RuleID: "r", Enabled: true, Actions: []json.RawMessage{notify}, Conditions: c}
	}
	rules := map[string]struct {
		kind Kind
		rule Rule
		code string
	}{
		"pattern of content": {Content, Rule{RuleID: "r", Enabled: true, Actions: []json.RawMessage{notify},
			Pattern: long}, "M_TOO_LARGE"},
		"pattern": {Override, override("r", "content.x", long), "M_TOO_LARGE"},
		"key":     {Underride, override("r", long, "x"), "M_TOO_LARGE"},
		"is":      {Override, with(Condition{Kind: "room_member_count", Is: long}), "M_TOO_LARGE"},
		"kind":    {Override, with(Condition{Kind: long}), "M_TOO_LARGE"},
		"value": {Override, with(Condition{Kind: "event_property_is", Key: "x", Value: value}),
			"M_TOO_LARGE"},
		"conditions": {Override, with(times(MaxConditions+1, Condition{Kind: "contains_display_name"})...),
			"M_INVALID_PARAM"},
		"rule": {Override, with(times(9, override("r", "content.x", long[:MaxText]).Conditions[0])...),
			"M_TOO_LARGE"},
		"action": {Sender, Rule{RuleID: "r", Enabled: true, Actions: []json.RawMessage{value}},
			"M_TOO_LARGE"},
		"actions": {Room, Rule{RuleID: "r", Enabled: true, Actions: times(MaxActions+1, notify)},
			"M_INVALID_PARAM"},
	}
	return rules
}

func TestARuleBeyondABoundIsRefused(t *testing.T) {
	for name, c := range tooLargeRules() {
		d := new(Document)
		if err := d.Put(c.kind, c.rule, "", ""); !mxerr.Is(err, c.code) || len(d.Rules) > 0 {
			t.Errorf("%s: %v, want %s and nothing changed", name, err, c.code)
		}
	}
	long := json.RawMessage(`{"set_tweak":"` + strings.Repeat("x", MaxText) + `"}`)
	for name, kind := range map[string]Kind{".m.rule.message": Underride, "own": Sender} {
		d := new(Document)
		put(t, d, Sender, "own", "", "")
		if err := d.SetActions(alice, kind, name, []json.RawMessage{long}); !mxerr.Is(err, "M_TOO_LARGE") {
			t.Errorf("a long action of %s: %v", name, err)
		}
		if err := d.SetActions(alice, kind, name, times(MaxActions+1, notify)); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("many actions of %s: %v", name, err)
		}
	}
}

func encoded(t *testing.T, d *Document) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decoded(t *testing.T, raw json.RawMessage) *Document {
	t.Helper()
	d := new(Document)
	if err := json.Unmarshal(raw, d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAStoredRuleBeyondABoundIsSeenAndDeletedAndNeverMatches(t *testing.T) {
	match := message(t, `{"body":"x","x":"`+strings.Repeat("x", MaxText+1)+`"}`)
	for name, c := range tooLargeRules() {
		stored := &Document{Rules: map[Kind][]Rule{c.kind: {c.rule}}}
		d := decoded(t, encoded(t, stored))
		rule, err := d.Get(alice, c.kind, "r")
		if err != nil || rule.Enabled || rule.jsonSize() > 500 {
			t.Errorf("%s: the rule is %+v, %v", name, rule, err)
		}
		for _, kind := range []Kind{Override, Underride} {
			if err := d.SetEnabled(alice, kind, "r", true); kind == c.kind && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		got := evaluate(t, Compile(d.Merge(alice)), &Subject{Event: match, Members: 3})
		if !got.Notify || got.Highlight {
			t.Errorf("%s: an event counts as %+v, want as the default rules say", name, got)
		}
		if err := d.Delete(c.kind, "r"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := decoded(t,
		encoded(t, &Document{Changes: map[string]Change{".m.rule.message": {Actions: times(MaxActions+1, notify)}}}))
	if r, err := d.Get(alice, Underride, ".m.rule.message"); err != nil || len(r.Actions) != 1 {
		t.Errorf("a default rule with many actions: %+v, %v, want the default", r, err)
	}
}

func muted(i int) Rule {
	room := fmt.Sprintf("!%018d:matrix.example.org", i)
	return Rule{RuleID: room, Enabled: true, Actions: []json.RawMessage{},
		Conditions: override("", "room_id", room).Conditions}
}

// Whoever had muted as many rooms as they may before documents had a bound has them muted still.
func TestADocumentHasRoomForAsManyMutedRoomsAsThereMayBeRules(t *testing.T) {
	d := new(Document)
	for i := range MaxRules {
		room := fmt.Sprintf("!%043d", i) // the longest name of a room that this server gives
		r := muted(i)
		r.RuleID, r.Conditions = room, override("", "room_id", room).Conditions
		if err := d.Put(Override, r, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Encode(0); err != nil {
		t.Error(err)
	}
	raw := encoded(t, d)
	if again := encoded(t, decoded(t, raw)); string(again) != string(raw) {
		t.Errorf("%d rules for muted rooms, of %d bytes, are others after they were stored", MaxRules, len(raw))
	}
}

func TestADocumentHasABoundFromWhichItCanBeMadeSmaller(t *testing.T) {
	d, n := new(Document), 0
	var raw json.RawMessage
	for ; ; n++ {
		next, r := decoded(t, encoded(t, d)), muted(n)
		r.Actions = []json.RawMessage{json.RawMessage(`{"set_tweak":"` + strings.Repeat("x", MaxText/2) + `"}`)}
		if err := next.Put(Override, r, "", ""); err != nil {
			t.Fatal(err)
		}
		content, err := next.Encode(len(raw))
		if mxerr.Is(err, "M_TOO_LARGE") {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		d, raw = next, content
	}
	if len(raw) > MaxDocument || len(raw) < MaxDocument-MaxRule {
		t.Errorf("%d rules are %d bytes", n, len(raw))
	}
	if again := encoded(t, decoded(t, raw)); string(again) != string(raw) {
		t.Error("a document within the bounds is another one after it was stored")
	}
	if err := d.Delete(Override, muted(0).RuleID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Encode(len(raw)); err != nil {
		t.Errorf("a rule cannot be removed from a full document: %v", err)
	}
}

func TestALargerStoredDocumentIsShownWithinABoundAndCanBeMadeSmaller(t *testing.T) {
	sizes := make(map[int]int)
	for _, n := range []int{1000, 10_000} {
		stored := &Document{Rules: map[Kind][]Rule{Override: {}}}
		for i := range n {
			r := muted(i)
			r.Actions = []json.RawMessage{json.RawMessage(`{"set_tweak":"` + strings.Repeat("x", n/10) + `"}`)}
			stored.Rules[Override] = append(stored.Rules[Override], r)
		}
		raw := encoded(t, stored)
		d := decoded(t, raw)
		sizes[n] = len(encoded(t, d))
		if got := d.count(); got != MaxRules {
			t.Errorf("%d rules are left of %d", got, n)
		}
		if !d.Rules[Override][0].Enabled || d.Rules[Override][MaxRules-1].Enabled {
			t.Error("what is beyond the bound is not what is least important")
		}
		if err := d.Delete(Override, muted(MaxRules-1).RuleID); err != nil {
			t.Error(err)
		}
		if _, err := d.Encode(len(raw)); err != nil {
			t.Errorf("a rule cannot be removed: %v", err)
		}
	}
	if sizes[1000] > 3*MaxDocument || sizes[10_000] > 3*MaxDocument {
		t.Errorf("documents of 1000 and 10000 rules are shown in %v bytes", sizes)
	}
}

func TestARoomInheritsTheRuleOfTheOneThatItReplaces(t *testing.T) {
	d := new(Document)
	if d.Inherit("!a:test", "!b:test") {
		t.Error("a rule that is not there is inherited")
	}
	put(t, d, Room, "!a:test", "", "")
	put(t, d, Room, "!c:test", "", "")
	if !d.Inherit("!a:test", "!b:test") || d.Inherit("!a:test", "!b:test") {
		t.Error("a rule is inherited once")
	}
	if class, _ := d.Classify("!b:test"); class != ClassMentions || find(d.Rules[Room], "!b:test") != 1 {
		t.Errorf("the new room is of class %d, rules %+v", class, d.Rules[Room])
	}
}
