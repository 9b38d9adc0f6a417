package pdu

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// maxNesting is how deep the arrays and objects of an event may go. It is beyond what other servers' JSON libraries take.
const maxNesting = 1000

// The range of integers of Canonical JSON.
const (
	maxCanonicalInt = 1<<53 - 1
	minCanonicalInt = -maxCanonicalInt
)

// CanonicalJSON writes JSON in the canonical form (Appendices, § Canonical JSON). In room versions that enforce it, numbers
// that are not canonical are an error. In the others they stay as they were written, because that is what their sender hashed
// and signed; only -0 and integers below 2^53 with an exponent have a plain form, which the specification's examples ask for.
//
// Of duplicate keys the last one counts, as in the JSON libraries of other servers. Text that is not UTF-8, and escapes of
// half a surrogate pair, are errors in every version: they have no canonical form. Errors are M_NOT_JSON and M_BAD_JSON.
func CanonicalJSON(v id.RoomVersion, raw []byte) ([]byte, error) {
	props, err := properties(v)
	if err != nil {
		return nil, err
	}
	return canonical(make([]byte, 0, len(raw)), raw, props.StrictJSON)
}

// SigningForm is what signatures of a JSON object are made over (Appendices, § Signing JSON): its canonical form, without
// signatures and unsigned. Numbers must be canonical.
func SigningForm(object []byte) ([]byte, error) {
	whole, err := SignedForm(object)
	if err != nil {
		return nil, err
	}
	return Without(whole, "signatures", "unsigned"), nil
}

// SignedForm is the canonical form of a JSON object that is signed. Numbers must be canonical.
func SignedForm(object []byte) ([]byte, error) {
	return canonical(make([]byte, 0, len(object)), object, true)
}

