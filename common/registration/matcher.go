package registration

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"

	"github.com/dlclark/regexp2"

	"github.com/matrix-org/dendrite/common/lru"
)

const (
	// maxRegex is the longest regular expression, in bytes.
	maxRegex = 4096
	// maxMatch is how long an expression that only the slower engine knows may take for an id.
	maxMatch = 50 * time.Millisecond
	// keepUnsure is how long the answer is kept where an expression took too long: a process that was busy asks again, and an
	// id that makes an expression slow does so once in that time.
	keepUnsure = time.Minute
	// cacheBytes is how much of answers each matcher keeps.
	cacheBytes = 8 << 20
)

// matcher finds the services of an id among all expressions of a kind. Expressions are found by the text that they begin
// with, so that those of other services cost nothing.
type matcher struct {
	// byPrefix has the expressions by the text that all their ids begin with; lengths are those of these texts.
	byPrefix map[string][]expression
	lengths  []int
	order    map[*Registration]int
	cache    *lru.Cache[string, match]
	now      func() time.Time
}

type expression struct {
	matches   func(string) (is, sure bool)
	exclusive bool
	of        *Registration
}

// match is the services that an id belongs to, in the order of their files.
type match struct {
	is, exclusive []*Registration
	until         time.Time // zero: for good
}

func newMatcher() *matcher {
	return &matcher{byPrefix: make(map[string][]expression), order: make(map[*Registration]int), now: time.Now,
		cache: lru.New(cacheBytes, func(id string, m match) int { return len(id) + 8*(len(m.is)+len(m.exclusive)) })}
}

func (m *matcher) add(r *Registration, kind string, namespaces []Namespace) error {
	m.order[r] = len(m.order)
	for i, n := range namespaces {
		matches, err := compile(n.Regex)
		if err != nil {
			return fmt.Errorf("%s: namespaces.%s[%d].regex: %w", r.File, kind, i, err)
		}
		prefix := literalPrefix(n.Regex)
		m.byPrefix[prefix] = append(m.byPrefix[prefix], expression{matches: matches, exclusive: n.Exclusive, of: r})
		if at, has := slices.BinarySearch(m.lengths, len(prefix)); !has {
			m.lengths = slices.Insert(m.lengths, at, len(prefix))
		}
	}
	return nil
}

func (m *matcher) match(id string) match {
	if len(m.lengths) == 0 {
		return match{}
	}
	if found, has := m.cache.Get(id); has && (found.until.IsZero() || m.now().Before(found.until)) {
		return found
	}
	var found match
	for _, n := range m.lengths {
		if n > len(id) {
			break
		}
		for _, e := range m.byPrefix[id[:n]] {
			if slices.Contains(found.exclusive, e.of) || !e.exclusive && slices.Contains(found.is, e.of) {
				continue
			}
			is, sure := e.matches(id)
			if !sure {
				found.until = m.now().Add(keepUnsure)
			}
			if !is {
				continue
			}
			if !slices.Contains(found.is, e.of) {
				found.is = append(found.is, e.of)
			}
			if e.exclusive {
				found.exclusive = append(found.exclusive, e.of)
			}
		}
	}
	byFile := func(a, b *Registration) int { return m.order[a] - m.order[b] }
	slices.SortFunc(found.is, byFile)
	slices.SortFunc(found.exclusive, byFile)
	m.cache.Add(id, found)
	return found
}

// compile makes an expression that matches from the start. Bridges write their files for engines that know look-ahead and
// the like, which Go's does not: these go to a slower one. What takes too long does not match, but that is not sure.
func compile(regex string) (func(string) (is, sure bool), error) {
	if len(regex) > maxRegex {
		return nil, fmt.Errorf("it has %d bytes, and at most %d are read: write it shorter", len(regex), maxRegex)
	}
	fast, err := regexp.Compile("^(?:" + regex + ")")
	if err == nil {
		return func(id string) (bool, bool) { return fast.MatchString(id), true }, nil
	}
	slow, slowErr := regexp2.Compile("^(?:"+regex+")", regexp2.None)
	if slowErr != nil {
		return nil, fmt.Errorf("%q is no regular expression: %w", regex, err)
	}
	slow.MatchTimeout = maxMatch
	return func(id string) (bool, bool) {
		is, err := slow.MatchString(id)
		return err == nil && is, err == nil
	}, nil
}

// literalPrefix is text that everything begins with that the expression matches from the start. It may be shorter than it
// could be.
func literalPrefix(regex string) string {
	parsed, err := syntax.Parse("^(?:"+regex+")", syntax.Perl)
	if err != nil {
		return ""
	}
	var prefix []rune
	var walk func(re *syntax.Regexp) bool // tells whether what follows continues the prefix
	walk = func(re *syntax.Regexp) bool {
		switch re.Op {
		case syntax.OpBeginText, syntax.OpBeginLine, syntax.OpEmptyMatch:
			return true
		case syntax.OpLiteral:
			if re.Flags&syntax.FoldCase != 0 {
				return false
			}
			prefix = append(prefix, re.Rune...)
			return true
		case syntax.OpCapture:
			return walk(re.Sub[0])
		case syntax.OpConcat:
			for _, sub := range re.Sub {
				if !walk(sub) {
					return false
				}
			}
			return true
		}
		return false
	}
	walk(parsed)
	return string(prefix)
}
