package pdu_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// What § Redactions of each room version says of content, in full: the content of an event with every property that any
// version speaks of, and what is left.
func TestRedactionKeepsWhatTheRoomVersionKeeps(t *testing.T) {
	levels := `"ban":1,"events":{"x":1},"events_default":2,"kick":4,"redact":5,"state_default":6,"users":{"@a:b":1},"users_default":7`
	for _, test := range []struct {
		eventType, content string
		versions           string // first and last
		want               string
	}{
		{"m.room.member", `{"membership":"join","displayname":"x","join_authorised_via_users_server":"@a:b","third_party_invite":{"display_name":"x","signed":{"token":"t"}}}`, "1-8", `{"membership":"join"}`},
		{"m.room.member", `{"membership":"join","displayname":"x","join_authorised_via_users_server":"@a:b","third_party_invite":{"display_name":"x","signed":{"token":"t"}}}`, "9-10", `{"join_authorised_via_users_server":"@a:b","membership":"join"}`},
		{"m.room.member", `{"membership":"join","displayname":"x","join_authorised_via_users_server":"@a:b","third_party_invite":{"display_name":"x","signed":{"token":"t"}}}`, "11-12", `{"join_authorised_via_users_server":"@a:b","membership":"join","third_party_invite":{"signed":{"token":"t"}}}`},
		{"m.room.member", `{"membership":"join","third_party_invite":{"display_name":"x"}}`, "11-12", `{"membership":"join","third_party_invite":{}}`},
		{"m.room.member", `{"membership":"join","third_party_invite":"signed"}`, "11-12", `{"membership":"join"}`},
		{"m.room.create", `{"creator":"@a:b","m.federate":false,"room_version":"x"}`, "1-10", `{"creator":"@a:b"}`},
		{"m.room.create", `{"creator":"@a:b","m.federate":false,"room_version":"x"}`, "11-12", `{"creator":"@a:b","m.federate":false,"room_version":"x"}`},
		{"m.room.join_rules", `{"join_rule":"restricted","allow":[1],"x":1}`, "1-7", `{"join_rule":"restricted"}`},
		{"m.room.join_rules", `{"join_rule":"restricted","allow":[1],"x":1}`, "8-12", `{"allow":[1],"join_rule":"restricted"}`},
		{"m.room.power_levels", `{"notifications":{},"invite":3,` + levels + `}`, "1-10", `{` + levels + `}`},
		{"m.room.power_levels", `{"notifications":{},"invite":3,` + levels + `}`, "11-12", `{"ban":1,"events":{"x":1},"events_default":2,"invite":3,"kick":4,"redact":5,"state_default":6,"users":{"@a:b":1},"users_default":7}`},
		{"m.room.aliases", `{"aliases":["#a:b"],"x":1}`, "1-5", `{"aliases":["#a:b"]}`},
		{"m.room.aliases", `{"aliases":["#a:b"],"x":1}`, "6-12", `{}`},
		{"m.room.history_visibility", `{"history_visibility":"shared","x":1}`, "1-12", `{"history_visibility":"shared"}`},
		{"m.room.redaction", `{"redacts":"$x","reason":"x"}`, "1-10", `{}`},
		{"m.room.redaction", `{"redacts":"$x","reason":"x"}`, "11-12", `{"redacts":"$x"}`},
		{"m.room.message", `{"body":"x"}`, "1-12", `{}`},
		{"m.room.topic", `{"topic":"x"}`, "1-12", `{}`},
	} {
		for _, v := range versions(test.versions) {
			p := proto(v, test.eventType, test.content)
			if props, _ := roomversion.Get(v); props.RoomIDIsCreateHash && test.eventType == "m.room.create" {
				p.RoomID = ""
			}
			e := build(t, v, p)
			redacted := e.Redact()
			if string(redacted.Content()) != test.want || redacted.ID() != e.ID() || redacted.Membership() != e.Membership() {
				t.Errorf("version %s: %s %s is redacted to %s", v, test.eventType, e.Content(), redacted.Content())
			}
			if parsed, err := pdu.Parse(v, redacted.JSON()); err != nil || parsed.ID() != e.ID() {
				t.Errorf("version %s: the redacted event has another id (%v)", v, err)
			}
		}
	}
}

// versions expands "3-5".
func versions(span string) []id.RoomVersion {
	all := roomversion.All()
	for i := range all {
		for j := i; j < len(all); j++ {
			if string(all[i])+"-"+string(all[j]) == span {
				return all[i : j+1]
			}
		}
	}
	return nil
}