func properties(v id.RoomVersion) (*roomversion.Properties, error) {
	props, known := roomversion.Get(v)
	if !known {
		return nil, mxerr.New(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not supported by this server", v)
	}
	return props, nil
}

// canonical appends the canonical form of raw to dst. dst and raw must not overlap.
func canonical(dst, raw []byte, strict bool) ([]byte, error) {
	if !utf8.Valid(raw) {
		return nil, mxerr.NotJSON("the JSON is not valid UTF-8")
	}
	c := canonicaliser{in: raw, out: dst, strict: strict}
	err := c.value(0)
	if err == nil {
		if c.space(); c.pos < len(c.in) {
			err = c.syntax("there is text after the value")
		}
	}
	if err != nil {
		if _, is := mxerr.As(err); is {
			return nil, err
		}
		return nil, mxerr.NotJSON("%v", err)
	}
	return c.out, nil
}

// canonicaliser is one pass over a JSON text that writes its canonical form.
type canonicaliser struct {
	in      []byte
	pos     int
	out     []byte
	strict  bool
	scratch []byte
}

func (c *canonicaliser) syntax(what string) error {
	return fmt.Errorf("the JSON has an error at byte %d: %s", c.pos, what)
}

func (c *canonicaliser) space() {
	for c.pos < len(c.in) {
		switch c.in[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (c *canonicaliser) peek() byte {
	c.space()
	if c.pos == len(c.in) {
		return 0
	}
	return c.in[c.pos]
}

func (c *canonicaliser) value(depth int) error {
	if depth > maxNesting {
		return mxerr.BadJSON("the JSON is nested deeper than %d levels", maxNesting)
	}
	switch first := c.peek(); first {
	case '{':
		return c.object(depth)
	case '[':
		return c.array(depth)
	case '"':
		_, err := c.text()
		return err
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	default:
		if first == '-' || '0' <= first && first <= '9' {
			return c.number()
		}
		return c.syntax("a value is missing")
	}
}

func (c *canonicaliser) word(w string) error {
	if !bytes.HasPrefix(c.in[c.pos:], []byte(w)) {
		return c.syntax("unknown word")
	}
	c.pos += len(w)
	c.out = append(c.out, w...)
	return nil
}

func (c *canonicaliser) array(depth int) error {
	c.pos++
	c.out = append(c.out, '[')
	if c.peek() == ']' {
		c.pos++
		c.out = append(c.out, ']')
		return nil
	}
	for {
		if err := c.value(depth + 1); err != nil {
			return err
		}
		switch c.peek() {
		case ',':
			c.pos++
			c.out = append(c.out, ',')
		case ']':
			c.pos++
			c.out = append(c.out, ']')
			return nil
		default:
			return c.syntax("an array goes on with neither ',' nor ']'")
		}
	}
}

// member is one member of an object in the output: "key":value.
type member struct {
	start, end int
	key        []byte // decoded, for comparison
}

// object writes the members as they come, and puts them in order afterwards if they were not.
func (c *canonicaliser) object(depth int) error {
	c.pos++
	c.out = append(c.out, '{')
	if c.peek() == '}' {
		c.pos++
		c.out = append(c.out, '}')
		return nil
	}
	begin := len(c.out)
	var few [16]member
	members, ordered := few[:0], true
	for {
		if c.peek() != '"' {
			return c.syntax("a key is missing")
		}
		m := member{start: len(c.out)}
		escaped, err := c.text()
		if err != nil {
			return err
		}
		keyEnd := len(c.out)
		if c.peek() != ':' {
			return c.syntax("a key has no value")
		}
		c.pos++
		c.out = append(c.out, ':')
		if escaped {
			m.key = unescape(c.out[m.start+1 : keyEnd-1])
		}
		if err := c.value(depth + 1); err != nil {
			return err
		}
		m.end = len(c.out)
		members = append(members, m)
		if n := len(members); ordered && n > 1 {
			ordered = bytes.Compare(c.key(&members[n-2]), c.key(&members[n-1])) < 0
		}
		switch c.peek() {
		case ',':
			c.pos++
			c.out = append(c.out, ',')
			continue
		case '}':
			c.pos++
		default:
			return c.syntax("an object goes on with neither ',' nor '}'")
		}
		break
	}
	if !ordered {
		c.order(begin, members)
	}
	c.out = append(c.out, '}')
	return nil
}

// key is the decoded key of a member in the output.
func (c *canonicaliser) key(m *member) []byte {
	if m.key != nil {
		return m.key
	}
	inner := c.out[m.start+1 : m.end]
	return inner[:bytes.IndexByte(inner, '"')]
}

// order rewrites the members that begin at an offset in the order of their keys, without all but the last of duplicates.
func (c *canonicaliser) order(begin int, members []member) {
	slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(c.key(&a), c.key(&b)) })
	c.scratch = c.scratch[:0]
	for i := range members {
		if i+1 < len(members) && bytes.Equal(c.key(&members[i]), c.key(&members[i+1])) {
			continue
		}
		if len(c.scratch) > 0 {
			c.scratch = append(c.scratch, ',')
		}
		c.scratch = append(c.scratch, c.out[members[i].start:members[i].end]...)
	}
	c.out = append(c.out[:begin], c.scratch...)
}

// text writes a string and tells whether it has escapes in the output.
func (c *canonicaliser) text() (escaped bool, err error) {
	c.pos++
	c.out = append(c.out, '"')
	for {
		start := c.pos
		for c.pos < len(c.in) && c.in[c.pos] >= 0x20 && c.in[c.pos] != '"' && c.in[c.pos] != '\\' {
			c.pos++
		}
		c.out = append(c.out, c.in[start:c.pos]...)
		switch {
		case c.pos == len(c.in):
			return false, c.syntax("a string has no end")
		case c.in[c.pos] == '"':
			c.pos++
			c.out = append(c.out, '"')
			return escaped, nil
		case c.in[c.pos] < 0x20:
			return false, c.syntax("a string has a control character that is not escaped")
		}
		r, err := c.escape()
		if err != nil {
			return false, err
		}
		var isEscaped bool
		c.out, isEscaped = appendRune(c.out, r)
		escaped = escaped || isEscaped
	}
}

// escape reads an escape sequence.
func (c *canonicaliser) escape() (rune, error) {
	if c.pos+1 >= len(c.in) {
		return 0, c.syntax("a string has no end")
	}
	letter := c.in[c.pos+1]
	if letter != 'u' {
		i := bytes.IndexByte([]byte(`"\/bfnrt`), letter)
		if i < 0 {
			return 0, c.syntax("a string has an unknown escape")
		}
		c.pos += 2
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	r, err := c.hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if bytes.HasPrefix(c.in[c.pos:], []byte(`\u`)) {
		low, err := c.hex()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			return r, nil
		}
	}
	return 0, mxerr.BadJSON("the JSON has half of a surrogate pair at byte %d, which is no character", c.pos)
}

// hex reads \uXXXX.
func (c *canonicaliser) hex() (rune, error) {
	if c.pos+6 > len(c.in) {
		return 0, c.syntax("a string has no end")
	}
	var r rune
	for _, b := range c.in[c.pos+2 : c.pos+6] {
		switch {
		case '0' <= b && b <= '9':
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, c.syntax("a string has an unknown escape")
		}
		r = r<<4 | rune(b)
	}
	c.pos += 6
	return r, nil
}

// appendRune writes a character of a string in its shortest form, and tells whether that is an escape.
func appendRune(dst []byte, r rune) ([]byte, bool) {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r)), true
	case r >= 0x20:
		return utf8.AppendRune(dst, r), false
	}
	if i := bytes.IndexByte([]byte("\b\t\n\f\r"), byte(r)); i >= 0 {
		return append(dst, '\\', "btnfr"[i]), true
	}
	return append(dst, '\\', 'u', '0', '0', '0'+byte(r>>4), "0123456789abcdef"[r&15]), true
}

