package glob

import (
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/test"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "anything", true}, {"?", "", false}, {"?", "é", true},
		{"m.room.*", "m.room.message", true}, {"m.room.*", "m.room", false}, {"*.member", "m.room.member", true},
		{"lunc?*", "lunch plans", true}, {"lunc?*", "lunc", false}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false},
		{"*a", "aba", true}, {"**", "x", true}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"[a]", "a", false}, {"[a]", "[a]", true},
		{"日?語", "日本語", true}, {"a*a", "a", false}, {"*?", "", false}, {"*??", "é", false},
		{"*?é", "é", false}, {"??*", "é", false},
	} {
		if got := Match(c.pattern, c.s); got != c.want {
			t.Errorf("Match(%q, %q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

func TestContainsWord(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		// The specification's examples.
		{"ex*ple", "an example event.", true}, {"ex*ple", "exple", true}, {"ex*ple", "an exciting triple-whammy", true},
		{"word", "word", true}, {"word", "a word.", true}, {"word", "words", false}, {"word", "sword", false},
		{"word", "word_", false}, {"word", "words word", true}, {"word", "éwordé", true}, {"é", "aéb", false},
		{"é", "a é b", true}, {"a b", "a bc a b", true}, {"a-b", "xa-b", false}, {"*", "", true}, {"*", "x", true},
		{"?", "", false}, {"?", "ab", false}, {"?", "ab c", true}, {"??", "é!", true}, {"a*", "xa a", true},
		{"a*", "xa", false}, {"*a", "ab", false}, {"*a", "ba", true}, {"", "a", false}, {"a*b*c", "a b c", true},
		{"a*b*c", "a c b", false}, {"a*b*c", "a bc!", true}, {"a*b*c", "a bcd", false}, {"?a", "éa", true},
	} {
		if got := ContainsWord(c.pattern, c.s, nil); got != c.want {
			t.Errorf("ContainsWord(%q, %q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

// The meaning of patterns, as regular expressions say it.
func meaning(pattern, begin, end string) *regexp.Regexp {
	quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`(?s)` + begin + quoted + end)
}

func checkMeaning(t *testing.T, pattern, s string) {
	t.Helper()
	if got, want := Match(pattern, s), meaning(pattern, `\A`, `\z`).MatchString(s); got != want {
		t.Errorf("Match(%q, %q) = %v, want %v", pattern, s, got, want)
	}
	want := pattern != "" && meaning(pattern, `(?:\A|[^A-Za-z0-9_])`, `(?:[^A-Za-z0-9_]|\z)`).MatchString(s)
	if got := ContainsWord(pattern, s, nil); got != want {
		t.Errorf("ContainsWord(%q, %q) = %v, want %v", pattern, s, got, want)
	}
	if IsWord(pattern) && slices.Contains(Words(s), pattern) != want {
		t.Errorf("the words of %q have %q: %v, want %v", s, pattern, !want, want)
	}
	for budget := range 20 {
		w := &Work{Left: budget}
		if ContainsWord(pattern, s, w) && !want {
			t.Errorf("ContainsWord(%q, %q) with %d steps: a match that is none", pattern, s, budget)
		}
	}
}

func TestAPatternMeansWhatTheRegularExpressionMeans(t *testing.T) {
	r := rand.New(rand.NewPCG(test.Seed(t), 0))
	text := func(alphabet []rune, most int) string {
		s := make([]rune, r.IntN(most+1))
		for i := range s {
			s[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(s)
	}
	for range 30_000 {
		checkMeaning(t, text([]rune("aab- é日*?*"), 6), text([]rune("aab- é日_"), 12))
		if t.Failed() {
			return
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*?b", "axyb")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(s) || len(pattern) > 100 {
			return // what is JSON is valid, and what is long takes a regular expression long
		}
		checkMeaning(t, pattern, s)
	})
}

// steps counts what a match takes.
func steps(match func(*Work) bool) int {
	w := &Work{Left: math.MaxInt}
	match(w)
	return math.MaxInt - w.Left
}

func TestTheWorkOfAHostilePatternIsTheProductOfTheLengthsAtMost(t *testing.T) {
	for _, part := range []string{"a*", "a?*", "?", "*?", "aaaaaaaa", "a*b", "?*a", "é*", "a é", "**"} {
		for _, piece := range []string{"a", "aé", "a ", "b", "é", " "} {
			for _, factor := range []int{1, 10} {
				pattern, text := strings.Repeat(part, 200/len(part))+"b", strings.Repeat(piece, factor*1000/len(piece))
				for name, match := range map[string]func(*Work) bool{
					"whole": func(w *Work) bool { return MatchWithin(pattern, text, w) },
					"word":  func(w *Work) bool { return ContainsWord(pattern, text, w) },
				} {
					if n, most := steps(match), 2*len(pattern)*(len(text)+1); n > most {
						t.Errorf("%s: %q... and %d bytes of %q: %d steps, want %d at most", name, part, len(text),
							piece, n, most)
					}
				}
			}
		}
	}
}

func TestAnOrdinaryPatternIsLinearInTheText(t *testing.T) {
	text := strings.Repeat("the quick brown fox jumps over the lazy dog. ", 1000)
	for _, pattern := range []string{"den*ite", "dendrite", "fox*cat", "a ?uick brown"} {
		if n := steps(func(w *Work) bool { return ContainsWord(pattern, text, w) }); n > len(text) {
			t.Errorf("%q takes %d steps in a text of %d bytes", pattern, n, len(text))
		}
	}
}

func TestNothingMatchesWithoutWork(t *testing.T) {
	pattern, text := strings.Repeat("a*", 500)+"b", strings.Repeat("a", 60_000)+"b"
	w := &Work{Left: 1000}
	if ContainsWord(pattern, text, w) || !w.Spent() {
		t.Error("a match goes on with its budget spent")
	}
	if ContainsWord("a", "a", w) || MatchWithin("a", "a", w) {
		t.Error("something matches without a step")
	}
	if !ContainsWord(pattern, text, nil) {
		t.Error("it does not match without a bound")
	}
}

func TestMatchStarTakesOnlyTheStarAsSpecial(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"m.room.*", "m.room.message", true}, {"a?c", "abc", false}, {"a?c", "a?c", true}, {"*", "", true}, {"a*a", "a", false},
		{"a*b*c", "a-b-b-c", true}, {"*x*", "axb", true}, {"*x*", "ab", false}, {"**", "z", true},
	} {
		if got := MatchStar(c.pattern, c.s); got != c.want {
			t.Errorf("MatchStar(%q, %q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}
