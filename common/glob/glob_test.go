package glob

import (
	"strings"
	"testing"
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
		{"日?語", "日本語", true},
	} {
		if got := Match(c.pattern, c.s); got != c.want {
			t.Errorf("Match(%q, %q) = %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

func TestHostilePatternIsNotExponential(t *testing.T) {
	if Match(strings.Repeat("a*", 2000)+"b", strings.Repeat("a", 5000)) {
		t.Error("a text without b matched a pattern that ends in b")
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*?b", "axyb")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if !HasMeta(pattern) && Match(pattern, s) != (pattern == s) {
			t.Errorf("the plain pattern %q and %q: a match is equality", pattern, s)
		}
		if !Match("*"+pattern+"*", s) && Match(pattern, s) {
			t.Errorf("%q matches %q, but not with stars around it", pattern, s)
		}
	})
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
