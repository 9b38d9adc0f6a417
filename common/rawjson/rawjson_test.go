package rawjson_test

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/matrix-org/dendrite/common/rawjson"
	"github.com/matrix-org/dendrite/common/test"
)

// Whatever is done to a text, Check and encoding/json say the same of it.
func TestCheckAgreesWithEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(test.Seed(t), 1))
	texts := []string{`{"a":[1,-0.5e+3,0,true,false,null],"b\u00e9\n":{"c":"a longer text with \" and \\ in it, and ünïcödé"}}`,
		` [ { } , [ ] , "" , 10E2 ] `, `"12345678"`, `-12.0e-1`, `{"":0}`}
	const letters = `{}[]",:\u0e+-.1a tfnl` + "\n\x00\x1f\x7f\x80\xff"
	valid := 0
	for range 200_000 {
		text := []byte(texts[r.IntN(len(texts))])
		for range r.IntN(4) {
			switch at := r.IntN(len(text)); r.IntN(3) {
			case 0:
				text[at] = letters[r.IntN(len(letters))]
			case 1:
				text = append(text[:at], text[at+1:]...)
			default:
				text = append(text[:at], append([]byte{letters[r.IntN(len(letters))]}, text[at:]...)...)
			}
			if len(text) == 0 {
				text = []byte{'0'}
			}
		}
		want, got := json.Valid(text), rawjson.Check(text, 100)
		if want != (got == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", text, got, want)
		}
		if want {
			valid++
			sameMembers(t, text)
		}
	}
	if valid < 1000 {
		t.Errorf("only %d texts were JSON", valid)
	}
}

func sameMembers(t *testing.T, text []byte) {
	t.Helper()
	var got, want map[string]json.RawMessage
	isObject, err := rawjson.Members(text, func(name string, value json.RawMessage) error {
		if got == nil {
			got = make(map[string]json.RawMessage)
		}
		got[name] = value
		return nil
	})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	err = json.Unmarshal(text, &want)
	if isObject != (err == nil && want != nil) || isObject && utf8.Valid(text) && len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: members %q, want %q, %v", text, got, want, err)
	}
}

func TestCheckBoundsTheDepth(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat(`[{"a":`, n) + "1" + strings.Repeat("}]", n)) }
	if err := rawjson.Check(nested(50), 100); err != nil {
		t.Error(err)
	}
	for _, n := range []int{51, 1_000_000} {
		if err := rawjson.Check(nested(n), 100); !errors.Is(err, rawjson.ErrDepth) {
			t.Errorf("%d levels: %v", 2*n, err)
		}
	}
}

func TestMembersEndWithTheFirstError(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	_, err := rawjson.Members([]byte(`{"a":1,"b":2}`), func(string, json.RawMessage) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d members were visited: %v", n, err)
	}
}

func BenchmarkCheck(b *testing.B) {
	text := []byte(`{"messages":{` + strings.Repeat(`"@user:example.com":{"DEVICE":{"ciphertext":{"type":0,"body":"`+
		strings.Repeat("x", 1024)+`"}}},`, 100) + `"":{}}}`)
	for _, one := range []struct {
		name  string
		check func([]byte) bool
	}{{"rawjson", func(t []byte) bool { return rawjson.Check(t, 100) == nil }}, {"encoding", json.Valid}} {
		b.Run(one.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if !one.check(text) {
					b.Fatal("this is JSON")
				}
			}
		})
	}
}
