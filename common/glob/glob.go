// Package glob matches the glob-style patterns of the specification (Appendices, § Glob-style matching): * matches any
// number of characters, ? exactly one. It takes time proportional to the product of the lengths at worst, whatever the
// pattern, and nothing is compiled: a pattern costs no memory but its own. Where patterns and texts are strangers',
// Work bounds the time.
package glob

import (
	"strings"
	"unicode/utf8"
)

// Match tells whether the whole of s matches pattern. Case counts.
func Match(pattern, s string) bool { return MatchWithin(pattern, s, nil) }

// MatchWithin is Match within a budget: if it runs out, the pattern does not match.
func MatchWithin(pattern, s string, w *Work) bool {
	first, rest, hasStar := strings.Cut(pattern, "*")
	end, compared := prefix(first, s)
	if !w.Spend(1+compared) || end < 0 {
		return false
	}
	if !hasStar {
		return end == len(s)
	}
	last, end := parts(rest, s, end, w)
	if end < 0 {
		return false
	}
	from, compared := suffix(last, s)
	return w.Spend(compared) && from >= end
}

// ContainsWord tells whether a part of s that begins and ends at a word boundary matches pattern (Client-Server API, §
// Push Rules, event_match). Word boundaries are the ends of s, and what is not one of A-Z, a-z, 0-9 and _. An empty
// pattern matches nothing. Case counts.
func ContainsWord(pattern, s string, w *Work) bool {
	if !HasMeta(pattern) {
		return HasWord(pattern, s, w)
	}
	first, rest, hasStar := strings.Cut(pattern, "*")
	if !hasStar {
		return find(first, s, 0, atBoth, w) >= 0
	}
	// The first part that fits is the best one, since it leaves the most to the others.
	end := find(first, s, 0, atBegin, w)
	if end < 0 {
		return false
	}
	last, end := parts(rest, s, end, w)
	return end >= 0 && find(last, s, end, atEnd, w) >= 0
}

// HasWord is ContainsWord for a text in which no character has a meaning of its own.
func HasWord(word, s string, w *Work) bool {
	for from := 0; word != ""; from++ {
		skipped, found := skipTo(word, s[from:])
		if !w.Spend(1+len(word)/scanned+skipped/scanned) || !found {
			break
		}
		from += skipped
		if atBoth.allows(s, from, from+len(word)) {
			return true
		}
	}
	return false
}

// parts finds the parts of a pattern between stars, one after the other, but for the last. It returns this and where
// the others end; -1 if they are not there.
func parts(pattern, s string, end int, w *Work) (last string, _ int) {
	for end >= 0 {
		part, rest, more := strings.Cut(pattern, "*")
		if !more {
			break
		}
		end, pattern = find(part, s, end, anywhere, w), rest
	}
	return pattern, end
}

// place is where a part may stand.
type place int

const (
	anywhere place = iota
	atBegin        // it begins at a word boundary
	atEnd          // it ends at one
	atBoth
)

func (p place) allows(s string, begin, end int) bool {
	return (p&atBegin == 0 || begin == 0 || !isWord(s[begin-1])) && (p&atEnd == 0 || end == len(s) || !isWord(s[end]))
}

// find looks for a part without stars from a place on, and returns where the first one ends that may stand there; -1 if
// none does.
func find(part, s string, from int, where place, w *Work) int {
	if part == "" && where&atEnd != 0 {
		return len(s) // an end is always a boundary
	}
	for begin := from; len(s)-begin >= len(part); begin++ { // a character of a pattern takes a byte at least
		if part != "" && part[0] != '?' {
			skipped, found := skip(part, s[begin:])
			if !w.Spend(1+skipped/scanned) || !found {
				return -1
			}
			begin += skipped
		} else if begin > 0 && begin < len(s) && !utf8.RuneStart(s[begin]) {
			continue
		}
		length, compared := prefix(part, s[begin:])
		if !w.Spend(1 + compared) {
			return -1
		}
		if length >= 0 && where.allows(s, begin, begin+length) {
			return begin + length
		}
	}
	return -1
}

// skip tells how many bytes there are before the next place where a part that begins with a character may begin, and
// whether there is one.
func skip(part, s string) (skipped int, found bool) {
	if len(part) <= searched && !HasMeta(part) {
		return skipTo(part, s)
	}
	return skipTo(part[:1], s)
}

func skipTo(word, s string) (skipped int, found bool) {
	if skipped = strings.Index(s, word); skipped < 0 {
		return len(s), false
	}
	return skipped, true
}

// prefix tells how many bytes a part without stars takes at the beginning of s; -1 if it does not match there.
func prefix(part, s string) (length, compared int) {
	at := 0
	for i := range len(part) {
		switch {
		case at == len(s):
			return -1, i
		case part[i] == '?':
			_, size := utf8.DecodeRuneInString(s[at:])
			at += size
		case part[i] == s[at]:
			at++
		default:
			return -1, i
		}
	}
	return at, len(part)
}

// suffix tells where a part without stars begins at the end of s; -1 if it does not match there.
func suffix(part, s string) (begin, compared int) {
	at := len(s)
	for i := len(part) - 1; i >= 0; i-- {
		switch {
		case at == 0:
			return -1, len(part) - i
		case part[i] == '?':
			_, size := utf8.DecodeLastRuneInString(s[:at])
			at -= size
		case part[i] == s[at-1]:
			at--
		default:
			return -1, len(part) - i
		}
	}
	return at, len(part)
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// IsWord tells whether s consists of characters of words only, none of them a boundary: ContainsWord finds it where it
// is a word of a text, and nowhere else.
func IsWord(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) {
			return false
		}
	}
	return s != ""
}

// Words lists the words of a text.
func Words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || !isWord(byte(r)) })
}

// HasMeta tells whether pattern has a character with a meaning of its own.
func HasMeta(pattern string) bool { return strings.ContainsAny(pattern, "*?") }
