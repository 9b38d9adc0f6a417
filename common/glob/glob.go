// Package glob matches the glob-style patterns of the specification (Appendices, § Glob-style matching): * matches any number
// of characters, ? exactly one. It takes time proportional to the product of the lengths at worst, whatever the pattern.
package glob

import "unicode/utf8"

// Match tells whether the whole of s matches pattern. Case counts.
func Match(pattern, s string) bool {
	// The place to go back to: after the last star, and how far that star reaches by now.
	starPattern, starText := -1, 0
	p, t := 0, 0
	for t < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			starPattern, starText = p+1, t
			p++
			continue
		}
		_, size := utf8.DecodeRuneInString(s[t:])
		if p < len(pattern) {
			if pattern[p] == '?' {
				p++
				t += size
				continue
			}
			if _, want := utf8.DecodeRuneInString(pattern[p:]); want == size && pattern[p:p+want] == s[t:t+size] {
				p += want
				t += size
				continue
			}
		}
		if starPattern < 0 {
			return false
		}
		_, skipped := utf8.DecodeRuneInString(s[starText:])
		starText += skipped
		p, t = starPattern, starText
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// HasMeta tells whether pattern has a character with a meaning of its own.
func HasMeta(pattern string) bool {
	for i := range len(pattern) {
		if pattern[i] == '*' || pattern[i] == '?' {
			return true
		}
	}
	return false
}
