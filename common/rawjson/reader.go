package rawjson

import "encoding/json"

// Reader reads a text that must be JSON, as Check tells, from its begin to its end: what is nested is looked at once,
// however deep.
type Reader struct {
	text []byte
	i    int
}

// NewReader makes a Reader of a value.
func NewReader(text []byte) *Reader { return &Reader{text: text} }

// Object calls visit for each member of the next value, as they come: the same name may come again, and the last one
// counts then. visit reads the member's value with Object or Value; one that it does not read is skipped. Names are
// gone when the next one is read. false says that the value is no object: it is still the next.
func (r *Reader) Object(visit func(name []byte) error) (isObject bool, err error) {
	i := space(r.text, r.i)
	if i >= len(r.text) || r.text[i] != '{' {
		return false, nil
	}
	i = space(r.text, i+1)
	for i < len(r.text) && r.text[i] == '"' {
		end := skipString(r.text, i)
		name, is := textBytes(r.text[i:end])
		if i = space(r.text, end); !is || i >= len(r.text) || r.text[i] != ':' {
			return false, nil
		}
		r.i = space(r.text, i+1)
		before := r.i
		if err := visit(name); err != nil {
			return true, err
		}
		if r.i == before {
			r.i = skipValue(r.text, r.i)
		}
		if i = space(r.text, r.i); i < len(r.text) && r.text[i] == ',' {
			i = space(r.text, i+1)
		}
	}
	r.i = min(i+1, len(r.text))
	return true, nil
}

// Value reads the next value, which is a part of the text.
func (r *Reader) Value() json.RawMessage {
	begin := space(r.text, r.i)
	r.i = skipValue(r.text, begin)
	return r.text[begin:r.i:r.i]
}