// AppendString appends a string in canonical form.
func AppendString[S ~string](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		if b := s[i]; b < 0x20 || b == '"' || b == '\\' {
			dst = append(dst, s[start:i]...)
			dst, _ = appendRune(dst, rune(b))
			start = i + 1
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// number reads a number by the grammar of JSON and writes it by the version's rules.
func (c *canonicaliser) number() error {
	start := c.pos
	digits := func() error {
		from := c.pos
		for c.pos < len(c.in) && '0' <= c.in[c.pos] && c.in[c.pos] <= '9' {
			c.pos++
		}
		if c.pos == from {
			return c.syntax("a number has no digits where it needs some")
		}
		return nil
	}
	next := func(set string) bool {
		if c.pos < len(c.in) && bytes.IndexByte([]byte(set), c.in[c.pos]) >= 0 {
			c.pos++
			return true
		}
		return false
	}
	next("-")
	if !next("0") {
		if err := digits(); err != nil {
			return err
		}
	}
	plain := true
	if next(".") {
		plain = false
		if err := digits(); err != nil {
			return err
		}
	}
	exponent := next("eE")
	if exponent {
		next("+-")
		if err := digits(); err != nil {
			return err
		}
	}
	text := string(c.in[start:c.pos])
	if c.strict {
		n, err := strconv.ParseInt(text, 10, 64)
		if !plain || exponent || text == "-0" || err != nil || n > maxCanonicalInt || n < minCanonicalInt {
			return mxerr.BadJSON("the JSON has the number %.40s; Canonical JSON has integers from -(2^53)+1 to (2^53)-1 only", text)
		}
	} else if text == "-0" {
		text = "0"
	} else if exponent {
		text = plainInteger(text)
	}
	c.out = append(c.out, text...)
	return nil
}

// plainInteger writes digits with an exponent as an integer, if it is one in the canonical range.
func plainInteger(text string) string {
	if strings.Contains(text, ".") || strings.Contains(text, "e-") || strings.Contains(text, "E-") {
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f > maxCanonicalInt || f < minCanonicalInt {
		return text
	}
	return strconv.FormatInt(int64(f), 10)
}
