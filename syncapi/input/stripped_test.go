package input

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestStrippedStateHasABound(t *testing.T) {
	event := func(name string, size int) json.RawMessage {
		return json.RawMessage(`{"type":"` + name + `","x":"` + strings.Repeat("x", size) + `"}`)
	}
	names := func(state []json.RawMessage) (all string) {
		for _, raw := range state {
			all += string(raw[9])
		}
		return all
	}
	for _, c := range []struct {
		state []json.RawMessage
		want  string
	}{
		{nil, ""},
		{[]json.RawMessage{event("a", 10), event("b", 1000)}, "ab"},
		{[]json.RawMessage{event("a", 60_000), event("b", 10), event("c", 50_000), event("d", 20)}, "bcd"},
		{[]json.RawMessage{event("a", 30_000), event("b", 30_000), event("c", 30_000), event("d", 20)}, "abd"},
		{[]json.RawMessage{event("a", 70_000)}, ""},
	} {
		before := names(c.state)
		if got := names(smallest(c.state)); got != c.want {
			t.Errorf("of %s remains %q, want %q", before, got, c.want)
		}
		if names(c.state) != before {
			t.Errorf("the state of the roomserver, %s, has changed", before)
		}
	}
}
