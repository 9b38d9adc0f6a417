package pdu

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/mxerr"
)

// The functions here read JSON that is canonical: there is no white space, and the only escapes are the canonical ones. That
// is what makes a second look at an event cheap. On other input they give an error or nonsense, but never panic.

var errNotCanonical = errors.New("the JSON is not in canonical form")

// scanObject calls visit for each member of an object, with the text of the key between its quotes, and the value.
func scanObject(object []byte, visit func(key, value []byte) error) error {
	if len(object) < 2 || object[0] != '{' || object[len(object)-1] != '}' {
		return errNotCanonical
	}
	rest := object[1 : len(object)-1]
	for len(rest) > 0 {
		n := skipValue(rest)
		if n < 2 || rest[0] != '"' || n >= len(rest) || rest[n] != ':' {
			return errNotCanonical
		}
		key := rest[1 : n-1]
		rest = rest[n+1:]
		n = skipValue(rest)
		if n == 0 {
			return errNotCanonical
		}
		if err := visit(key, rest[:n]); err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) > 0 {
			if rest[0] != ',' || len(rest) == 1 {
				return errNotCanonical
			}
			rest = rest[1:]
		}
	}
	return nil
}

// eachMember is scanObject for objects that were scanned before, as whole or as a part, and so cannot fail.
func eachMember(object []byte, visit func(key, value []byte)) {
	if scanObject(object, func(key, value []byte) error { visit(key, value); return nil }) != nil {
		return // of a broken object the members before the break count
	}
}

// scanArray calls visit for each element of an array.
func scanArray(array []byte, visit func(value []byte) error) error {
	if len(array) < 2 || array[0] != '[' || array[len(array)-1] != ']' {
		return errNotCanonical
	}
	for rest := array[1 : len(array)-1]; len(rest) > 0; {
		n := skipValue(rest)
		if n == 0 {
			return errNotCanonical
		}
		if err := visit(rest[:n]); err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) > 0 {
			if rest[0] != ',' || len(rest) == 1 {
				return errNotCanonical
			}
			rest = rest[1:]
		}
	}
	return nil
}

// skipValue is the length of the value that text begins with, 0 if there is none.
func skipValue(text []byte) int {
	if len(text) == 0 {
		return 0
	}
	switch text[0] {
	case '"':
		return skipString(text)
	case '{', '[':
		depth := 0
		for i := 0; i < len(text); i++ {
			switch text[i] {
			case '"':
				n := skipString(text[i:])
				if n == 0 {
					return 0
				}
				i += n - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return 0
	}
	for i, b := range text {
		if b == ',' || b == '}' || b == ']' || b == ':' || b == '"' {
			return i
		}
	}
	return len(text)
}

func skipString(text []byte) int {
	for i := 1; i < len(text); {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return 0
		}
		// The quote is the string's end unless an odd number of backslashes stands before it.
		end, slashes := i+n, 0
		for end-1-slashes > 0 && text[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end + 1
		}
		i = end + 1
	}
	return 0
}

// lookup finds a member of an object; nil if there is none.
func lookup(object []byte, name string) []byte {
	var found []byte
	eachMember(object, func(key, value []byte) {
		if string(key) == name {
			found = value
		}
	})
	return found
}

// unquote decodes a string with its quotes.
func unquote(text []byte) []byte {
	inner := text[1 : len(text)-1]
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' || i+1 == len(inner) {
			out = append(out, inner[i])
			continue
		}
		i++
		switch escape := inner[i]; escape {
		case 'u':
			if i+4 < len(inner) {
				if r, err := strconv.ParseUint(string(inner[i+1:i+5]), 16, 32); err == nil {
					out = utf8.AppendRune(out, rune(r))
				}
				i += 4
			}
		case 'b', 'f', 'n', 'r', 't':
			out = append(out, "\b\f\n\r\t"[bytes.IndexByte([]byte("bfnrt"), escape)])
		default:
			out = append(out, escape)
		}
	}
	return out
}

// str decodes a value that must be a string.
func str(field string, value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", mxerr.BadJSON("the event's %s is not a string", field)
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		return string(unquote(value)), nil
	}
	return string(value[1 : len(value)-1]), nil
}

// optionalString decodes a value that counts only if it is a string.
func optionalString(value []byte) string {
	if s, err := str("", value); err == nil {
		return s
	}
	return ""
}

// integer decodes a value that must be an integer.
func integer(field string, value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, mxerr.BadJSON("the event's %s is not an integer", field)
	}
	return n, nil
}
