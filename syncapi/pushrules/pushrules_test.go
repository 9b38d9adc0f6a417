package pushrules

import (
	"encoding/json"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

const alice, room = id.UserID("@alice:test"), id.RoomID("!r:test")

func event(t *testing.T, fields string) *pdu.Event {
	t.Helper()
	e, err := pdu.ParseTrusted("10", "$event", []byte(`{"room_id":"!r:test","sender":"@bob:test","origin_server_ts":1,"depth":1,"prev_events":[],"auth_events":[],`+fields+`}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func message(t *testing.T, content string) *pdu.Event {
	return event(t, `"type":"m.room.message","content":`+content)
}

func power(may func(key string) bool) func() (func(string) bool, error) {
	return func() (func(string) bool, error) { return may, nil }
}

var all = power(func(string) bool { return true })

// evaluate is Evaluate without a bound, of a Subject that never fails.
func evaluate(t *testing.T, e *Evaluator, s *Subject) Result {
	t.Helper()
	r, err := e.Evaluate(s, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDefaultRules(t *testing.T) {
	rules := Compile(new(Document).Merge(alice))
	for name, c := range map[string]struct {
		fields            string
		members           int64
		notify, highlight bool
	}{
		"message":              {`"type":"m.room.message","content":{"body":"x","msgtype":"m.text"}`, 3, true, false},
		"message one to one":   {`"type":"m.room.message","content":{"body":"x"}`, 2, true, false},
		"notice":               {`"type":"m.room.message","content":{"body":"x","msgtype":"m.notice"}`, 3, false, false},
		"encrypted":            {`"type":"m.room.encrypted","content":{}`, 3, true, false},
		"invite for me":        {`"type":"m.room.member","state_key":"@alice:test","content":{"membership":"invite"}`, 3, true, false},
		"invite for another":   {`"type":"m.room.member","state_key":"@carol:test","content":{"membership":"invite"}`, 3, false, false},
		"user mention":         {`"type":"m.room.message","content":{"m.mentions":{"user_ids":["@carol:test","@alice:test"]}}`, 3, true, true},
		"mention of another":   {`"type":"m.room.topic","state_key":"","content":{"m.mentions":{"user_ids":["@carol:test"]}}`, 3, false, false},
		"room mention":         {`"type":"m.room.message","content":{"m.mentions":{"room":true}}`, 3, true, true},
		"room mention, string": {`"type":"m.x","content":{"m.mentions":{"room":"true"}}`, 3, false, false},
		"tombstone":            {`"type":"m.room.tombstone","state_key":"","content":{}`, 3, true, true},
		"tombstone, no state":  {`"type":"m.room.tombstone","content":{}`, 3, false, false},
		"reaction":             {`"type":"m.reaction","content":{}`, 3, false, false},
		"server acl":           {`"type":"m.room.server_acl","state_key":"","content":{}`, 3, false, false},
		"edit":                 {`"type":"m.room.message","content":{"m.relates_to":{"rel_type":"m.replace"}}`, 3, false, false},
		"edit with mention":    {`"type":"m.room.message","content":{"m.mentions":{"user_ids":["@alice:test"]},"m.relates_to":{"rel_type":"m.replace"}}`, 3, true, true},
		"call":                 {`"type":"m.call.invite","content":{}`, 3, true, false},
		"other":                {`"type":"m.other","content":{}`, 3, false, false},
	} {
		got := evaluate(t, rules, &Subject{Event: event(t, c.fields), Members: c.members, Power: all})
		if got.Notify != c.notify || got.Highlight != c.highlight {
			t.Errorf("%s: notify %v highlight %v, want %v %v", name, got.Notify, got.Highlight, c.notify, c.highlight)
		}
	}
	mention := event(t, `"type":"m.room.message","content":{"m.mentions":{"room":true}}`)
	if evaluate(t, rules, &Subject{Event: mention, Members: 3,
		Power: power(func(string) bool { return false })}).Highlight {
		t.Error("a room mention highlights without the power to notify the room")
	}
}

func TestConditions(t *testing.T) {
	e := event(t, `"type":"m.x","state_key":"k","content":{"body":"An exciting triple-whammy, Alice_B!","topic":"Lunch plans","n":5,"f":5.5,"nil":null,"a.b":"dot","list":["a",1,{"x":1}],"obj":{}}`)
	s := &Subject{Event: e, Members: 10, Power: power(func(k string) bool { return k == "room" })}
	for raw, want := range map[string]bool{
		`{"kind":"event_match","key":"content.topic","pattern":"lunc?*"}`:         true,
		`{"kind":"event_match","key":"content.topic","pattern":"lunch"}`:          false,
		`{"kind":"event_match","key":"content.body","pattern":"ex*ple"}`:          true,
		`{"kind":"event_match","key":"content.body","pattern":"exciting"}`:        true,
		`{"kind":"event_match","key":"content.body","pattern":"excit"}`:           false,
		`{"kind":"event_match","key":"content.body","pattern":"alice"}`:           false,
		`{"kind":"event_match","key":"content.body","pattern":"WHAMMY"}`:          true,
		`{"kind":"event_match","key":"content.n","pattern":"*"}`:                  false,
		`{"kind":"event_match","key":"content.absent","pattern":"*"}`:             false,
		`{"kind":"event_match","key":"content.topic"}`:                            false,
		`{"kind":"event_match","key":"content.a\\.b","pattern":"dot"}`:            true,
		`{"kind":"event_match","key":"content.a.b","pattern":"dot"}`:              false,
		`{"kind":"event_match","key":"state_key","pattern":"k"}`:                  true,
		`{"kind":"event_match","key":"room_id","pattern":"!r:test"}`:              true,
		`{"kind":"event_match","key":"sender","pattern":"@bob:*"}`:                true,
		`{"kind":"event_match","key":"event_id","pattern":"$event"}`:              true,
		`{"kind":"event_property_is","key":"content.n","value":5}`:                true,
		`{"kind":"event_property_is","key":"content.n","value":"5"}`:              false,
		`{"kind":"event_property_is","key":"content.f","value":5.5}`:              false,
		`{"kind":"event_property_is","key":"content.nil","value":null}`:           true,
		`{"kind":"event_property_is","key":"content.absent","value":null}`:        false,
		`{"kind":"event_property_is","key":"content.obj","value":{}}`:             false,
		`{"kind":"event_property_contains","key":"content.list","value":1}`:       true,
		`{"kind":"event_property_contains","key":"content.list","value":"b"}`:     false,
		`{"kind":"event_property_contains","key":"content.list","value":{"x":1}}`: false,
		`{"kind":"contains_display_name"}`:                                        true,
		`{"kind":"room_member_count","is":"10"}`:                                  true,
		`{"kind":"room_member_count","is":"==9"}`:                                 false,
		`{"kind":"room_member_count","is":">=10"}`:                                true,
		`{"kind":"room_member_count","is":"<10"}`:                                 false,
		`{"kind":"room_member_count","is":"=10"}`:                                 false,
		`{"kind":"room_member_count","is":"many"}`:                                false,
		`{"kind":"sender_notification_permission","key":"room"}`:                  true,
		`{"kind":"sender_notification_permission","key":"other"}`:                 false,
		`{"kind":"org.example.unknown"}`:                                          false,
	} {
		var c Condition
		if err := json.Unmarshal([]byte(raw), &c); err != nil {
			t.Fatal(err)
		}
		holds, _ := compile(&c)
		if got := holds(&trial{Subject: s, displayName: "triple"}); got != want {
			t.Errorf("%s holds: %v, want %v", raw, got, want)
		}
	}
}

func put(t *testing.T, d *Document, kind Kind, ruleID, before, after string) {
	t.Helper()
	rule := Rule{RuleID: ruleID, Actions: []json.RawMessage{}, Pattern: "p"}
	if err := d.Put(kind, rule, before, after); err != nil {
		t.Fatal(err)
	}
}

func TestUserRulesAreOrderedBelowMasterAndAboveDefaults(t *testing.T) {
	d := new(Document)
	put(t, d, Override, "a", "", "")
	put(t, d, Override, "b", "", "")
	put(t, d, Override, "c", "", "b")
	put(t, d, Override, "d", "a", "")
	put(t, d, Override, "b", "", "a")
	var got []string
	for _, r := range d.Merge(alice)[Override] {
		got = append(got, r.RuleID)
	}
	want := []string{master, "c", "d", "a", "b", ".m.rule.suppress_notices"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("order is %v, want it to begin %v", got, want)
		}
	}
	if err := d.Put(Override, Rule{RuleID: "e", Actions: []json.RawMessage{}}, "nowhere", ""); !mxerr.Is(err, "M_UNKNOWN") {
		t.Errorf("a rule before one that is not there: %v", err)
	}
	if err := d.Put(Override, Rule{RuleID: "e", Actions: []json.RawMessage{}}, master, ""); !mxerr.Is(err, "M_UNKNOWN") {
		t.Errorf("a rule relative to a default rule: %v", err)
	}
}

func TestRefusedRules(t *testing.T) {
	none := []json.RawMessage{}
	for name, c := range map[string]struct {
		kind Kind
		rule Rule
		code string
	}{
		"dot":         {Override, Rule{RuleID: ".m.x", Actions: none}, "M_INVALID_PARAM"},
		"slash":       {Override, Rule{RuleID: "a/b", Actions: none}, "M_INVALID_PARAM"},
		"backslash":   {Override, Rule{RuleID: `a\b`, Actions: none}, "M_INVALID_PARAM"},
		"no actions":  {Room, Rule{RuleID: "!a:b"}, "M_MISSING_PARAM"},
		"no pattern":  {Content, Rule{RuleID: "a", Actions: none}, "M_MISSING_PARAM"},
		"bad action":  {Room, Rule{RuleID: "!a:b", Actions: []json.RawMessage{[]byte("5")}}, "M_BAD_JSON"},
		"no kind":     {Override, Rule{RuleID: "a", Actions: none, Conditions: []Condition{{}}}, "M_BAD_JSON"},
		"empty tweak": {Override, Rule{RuleID: "a", Actions: []json.RawMessage{[]byte("{}")}}, "M_BAD_JSON"},
	} {
		d := new(Document)
		if err := d.Put(c.kind, c.rule, "", ""); !mxerr.Is(err, c.code) || len(d.Rules) != 0 {
			t.Errorf("%s: %v, want %s and nothing changed", name, err, c.code)
		}
	}
}

func TestChangesOfDefaultAndOwnRulesSurviveStorage(t *testing.T) {
	d := new(Document)
	put(t, d, Room, string(room), "", "")
	for _, err := range []error{
		d.SetEnabled(alice, Override, master, true),
		d.SetEnabled(alice, Room, string(room), false),
		d.SetActions(alice, Underride, ".m.rule.message", []json.RawMessage{[]byte(`"dont_notify"`)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	d = new(Document)
	if err := json.Unmarshal(raw, d); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Get(alice, Override, master); err != nil || !r.Enabled || !r.Default {
		t.Errorf("master: %+v, %v", r, err)
	}
	if r, err := d.Get(alice, Room, string(room)); err != nil || r.Enabled || r.Default {
		t.Errorf("own rule: %+v, %v", r, err)
	}
	if r, err := d.Get(alice, Underride, ".m.rule.message"); err != nil || len(r.Actions) != 0 || !r.Enabled {
		t.Errorf("changed actions: %+v, %v", r, err)
	}
	if evaluate(t, Compile(d.Merge(alice)), &Subject{Event: message(t, `{"body":"x"}`)}).Notify {
		t.Error("the master rule is on, and a message notifies")
	}
	for _, err := range []error{d.Delete(Override, master), d.Delete(Room, "!x:y"), d.SetEnabled(alice, Room, "!x:y", true), d.SetActions(alice, Room, "!x:y", nil)} {
		if !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("a rule that is not there: %v", err)
		}
	}
	if err := d.Delete(Room, string(room)); err != nil {
		t.Error(err)
	}
}

func TestClassify(t *testing.T) {
	pattern, other := string(room), "!other:test"
	inRoom := func(p *string) []Condition { return []Condition{{Kind: "event_match", Key: "room_id", Pattern: p}} }
	loud := []json.RawMessage{notify}
	quiet := []json.RawMessage{}
	for name, c := range map[string]struct {
		change func(*Document) error
		class  Class
		exact  bool
	}{
		"nothing changed": {func(*Document) error { return nil }, ClassDefault, true},
		"muted": {func(d *Document) error {
			return d.Put(Override, Rule{RuleID: pattern, Actions: quiet, Conditions: inRoom(&pattern)}, "", "")
		}, ClassNone, true},
		"another room muted": {func(d *Document) error {
			return d.Put(Override, Rule{RuleID: other, Actions: quiet, Conditions: inRoom(&other)}, "", "")
		}, ClassDefault, true},
		"mentions only": {func(d *Document) error { return d.Put(Room, Rule{RuleID: pattern, Actions: quiet}, "", "") }, ClassMentions, true},
		"all messages":  {func(d *Document) error { return d.Put(Room, Rule{RuleID: pattern, Actions: loud}, "", "") }, ClassDefault, false},
		"keyword":       {func(d *Document) error { return d.Put(Content, Rule{RuleID: "k", Pattern: "k", Actions: loud}, "", "") }, ClassDefault, false},
		"master":        {func(d *Document) error { return d.SetEnabled(alice, Override, master, true) }, ClassNone, true},
		"sound changed": {func(d *Document) error {
			return d.SetActions(alice, Underride, ".m.rule.message", []json.RawMessage{notify, sound})
		}, ClassDefault, true},
		"message quiet": {func(d *Document) error { return d.SetActions(alice, Underride, ".m.rule.message", quiet) }, ClassDefault, false},
	} {
		d := new(Document)
		if err := c.change(d); err != nil {
			t.Fatal(name, err)
		}
		if class, exact := d.Classify(room); class != c.class || exact != c.exact {
			t.Errorf("%s: class %d exact %v, want %d %v", name, class, exact, c.class, c.exact)
		}
	}
}

func TestByClassAgreesWithTheRulesOfSuchAUser(t *testing.T) {
	mentions := new(Document)
	put(t, mentions, Room, string(room), "", "")
	rules := [Classes]*Evaluator{Compile(new(Document).Merge(alice)), Compile(mentions.Merge(alice)), Compile(nil)}
	for _, fields := range []string{
		`"type":"m.room.message","content":{"body":"x"}`, `"type":"m.room.message","content":{"m.mentions":{"room":true}}`,
		`"type":"m.room.tombstone","state_key":"","content":{}`, `"type":"m.reaction","content":{}`, `"type":"m.call.invite","content":{}`,
	} {
		s := &Subject{Event: event(t, fields), Members: 3, Power: all}
		got, err := ByClass(s)
		if err != nil {
			t.Fatal(err)
		}
		for class := range got {
			want := evaluate(t, rules[class], s)
			if got[class].Notify != want.Notify || got[class].Highlight != want.Highlight {
				t.Errorf("%s: class %d says %+v, the rules %+v", fields, class, got[class], want)
			}
		}
	}
}
