package id

import (
	"strings"
	"testing"
)

func TestIdsAreParsedByTheirGrammar(t *testing.T) {
	long := strings.Repeat("x", 250)
	for kind, test := range map[string]struct {
		parse     func(string) error
		good, bad []string
	}{
		"user": {func(s string) error { _, err := ParseUserID(s); return err },
			[]string{"@a:b", "@A b!:example.org:8448", "@:b", "@a:[::1]", "@a:127.0.0.1"},
			[]string{"", "@", "a:b", "@a", "@a:", "@a:b c", "@a\x00:b", "@a:b\x00", "@\xff:b", "@" + long + ":example.org", "@a:b/c", "@a:b:port"}},
		"room": {func(s string) error { _, err := ParseRoomID(s); return err },
			[]string{"!a:b", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!a/b:example.org"},
			[]string{"", "!", "a:b", "!a:", "!a:b c", "!\x00", "!\xff:b", "!" + long + ":example.org"}},
		"alias": {func(s string) error { _, err := ParseRoomAlias(s); return err },
			[]string{"#a:b", "#Ä:example.org"},
			[]string{"", "#", "#:b", "#a", "#a:", "#a\x00:b", "@a:b", "#" + long + ":example.org"}},
		"event": {func(s string) error { _, err := ParseEventID(s); return err },
			[]string{"$a:b", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$a"},
			[]string{"", "$", "a", "$\x00", "$\xff", "$" + long + ":example.org"}},
		"server": {func(s string) error { _, err := ParseServerName(s); return err },
			[]string{"a", "example.org:8448", "127.0.0.1", "[2001:db8::1]:1"},
			[]string{"", ":1", "a b", "a/b", "[::1", "a:123456", "a:x"}},
	} {
		for _, s := range test.good {
			if err := test.parse(s); err != nil {
				t.Errorf("%s %q: %v", kind, s, err)
			}
		}
		for _, s := range test.bad {
			if test.parse(s) == nil {
				t.Errorf("%s %q is accepted", kind, s)
			}
		}
	}
}

func TestPartsOfIds(t *testing.T) {
	if u := NewUserID("a", "b:1"); u != "@a:b:1" || u.Localpart() != "a" || u.Server() != "b:1" {
		t.Error(u, u.Localpart(), u.Server())
	}
	if r := RoomID("!hash"); r.Server() != "" {
		t.Error(r.Server())
	}
	if a := RoomAlias("#a:b"); a.Localpart() != "a" || a.Server() != "b" {
		t.Error(a.Localpart(), a.Server())
	}
	if UserID("").Localpart() != "" || EventID("$hash").Server() != "" {
		t.Error("parts of what has none")
	}
}
