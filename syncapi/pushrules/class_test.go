package pushrules

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/test"
)

// Users of a class share its counts, so where a document is said to follow a class in all, its rules say what the class
// says.
func TestAnExactClassSaysWhatTheRulesSay(t *testing.T) {
	r := rand.New(rand.NewPCG(test.Seed(t), 0))
	rooms := []string{string(room), "!R:test", "!other:test", "!*:test"}
	random := func(d *Document) error {
		actions := [][]json.RawMessage{{}, {notify}, {notify, highlight}}[r.IntN(3)]
		name := rooms[r.IntN(len(rooms))]
		switch r.IntN(7) {
		case 0, 1, 2:
			rule := override(fmt.Sprint(r.IntN(5)), "room_id", name)
			if rule.Actions = actions; r.IntN(4) == 0 {
				rule.Conditions = append(rule.Conditions, Condition{Kind: "room_member_count", Is: "3"})
			}
			return d.Put(Override, rule, "", "")
		case 3:
			return d.Put(Room, Rule{RuleID: name, Actions: actions}, "", "")
		case 4:
			return d.Put(Content, Rule{RuleID: "k", Pattern: "x", Actions: actions}, "", "")
		case 5:
			return d.SetActions(alice, Underride, ".m.rule.message", actions)
		}
		for _, kind := range []Kind{Override, Content, Room} {
			for _, rule := range d.Rules[kind] {
				if r.IntN(2) == 0 {
					return d.SetEnabled(alice, kind, rule.RuleID, r.IntN(2) == 0)
				}
			}
		}
		return d.SetEnabled(alice, Override, master, r.IntN(8) == 0)
	}
	exacts := 0
	for range 3000 {
		d := new(Document)
		for range r.IntN(5) {
			if err := random(d); err != nil {
				t.Fatal(err)
			}
			d.Classify(room) // what is remembered of it must be forgotten by the next change
		}
		class, exact := d.Classify(room)
		if !exact {
			continue
		}
		exacts++
		e := Compile(d.Merge(alice))
		for _, fields := range []string{
			`"type":"m.room.message","content":{"body":"x"}`,
			`"type":"m.room.message","content":{"m.mentions":{"room":true}}`,
			`"type":"m.reaction","content":{}`,
		} {
			s := &Subject{Event: event(t, fields), Members: 3, Power: all}
			byClass, err := ByClass(s)
			if err != nil {
				t.Fatal(err)
			}
			want := evaluate(t, e, s)
			if got := byClass[class]; got.Notify != want.Notify || got.Highlight != want.Highlight {
				raw, _ := json.Marshal(d)
				t.Fatalf("%s: the class is %d, which says %+v of %s, but the rules say %+v", raw, class, got, fields,
					want)
			}
		}
	}
	if exacts < 100 {
		t.Errorf("only %d documents follow a class", exacts)
	}
}

func TestManyRoomsAreClassifiedByOneLookAtTheRules(t *testing.T) {
	d := new(Document)
	for i := range 500 {
		if err := d.Put(Override, muted(i), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	d.Classify(room)
	first := d.classes.Load()
	for i := range 10_000 {
		class, exact := d.Classify(id.RoomID(muted(i).RuleID))
		if want := map[bool]Class{true: ClassNone, false: ClassDefault}[i < 500]; class != want || !exact {
			t.Fatalf("room %d: class %d, exact %v, want %d", i, class, exact, want)
		}
	}
	if d.classes.Load() != first {
		t.Error("the rules are gone through again")
	}
}
