// Package rawjson takes JSON texts apart without decoding them: it checks a text in one pass, and then finds the members of its
// objects, however they are written. Most of what clients send is kept as it came, and need not be read letter by letter again.
package rawjson

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// What Check finds wrong.
var (
	ErrSyntax = errors.New("this is no JSON")
	ErrDepth  = errors.New("the JSON is nested too deep")
)

// Check makes sure that a text is one JSON value in which arrays and objects go no deeper than depth. Like encoding/json, it takes
// no offence at strings that are no UTF-8.
func Check(text []byte, depth int) error {
	end, err := checkValue(text, space(text, 0), depth)
	if err == nil && space(text, end) != len(text) {
		err = ErrSyntax
	}
	return err
}

// space is where the white space ends that begins at i.
func space(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// checkValue returns where the value ends that begins at i.
func checkValue(text []byte, i, depth int) (end int, err error) {
	if i >= len(text) {
		return 0, ErrSyntax
	}
	switch c := text[i]; {
	case c == '"':
		return checkString(text, i)
	case c == '{', c == '[':
		if depth == 0 {
			return 0, ErrDepth
		}
		return checkMembers(text, i, depth-1)
	case c == 't':
		return checkWord(text, i, "true")
	case c == 'f':
		return checkWord(text, i, "false")
	case c == 'n':
		return checkWord(text, i, "null")
	}
	return checkNumber(text, i)
}

// checkMembers checks an object or an array.
func checkMembers(text []byte, i, depth int) (end int, err error) {
	named, last := text[i] == '{', text[i]+2 // the closing bracket, in ASCII
	if i = space(text, i+1); i < len(text) && text[i] == last {
		return i + 1, nil
	}
	for {
		if named {
			if i >= len(text) || text[i] != '"' {
				return 0, ErrSyntax
			}
			if i, err = checkString(text, i); err != nil {
				return 0, err
			}
			if i = space(text, i); i >= len(text) || text[i] != ':' {
				return 0, ErrSyntax
			}
			i = space(text, i+1)
		}
		if i, err = checkValue(text, i, depth); err != nil {
			return 0, err
		}
		switch i = space(text, i); {
		case i < len(text) && text[i] == ',':
			i = space(text, i+1)
		case i < len(text) && text[i] == last:
			return i + 1, nil
		default:
			return 0, ErrSyntax
		}
	}
}

func checkWord(text []byte, i int, word string) (end int, err error) {
	if end = i + len(word); end > len(text) || string(text[i:end]) != word {
		return 0, ErrSyntax
	}
	return end, nil
}

func checkString(text []byte, i int) (end int, err error) {
	for i++; ; {
		if i = plain(text, i); i >= len(text) {
			return 0, ErrSyntax
		}
		switch text[i] {
		case '"':
			return i + 1, nil
		case '\\':
			if i+1 >= len(text) {
				return 0, ErrSyntax
			}
			switch text[i+1] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i += 2
			case 'u':
				if i+6 > len(text) || !isHex(text[i+2]) || !isHex(text[i+3]) || !isHex(text[i+4]) || !isHex(text[i+5]) {
					return 0, ErrSyntax
				}
				i += 6
			default:
				return 0, ErrSyntax
			}
		default:
			return 0, ErrSyntax
		}
	}
}

// plain is where the first byte from i on stands that is a quote, a backslash or a control character; the length if there is none.
// It looks at eight bytes at a time.
func plain(text []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(text); i += 8 {
		w := binary.LittleEndian.Uint64(text[i:])
		quote, slash := w^ones*'"', w^ones*'\\'
		// Above a byte that is one of these, others may seem to be: the lowest is right.
		found := ((w-ones*0x20)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(text) && text[i] >= 0x20 && text[i] != '"' && text[i] != '\\' {
		i++
	}
	return i
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isDigit(text []byte, i int) bool { return i < len(text) && '0' <= text[i] && text[i] <= '9' }

func checkNumber(text []byte, i int) (end int, err error) {
	if text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' { // no other digits come after it
		i++
	} else if i, err = checkDigits(text, i); err != nil {
		return 0, err
	}
	if i < len(text) && text[i] == '.' {
		if i, err = checkDigits(text, i+1); err != nil {
			return 0, err
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		if i++; i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		return checkDigits(text, i)
	}
	return i, nil
}

func checkDigits(text []byte, i int) (end int, err error) {
	if !isDigit(text, i) {
		return 0, ErrSyntax
	}
	for isDigit(text, i) {
		i++
	}
	return i, nil
}