func TestRedactionKeepsTheTopLevelKeysOfTheRoomVersion(t *testing.T) {
	always := []string{"auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id", "sender", "signatures", "state_key", "type"}
	for _, v := range roomversion.All() {
		all := map[string]any{"x": 1, "age_ts": 1, "redacts": "$x", "membership": "join", "origin": "domain", "prev_state": []any{}}
		if err := json.Unmarshal(build(t, v, proto(v, "m.room.topic", `{}`)).JSON(), &all); err != nil {
			t.Fatal(err)
		}
		all["event_id"] = "$x:domain"
		raw, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		e, err := pdu.Parse(v, raw)
		if err != nil {
			t.Fatalf("version %s: %v", v, err)
		}
		want := slices.Clone(always)
		if slices.Contains(versions("1-10"), v) {
			want = append(want, "membership", "origin", "prev_state")
		}
		slices.Sort(want)
		var got []string
		pdu.EachMember(e.Redact().JSON(), func(name string, _ []byte) { got = append(got, name) })
		if !slices.Equal(got, want) {
			t.Errorf("version %s keeps %v, not %v", v, got, want)
		}
	}
}

func TestTheUnsignedOfAPDUIsNoPartOfIt(t *testing.T) {
	e, err := pdu.Parse("11", append(append([]byte(`{"unsigned":{"age":1},`), build(t, "11", proto("11", "m.room.topic", `{}`)).JSON()[1:]...), ' '))
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Unsigned()) != `{"age":1}` || pdu.Member(e.JSON(), "unsigned") != nil || pdu.Member(e.AppendClient(nil, pdu.ClientOptions{}), "unsigned") != nil || e.Redact().Unsigned() != nil {
		t.Errorf("unsigned %s in %s", e.Unsigned(), e.JSON())
	}
}

func TestClientForm(t *testing.T) {
	p := proto("11", "m.room.topic", `{"topic":"x","m.relates_to":{"a.b":1,"c":2},"a\\b":3}`)
	e := build(t, "11", p)
	head := `"content":{"a\\b":3,"m.relates_to":{"a.b":1,"c":2},"topic":"x"},"event_id":"` + string(e.ID()) + `","origin_server_ts":1700000000000`
	tail := `"sender":"@alice:domain","state_key":"state","type":"m.room.topic"`
	p.StateKey = nil
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"plain":                        {e.AppendClient(nil, pdu.ClientOptions{}), `{` + head + `,` + tail + `}`},
		"with room id":                 {e.AppendClient(nil, pdu.ClientOptions{WithRoomID: true}), `{` + head + `,"room_id":"!room:domain",` + tail + `}`},
		"with unsigned":                {e.AppendClient(nil, pdu.ClientOptions{Unsigned: func(dst []byte) []byte { return append(dst, `{"age":1}`...) }}), `{` + head + `,` + tail + `,"unsigned":{"age":1}}`},
		"federation":                   {e.AppendClient(nil, pdu.ClientOptions{Federation: true, Unsigned: func(dst []byte) []byte { return append(dst, `{}`...) }}), string(e.JSON()[:len(e.JSON())-1]) + `,"event_id":"` + string(e.ID()) + `","unsigned":{}}`},
		"stripped":                     {e.Stripped(), `{"content":{"a\\b":3,"m.relates_to":{"a.b":1,"c":2},"topic":"x"},` + tail + `}`},
		"fields":                       {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{"type", "content.topic"}}), `{"content":{"topic":"x"},"type":"m.room.topic"}`},
		"fields, escape":               {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{`content.m\.relates_to.a\.b`, `content.a\\b`}}), `{"content":{"a\\b":3,"m.relates_to":{"a.b":1}}}`},
		"fields, not escaped dot":      {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{`content.m.relates_to`}}), `{"content":{}}`},
		"fields, other escape":         {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{`content.a\b`}}), `{"content":{"a\\b":3}}`},
		"fields, a part and the whole": {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{"content.topic", "content", "content.topic"}}), `{"content":{"a\\b":3,"m.relates_to":{"a.b":1,"c":2},"topic":"x"}}`},
		"fields, path into a string":   {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{"type.x"}}), `{}`},
		"no fields":                    {e.AppendClient(nil, pdu.ClientOptions{Fields: []string{}}), `{}`},
	} {
		if string(test.got) != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, test.got, test.want)
		}
	}
	if state := pdu.Member(build(t, "11", p).AppendClient(nil, pdu.ClientOptions{}), "state_key"); state != nil {
		t.Errorf("a message has the state key %s", state)
	}
}
