package pdu_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
)

// The examples of Appendices, § Canonical JSON, § Examples.
func TestCanonicalJSONGivesTheExamplesOfTheSpecification(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                         `{}`,
		`{ "one": 1, "two": "Two" }`: `{"one":1,"two":"Two"}`,
		`{ "b": "2", "a": "1" }`:     `{"a":"1","b":"2"}`,
		`{"b":"2","a":"1"}`:          `{"a":"1","b":"2"}`,
		"{\n\t\"a\": \"日本語\"\r\n}":   `{"a":"日本語"}`,
		`{ "本": 2, "日": 1 }`:         `{"日":1,"本":2}`,
		`{ "a": "\u65E5" }`:          `{"a":"日"}`,
		`{ "a": null }`:              `{"a":null}`,
		`{ "a": -0, "b": 1e10 }`:     `{"a":0,"b":10000000000}`,
		`{"auth":{"success":true,"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"medium":"email","address":"john.doe@example.org"},{"medium":"msisdn","address":"123456789"}]}}}`: `{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`,
	} {
		got, err := pdu.CanonicalJSON("1", []byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestCanonicalJSON(t *testing.T) {
	const bad, not = "M_BAD_JSON", "M_NOT_JSON"
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct{ name, in, lax, strict string }{
		{"float", `[1.5]`, `[1.5]`, bad},
		{"float that is an integer", `[1.0]`, `[1.0]`, bad},
		{"float zero", `[0.0]`, `[0.0]`, bad},
		{"exponent", `[1E5]`, `[100000]`, bad},
		{"exponent beyond the range", `[1e+16]`, `[1e+16]`, bad},
		{"huge exponent", `[1e999999999]`, `[1e999999999]`, bad},
		{"tiny exponent", `[1e-999999999]`, `[1e-999999999]`, bad},
		{"negative zero", `[-0]`, `[0]`, bad},
		{"negative zero with exponent", `[-0e1]`, `[0]`, bad},
		{"largest integer", `[9007199254740991]`, `[9007199254740991]`, `[9007199254740991]`},
		{"smallest integer", `[-9007199254740991]`, `[-9007199254740991]`, `[-9007199254740991]`},
		{"integer too large", `[9007199254740992]`, `[9007199254740992]`, bad},
		{"integer too small", `[-9007199254740992]`, `[-9007199254740992]`, bad},
		{"integer beyond 64 bits", `[99999999999999999999]`, `[99999999999999999999]`, bad},
		{"leading zero", `[01]`, not, not},
		{"plus", `[+1]`, not, not},
		{"point without digits", `[1.]`, not, not},
		{"only a minus", `[-]`, not, not},
		{"exponent without digits", `[1e]`, not, not},
		{"NaN", `[NaN]`, not, not},
		{"escapes", `["\u0000\u001F\b\t\n\f\r\"\\\/\u0041\u007f"]`, `["\u0000\u001f\b\t\n\f\r\"\\/A` + "\x7f" + `"]`, `["\u0000\u001f\b\t\n\f\r\"\\/A` + "\x7f" + `"]`},
		{"surrogate pair", `["\uD83D\uDE00"]`, `["😀"]`, `["😀"]`},
		{"half a pair", `["\uD83D"]`, bad, bad},
		{"half a pair and text", `["\uD83Dx"]`, bad, bad},
		{"pair of wrong halves", `["\uD83D\uD83D"]`, bad, bad},
		{"second half alone", `["\uDE00"]`, bad, bad},
		{"half a pair in a key", `{"\ud800":1}`, bad, bad},
		{"bad UTF-8", "[\"\xff\"]", not, not},
		{"surrogate in UTF-8", "[\"\xed\xa0\x80\"]", not, not},
		{"control character", "[\"\n\"]", not, not},
		{"unknown escape", `["\x"]`, not, not},
		{"short escape", `["\u12"]`, not, not},
		{"duplicate keys", `{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`, `{"a":3,"b":2}`},
		{"duplicate keys in order", `{"a":1,"a":{"c":1,"b":2},"b":2}`, `{"a":{"b":2,"c":1},"b":2}`, `{"a":{"b":2,"c":1},"b":2}`},
		{"duplicate keys by escape", `{"a":1,"\u0061":2}`, `{"a":2}`, `{"a":2}`},
		{"order by codepoint, not by escape", `{"A":1,"\"":2,"\\":3,"a":4}`, `{"\"":2,"A":1,"\\":3,"a":4}`, `{"\"":2,"A":1,"\\":3,"a":4}`},
		{"order by codepoint, not by UTF-16", `{"\uFF61":1,"\uD83D\uDE00":2}`, `{"｡":1,"😀":2}`, `{"｡":1,"😀":2}`},
		{"prefix comes first", `{"ab":1,"a":2,"":3}`, `{"":3,"a":2,"ab":1}`, `{"":3,"a":2,"ab":1}`},
		{"nothing", ` `, not, not},
		{"two values", `{} {}`, not, not},
		{"trailing comma", `{"a":1,}`, not, not},
		{"trailing comma of array", `[1,]`, not, not},
		{"no colon", `{"a" 1}`, not, not},
		{"open string", `["a`, not, not},
		{"open object", `{"a":1`, not, not},
		{"word", `[nul]`, not, not},
		{"deep", deep(1000), deep(1000), deep(1000)},
		{"too deep", deep(1002), bad, bad},
		{"far too deep", strings.Repeat(`{"a":`, 30000), bad, bad},
	} {
		for v, want := range map[id.RoomVersion]string{"5": test.lax, "6": test.strict} {
			got, err := pdu.CanonicalJSON(v, []byte(test.in))
			if e, is := mxerr.As(err); is {
				got = []byte(e.Code)
			} else if err != nil {
				t.Errorf("%s: error without an errcode: %v", test.name, err)
			}
			if string(got) != want {
				t.Errorf("%s, version %s: got %.200s (%v), want %.200s", test.name, v, got, err, want)
			}
		}
	}
	if _, err := pdu.CanonicalJSON("x", []byte("{}")); !mxerr.Is(err, "M_UNSUPPORTED_ROOM_VERSION") {
		t.Errorf("unknown version: %v", err)
	}
}

// Random documents, compared with what encoding/json makes of them.
func TestCanonicalJSONKeepsTheMeaning(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var value func(depth int) any
	value = func(depth int) any {
		switch n := rng.IntN(8); {
		case n < 2 && depth < 5:
			object := map[string]any{}
			for range rng.IntN(20) {
				object[randomText(rng)] = value(depth + 1)
			}
			return object
		case n < 3 && depth < 5:
			array := make([]any, rng.IntN(5))
			for i := range array {
				array[i] = value(depth + 1)
			}
			return array
		case n < 5:
			return rng.Int64N(1<<53) - 1<<52
		case n < 6:
			return rng.IntN(2) == 0
		default:
			return randomText(rng)
		}
	}
	for range 300 {
		in, err := json.Marshal(map[string]any{"x": value(0)}) // escapes HTML, sorts by bytes
		if err != nil {
			t.Fatal(err)
		}
		got, err := pdu.CanonicalJSON("11", in)
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		var a, b any
		if json.Unmarshal(in, &a) != nil || json.Unmarshal(got, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("meaning changed: %s\n%s", in, got)
		}
		again, err := pdu.CanonicalJSON("11", got)
		if err != nil || !bytes.Equal(got, again) {
			t.Fatalf("not idempotent: %s\n%s", got, again)
		}
	}
}

func randomText(rng *rand.Rand) string {
	alphabet := []rune("abc\"\\\n\x01<>& é日😀{}[]:,.")
	text := make([]rune, rng.IntN(6))
	for i := range text {
		text[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return string(text)
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{`{"b":[1,-0,1.5e3,"\ud83d\ude00"],"a":{"\"":null}}`, `{"a":1,"\u0061":2}`, `[`, `"\u0000"`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, v := range []id.RoomVersion{"1", "12"} {
			out, err := pdu.CanonicalJSON(v, in)
			if err != nil {
				continue
			}
			if !json.Valid(in) || !json.Valid(out) {
				t.Fatalf("took %q for JSON, and made %q", in, out)
			}
			again, err := pdu.CanonicalJSON(v, out)
			if err != nil || !bytes.Equal(out, again) {
				t.Fatalf("%q: %q is not canonical: %q %v", in, out, again, err)
			}
		}
		if _, err := pdu.CanonicalJSON("1", in); mxerr.Is(err, "M_NOT_JSON") && json.Valid(in) && utf8.Valid(in) {
			t.Fatalf("refused %q: %v", in, err)
		}
	})
}
