package pushrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/glob"
)

// hostile are documents within the bounds that take as much work as their owner can make them.
func hostile(t *testing.T) map[string]*Document {
	t.Helper()
	stars := strings.Repeat("a*", MaxText/2-1) + "b"
	documents := make(map[string]*Document)
	add := func(name string, kind Kind, n int, rule func(i int) Rule) {
		d := new(Document)
		for i := range n {
			r := rule(i)
			r.RuleID, r.Actions = fmt.Sprint(i), []json.RawMessage{}
			if err := d.Put(kind, r, "", ""); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Encode(0); err != nil {
			t.Fatal(name, err)
		}
		documents[name] = d
	}
	add("keywords of stars", Content, 100, func(int) Rule { return Rule{Pattern: stars} })
	add("question marks", Content, 100, func(int) Rule { return Rule{Pattern: strings.Repeat("?", MaxText-1) + "b"} })
	add("stars on a property", Override, 100, func(int) Rule { return override("", "content.x", stars) })
	add("many conditions", Override, 20, func(int) Rule {
		return Rule{Conditions: times(MaxConditions,
			override("", "content.x", strings.Repeat("a*", 90)+"b").Conditions[0])}
	})
	add("many properties", Underride, 600, func(i int) Rule {
		return override("", fmt.Sprintf("content.d.d.d.%d", i), "*b")
	})
	add("deep properties", Underride, 100, func(i int) Rule {
		return override("", "content"+strings.Repeat(".d", 90)+fmt.Sprint(".", i), "*b")
	})
	add("powers", Override, 500, func(i int) Rule {
		return Rule{Conditions: []Condition{{Kind: "sender_notification_permission", Key: fmt.Sprint(i)}}}
	})
	add("names", Override, 500, func(int) Rule { return Rule{Conditions: []Condition{{Kind: displayNameKind}}} })
	add("other letters", Content, 500, func(i int) Rule {
		return Rule{Pattern: fmt.Sprintf("ключевое слово %d", i)}
	})
	return documents
}

// large is a message of about a number of bytes.
func large(t *testing.T, bytes int) *Subject {
	text := strings.Repeat("a", bytes/3)
	deep := strings.Repeat(`{"d":`, 90) + `"` + text + `"` + strings.Repeat("}", 90)
	return &Subject{Event: message(t, `{"body":"`+text+`","x":"`+text+`","d":`+deep+`}`), Members: 3,
		Power: power(func(string) bool { return false })}
}

func TestTheWorkOfAUsersRulesHasABoundWhateverTheyAreAndTheDefaultRulesStillMatch(t *testing.T) {
	const budget = 256 << 10
	for name, d := range hostile(t) {
		e := Compile(d.Merge(alice))
		for _, size := range []int{6_000, 60_000} {
			limited := &glob.Work{Left: budget}
			displayName := strings.Repeat("a", MaxText) + "b"
			result, err := e.Evaluate(large(t, size), displayName, limited)
			if err != nil || !result.Notify {
				t.Errorf("%s: a message of %d bytes counts as %+v, %v, want as the default rules say", name, size,
					result, err)
			}
			if name == "question marks" && !limited.Spent() {
				t.Errorf("%s take %d steps only: the test is none", name, budget-limited.Left)
			}
			if limited.Left < 0 {
				t.Errorf("%s: more work was done than there was", name)
			}
		}
	}
}

func TestKeywordsTakeTheSameWorkHoweverLongTheMessage(t *testing.T) {
	d := new(Document)
	for i := range 500 {
		if err := d.Put(Content, Rule{RuleID: fmt.Sprint(i), Pattern: fmt.Sprint("word", i),
			Actions: []json.RawMessage{notify, highlight}}, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	e := Compile(d.Merge(alice))
	steps := make(map[int]int)
	for _, size := range []int{500, 5000} {
		w := &glob.Work{Left: math.MaxInt}
		s := &Subject{Event: message(t, `{"body":"`+strings.Repeat("some words ", size)+`WORD7!"}`), Members: 3}
		if evaluate(t, nobody, s); s.properties == nil {
			t.Fatal("nothing is kept of an event for the next user")
		}
		r, err := e.Evaluate(s, "", w)
		if err != nil || !r.Highlight {
			t.Errorf("a keyword of 500 is not found: %+v, %v", r, err)
		}
		steps[size] = math.MaxInt - w.Left
		again := &glob.Work{Left: math.MaxInt}
		if _, err := e.Evaluate(s, "", again); err != nil {
			t.Fatal(err)
		}
		if n := math.MaxInt - again.Left; n > 3*500 {
			t.Errorf("the next user's %d keywords take %d steps", 500, n)
		}
	}
}

func TestCompiledRulesAreAsLargeAsTheirTexts(t *testing.T) {
	size := func(pattern string) uint64 {
		d := &Document{Rules: map[Kind][]Rule{Content: times(50, Rule{RuleID: "r", Enabled: true, Pattern: pattern})}}
		set := d.Merge(alice)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e := Compile(set)
		runtime.ReadMemStats(&after)
		if e.Size() < 50*len(pattern) {
			t.Errorf("50 patterns of %d bytes are said to take %d", len(pattern), e.Size())
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, part := range []string{"*?", "a*", "Ä?"} {
		small, large := size(strings.Repeat(part, 50)), size(strings.Repeat(part, 500))
		if most := small + 50*900*4; large > most {
			t.Errorf("50 patterns of %q take %d bytes of memory, ten times as long ones %d, want %d at most", part,
				small, large, most)
		}
	}
}

func TestThePowerOfTheSenderIsAskedForOnceAndWhereARuleWantsIt(t *testing.T) {
	d := new(Document)
	rule := override("announcement", "content.body", "everybody")
	rule.Conditions = append(rule.Conditions, Condition{Kind: "sender_notification_permission", Key: "room"})
	if err := d.Put(Override, rule, "", ""); err != nil {
		t.Fatal(err)
	}
	e, asked := Compile(d.Merge(alice)), 0
	s := &Subject{Event: message(t, `{"body":"hello everybody"}`), Members: 3,
		Power: func() (func(string) bool, error) {
			asked++
			return func(key string) bool { return key == "room" }, nil
		}}
	for range 2 {
		if !evaluate(t, e, s).Highlight {
			t.Error("a rule on the power of the sender does not match an event without m.mentions")
		}
	}
	evaluate(t, nobody, &Subject{Event: s.Event, Power: s.Power})
	if asked != 1 {
		t.Errorf("the power was asked for %d times, want once", asked)
	}
	fails := &Subject{Event: s.Event, Power: func() (func(string) bool, error) { return nil, errors.New("away") }}
	if _, err := e.Evaluate(fails, "", nil); err == nil {
		t.Error("nobody hears that the power could not be found out")
	}
}

func TestPathsGoThroughObjectsOnly(t *testing.T) {
	s := &Subject{Event: message(t,
		`{"list":["a"],"text":"b","obj":{"0":"c","#":"d","*":"e"},"m.mentions":{"user_ids":"@alice:test"}}`)}
	for _, c := range []struct {
		key, pattern string
		want         bool
	}{
		{"content.list.0", "a", false}, {"content.list.#", "*", false}, {"content.text.x", "*", false},
		{"content.obj.0", "c", true}, {"content.obj.#", "d", true}, {"content.obj.*", "e", true},
		{"content.obj.?", "*", false}, {"content.@this", "*", false}, {"content.obj.@keys", "*", false},
		{"content.", "*", false}, {"", "*", false}, {`content\.text`, "*", false},
	} {
		holds, _ := eventMatch(c.key, c.pattern)
		if holds(&trial{Subject: s}) != c.want {
			t.Errorf("%s matches %q: %v, want %v", c.key, c.pattern, !c.want, c.want)
		}
	}
	if evaluate(t, Compile(new(Document).Merge(alice)), s).Highlight {
		t.Error("m.mentions.user_ids that is a string mentions somebody")
	}
}

func TestAnEventIsNotCopiedForEachRule(t *testing.T) {
	d := new(Document)
	for i := range 200 {
		for name, c := range map[string]Condition{
			"is":       {Kind: "event_property_is", Key: "content.x", Value: json.RawMessage(`"y"`)},
			"contains": {Kind: "event_property_contains", Key: "content.x", Value: json.RawMessage(`"y"`)},
			"match":    {Kind: "event_match", Key: "content.x", Pattern: new(string)},
		} {
			rule := Rule{RuleID: fmt.Sprint(name, i), Actions: []json.RawMessage{}, Conditions: []Condition{c}}
			if err := d.Put(Override, rule, "", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	e := Compile(d.Merge(alice))
	allocated := func(size int) uint64 {
		s := large(t, size)
		evaluate(t, e, s) // reads the event
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		evaluate(t, e, s)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if small, large := allocated(6_000), allocated(60_000); large > small+60_000 {
		t.Errorf("600 rules allocate %d bytes for a message of 6 KB, %d for one of 60 KB", small, large)
	}
}
