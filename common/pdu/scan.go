package pdu

import (
	"bytes"
	"errors"
	"slices"
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

// unescape decodes what stands between the quotes of a string.
func unescape(inner []byte) []byte {
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
		return string(unescape(value[1 : len(value)-1])), nil
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

// Member finds a member of a canonical object, such as the content of an event; nil if there is none.
func Member(object []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		if name[i] < 0x20 || name[i] == '"' || name[i] == '\\' {
			quoted := AppendString(nil, name)
			name = string(trimQuotes(quoted))
			break
		}
	}
	return lookup(object, name)
}

// EachMember calls visit for the members of a canonical object, in order; not at all if it is no object.
func EachMember(object []byte, visit func(name string, value []byte)) {
	eachMember(object, func(key, value []byte) {
		if bytes.IndexByte(key, '\\') >= 0 {
			key = unescape(key)
		}
		visit(string(key), value)
	})
}

// EachElement calls visit for the elements of a canonical array, in order; not at all if it is no array.
func EachElement(array []byte, visit func(value []byte)) {
	if scanArray(array, func(value []byte) error { visit(value); return nil }) != nil {
		return // of a broken array the elements before the break count
	}
}

// String decodes a canonical string; false if value is none.
func String(value []byte) (string, bool) {
	s, err := str("", value)
	return s, err == nil
}

// Without is a canonical object without some of its members.
func Without(object []byte, names ...string) []byte {
	return appendMembers(make([]byte, 0, len(object)), object, func(key string) bool { return !slices.Contains(names, key) })
}
