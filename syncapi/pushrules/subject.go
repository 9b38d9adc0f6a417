package pushrules

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/pdu"
)

// Subject is an event and what else the conditions look at. It keeps what one user's rules have asked of the event for
// those of the next, and therefore belongs to one goroutine.
type Subject struct {
	Event   *pdu.Event
	Members int64 // joined members of the room
	// Power tells whether the sender has the power to trigger notifications of a kind, such as "room". It is called
	// when a rule asks.
	Power func() (func(key string) bool, error)

	properties map[string]*property
	mayNotify  func(key string) bool
	powers     map[string]bool
	err        error
}

// property is a value in the event. The values of all properties together are no larger than the event, so what is made
// of them once needs no budget.
type property struct {
	gjson.Result
	lower    *string
	words    map[string]struct{}
	elements map[string]struct{}
}

// lowered is a text without differences of case.
func (p *property) lowered() string {
	if p.lower == nil {
		lower := strings.ToLower(p.Str)
		p.lower = &lower
	}
	return *p.lower
}

// hasWord tells whether a text has a word, without differences of case.
func (p *property) hasWord(word string) bool {
	if p.words == nil {
		p.words = make(map[string]struct{})
		for _, w := range glob.Words(p.lowered()) {
			p.words[w] = struct{}{}
		}
	}
	_, has := p.words[word]
	return has
}

// contains tells whether an array has a value that is not compound, by its exact name.
func (p *property) contains(want string) bool {
	if !p.IsArray() {
		return false
	}
	if p.elements == nil {
		p.elements = make(map[string]struct{})
		p.ForEach(func(_, v gjson.Result) bool {
			if name, simple := exact(v); simple {
				p.elements[name] = struct{}{}
			}
			return true
		})
	}
	_, has := p.elements[want]
	return has
}

// exact names a value that is not compound: a string, an integer, a boolean or null.
func exact(v gjson.Result) (name string, simple bool) {
	switch v.Type {
	case gjson.String:
		return `"` + v.Str, true
	case gjson.Number:
		return v.Raw, !strings.ContainsAny(v.Raw, ".eE")
	case gjson.True, gjson.False:
		return v.Raw, true
	case gjson.Null:
		return v.Raw, v.Raw == "null" // it is there
	}
	return "", false
}

// same compares values that are not compound, exactly, without a copy of what may be long.
func same(got, want gjson.Result) bool {
	if got.Type == gjson.String && want.Type == gjson.String {
		return got.Str == want.Str
	}
	a, simple := exact(want)
	b, has := "", false
	if got.Type != gjson.String {
		b, has = exact(got)
	}
	return simple && has && a == b
}

// at finds a property. It takes work to look for one that nobody has asked for; nil if there is not enough.
func (s *Subject) at(path *path, w *glob.Work) *property {
	if p := s.properties[path.name]; p != nil {
		return p
	}
	if path.name == body.name {
		w = nil // it is for all users, once
	}
	value, found := path.in(s.Event, w)
	if !found {
		return nil
	}
	if s.properties == nil {
		s.properties = make(map[string]*property)
	}
	p := &property{Result: value}
	s.properties[path.name] = p
	return p
}

// workOfPower is what it takes to look for a level.
const workOfPower = 4096

// hasPower tells whether the sender may trigger notifications of a kind.
func (s *Subject) hasPower(key string, w *glob.Work) bool {
	if has, known := s.powers[key]; known {
		return has
	}
	if s.Power == nil || s.err != nil || !w.Spend(workOfPower) {
		return false
	}
	if s.mayNotify == nil {
		if s.mayNotify, s.err = s.Power(); s.err != nil {
			return false
		}
		s.powers = make(map[string]bool)
	}
	s.powers[key] = s.mayNotify(key)
	return s.powers[key]
}
