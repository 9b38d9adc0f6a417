package rawjson

import (
	"bytes"
	"encoding/json"
)

// Members calls visit for each member of an object, as they come: the same name may come again, and the last one counts then.
// Values are parts of the text. false says that it is no object. The text must be JSON, as Check tells.
func Members(text []byte, visit func(name string, value json.RawMessage) error) (isObject bool, err error) {
	r := Reader{text: text}
	return r.Object(func(name []byte) error { return visit(string(name), r.Value()) })
}

// Text decodes a string; false if the value is none.
func Text(value []byte) (text string, isString bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if inner := value[1 : len(value)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), true
	}
	err := json.Unmarshal(value, &text)
	return text, err == nil
}

// textBytes is Text that is a part of the value, where nothing in it is escaped.
func textBytes(value []byte) (text []byte, isString bool) {
	if len(value) >= 2 && value[0] == '"' && bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], true
	}
	decoded, is := Text(value)
	return []byte(decoded), is
}

// skipValue is where the value ends that begins at i.
func skipValue(text []byte, i int) int {
	for depth := 0; i < len(text); {
		switch text[i] {
		case '"':
			if i = skipString(text, i); depth == 0 {
				return i
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return i // the end of a number or a word before it
			}
			if i++; depth == 1 {
				return i
			}
			depth--
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
			i++
		default:
			i++
		}
	}
	return i
}

func skipString(text []byte, i int) int {
	for i++; ; i += 2 {
		if i = plain(text, i); i >= len(text) {
			return len(text)
		}
		if text[i] != '\\' {
			return i + 1
		}
	}
}
