package pdu_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/gomatrixserverlib"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// testSigner is the server of Appendices, § Cryptographic Test Vectors.
func testSigner(t testing.TB) pdu.Signer {
	t.Helper()
	seed, err := base64.RawStdEncoding.DecodeString("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	return pdu.Signer{ServerName: "domain", KeyID: "ed25519:1", PrivateKey: ed25519.NewKeyFromSeed(seed)}
}

// The vectors of Appendices, § Event Signing.
func TestSigningGivesTheVectorsOfTheSpecification(t *testing.T) {
	for _, test := range []struct{ unsigned, hash, signed string }{
		{
			`{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"%s"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{},"type":"X"}`,
			`5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos`,
			`{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}}`,
		}, {
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","hashes":{"sha256":"%s"},"origin":"domain","origin_server_ts":1000000,"room_id":"!r:domain","sender":"@u:domain","signatures":{},"type":"m.room.message"}`,
			`onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g`,
			`{"domain":{"ed25519:1":"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"}}`,
		},
	} {
		e, err := pdu.ParseTrusted("1", "$0:domain", []byte(fmt.Sprintf(test.unsigned, test.hash)))
		if err != nil {
			t.Fatal(err)
		}
		if hash := e.ContentHash(); base64.RawStdEncoding.EncodeToString(hash[:]) != test.hash || !e.CheckContentHash() {
			t.Errorf("content hash of %s is not %s", e.JSON(), test.hash)
		}
		signed, err := pdu.Sign(e, testSigner(t))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(fmt.Sprintf(test.unsigned, test.hash), `"signatures":{}`, `"signatures":`+test.signed, 1)
		if string(signed.JSON()) != want {
			t.Errorf("signed:\n%s\nwant:\n%s", signed.JSON(), want)
		}
	}
}

var key = "state"

// proto is an event with a field of each kind.
func proto(v id.RoomVersion, eventType, content string) pdu.Proto {
	p := pdu.Proto{
		RoomID: "!room:domain", Type: eventType, StateKey: &key, Sender: "@alice:domain", Content: json.RawMessage(content),
		PrevEvents: []id.EventID{"$prev:domain", "$prev2:domain"}, AuthEvents: []id.EventID{"$auth:domain"},
		Depth: 7, OriginServerTS: 1700000000000,
	}
	if props, _ := roomversion.Get(v); props.RoomIDIsCreateHash {
		p.RoomID = "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ"
	}
	return p
}

func build(t testing.TB, v id.RoomVersion, p pdu.Proto) *pdu.Event {
	t.Helper()
	e, err := pdu.Build(v, p, testSigner(t))
	if err != nil {
		t.Fatalf("version %s: %v", v, err)
	}
	return e
}

func TestBuiltEventsAreThoseThatOthersRead(t *testing.T) {
	signer := testSigner(t)
	for _, v := range roomversion.All() {
		e := build(t, v, proto(v, "m.room.topic", `{"topic": "<é & \u65e5>", "b":{"z":1, "a":[true,null]}}`))
		// By our own parser, from JSON in another order.
		var loose map[string]any
		if err := json.Unmarshal(e.JSON(), &loose); err != nil {
			t.Fatal(err)
		}
		loose["unsigned"] = map[string]any{"age": 5}
		raw, err := json.MarshalIndent(loose, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := pdu.Parse(v, raw)
		if err != nil {
			t.Fatalf("version %s: %v", v, err)
		}
		if !bytes.Equal(parsed.JSON(), e.JSON()) || parsed.ID() != e.ID() || string(parsed.Unsigned()) != `{"age":5}` {
			t.Errorf("version %s: parsed %s %s, built %s %s", v, parsed.ID(), parsed.JSON(), e.ID(), e.JSON())
		}
		if !parsed.CheckContentHash() || !parsed.VerifySignature("domain", "ed25519:1", signer.PrivateKey.Public().(ed25519.PublicKey)) {
			t.Errorf("version %s: hash or signature is not valid", v)
		}
		// By the library: its ids, hashes and signatures are right.
		impl, err := gomatrixserverlib.GetRoomVersion(gomatrixserverlib.RoomVersion(v))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := impl.NewEventFromUntrustedJSON(e.JSON())
		if err != nil {
			t.Fatalf("version %s: the library: %v", v, err)
		}
		if theirs.EventID() != string(e.ID()) || theirs.Redacted() {
			t.Errorf("version %s: the library has %s (redacted: %t), we have %s", v, theirs.EventID(), theirs.Redacted(), e.ID())
		}
		if err := gomatrixserverlib.VerifyJSON("domain", "ed25519:1", signer.PrivateKey.Public().(ed25519.PublicKey), e.Redact().JSON()); err != nil {
			t.Errorf("version %s: the library: %v", v, err)
		}
		if !slices.Equal(parsed.PrevEvents(), proto(v, "", "").PrevEvents) || !slices.Equal(parsed.AuthEvents(), []id.EventID{"$auth:domain"}) ||
			parsed.Depth() != 7 || parsed.OriginServerTS() != 1700000000000 || !parsed.Is("m.room.topic", key) || parsed.Sender() != "@alice:domain" {
			t.Errorf("version %s: fields are lost", v)
		}
	}
}

func TestEventIDsHaveTheFormOfTheRoomVersion(t *testing.T) {
	for v, want := range map[id.RoomVersion]func(string) bool{
		"1": func(s string) bool { return strings.HasSuffix(s, ":domain") },
		"2": func(s string) bool { return strings.HasSuffix(s, ":domain") },
		"3": func(s string) bool {
			_, err := base64.RawStdEncoding.DecodeString(s[1:])
			return err == nil && len(s) == 44
		},
		"4": func(s string) bool {
			_, err := base64.RawURLEncoding.DecodeString(s[1:])
			return err == nil && len(s) == 44
		},
	} {
		for i := range 50 { // enough for the characters in which the alphabets differ
			if e := build(t, v, proto(v, "m.room.topic", fmt.Sprintf(`{"topic":"%d"}`, i))); !want(string(e.ID())) {
				t.Errorf("version %s: id %s", v, e.ID())
			}
		}
	}
}

func TestCreateEventOfVersion12NamesTheRoom(t *testing.T) {
	empty := ""
	p := pdu.Proto{Type: "m.room.create", StateKey: &empty, Sender: "@alice:domain", Content: json.RawMessage(`{"room_version":"12"}`), Depth: 1}
	e := build(t, "12", p)
	if string(e.RoomID()[1:]) != string(e.ID()[1:]) || e.RoomID()[0] != '!' || e.HasRoomID() || bytes.Contains(e.JSON(), []byte("room_id")) {
		t.Errorf("room id %s of create event %s: %s", e.RoomID(), e.ID(), e.JSON())
	}
	again, err := pdu.Parse("12", e.JSON())
	if err != nil || again.RoomID() != e.RoomID() || again.ID() != e.ID() {
		t.Errorf("parsed: %v %v", again, err)
	}
	p.RoomID = "!x:domain"
	if _, err := pdu.Build("12", p, testSigner(t)); !mxerr.Is(err, "M_BAD_JSON") {
		t.Errorf("with a room_id: %v", err)
	}
	p.RoomID = ""
	if _, err := pdu.Build("11", p, testSigner(t)); !mxerr.Is(err, "M_BAD_JSON") {
		t.Errorf("version 11 without a room_id: %v", err)
	}
}

func TestRedactsIsWhereTheRoomVersionHasIt(t *testing.T) {
	for _, v := range roomversion.All() {
		p := proto(v, "m.room.redaction", `{"reason":"spam","redacts":"$client"}`)
		p.Redacts, p.StateKey = "$target:domain", nil
		e := build(t, v, p)
		props, _ := roomversion.Get(v)
		inContent := string(pdu.Member(e.Content(), "redacts")) == `"$target:domain"`
		atTop := string(pdu.Member(e.JSON(), "redacts")) == `"$target:domain"`
		if inContent != props.RedactsInContent || atTop == inContent || e.Redacts() != "$target:domain" || bytes.Contains(e.JSON(), []byte("$client")) {
			t.Errorf("version %s: %s", v, e.JSON())
		}
		parsed, err := pdu.Parse(v, e.JSON())
		if err != nil || parsed.Redacts() != "$target:domain" || !parsed.CheckContentHash() {
			t.Errorf("version %s: parsed %v %v", v, parsed, err)
		}
		// Clients get it in both places, in every version.
		client := e.AppendClient(nil, pdu.ClientOptions{})
		if string(pdu.Member(client, "redacts")) != `"$target:domain"` || string(pdu.Member(pdu.Member(client, "content"), "redacts")) != `"$target:domain"` {
			t.Errorf("version %s: client form %s", v, client)
		}
	}
}

func TestParseRefusesWhatIsNotOfTheEventFormat(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := func(n int) []any {
		refs := make([]any, n)
		for i := range refs {
			refs[i] = fmt.Sprintf("$%d", i)
		}
		return refs
	}
	for _, test := range []struct {
		name, field string
		value       any // nil: absent
		ok          bool
	}{
		{"as it is", "x", 1, true},
		{"no type", "type", nil, false},
		{"type is a number", "type", 1, false},
		{"type of 255 bytes", "type", long[:255], true},
		{"type of 256 bytes", "type", long, false},
		{"type of 128 characters and 256 bytes", "type", strings.Repeat("é", 128), false},
		{"type with a NUL", "type", "a\x00", false},
		{"state key of 255 bytes", "state_key", long[:255], true},
		{"state key of 256 bytes", "state_key", long, false},
		{"state key is null", "state_key", json.RawMessage("null"), false},
		{"no state key", "state_key", nil, true},
		{"no sender", "sender", nil, false},
		{"sender without server", "sender", "@a", false},
		{"sender of 256 bytes", "sender", "@" + long[:251] + ":abc", false},
		{"sender with a bad server", "sender", "@a:b c", false},
		{"historical sender", "sender", "@Ä b:domain", true},
		{"no room id", "room_id", nil, false},
		{"room id without server", "room_id", "!room", false},
		{"room id with a bad server", "room_id", "!room:", false},
		{"room id is a list", "room_id", []any{}, false},
		{"no content", "content", nil, false},
		{"content is a list", "content", []any{}, false},
		{"content is null", "content", json.RawMessage("null"), false},
		{"no depth", "depth", nil, false},
		{"depth is a string", "depth", "1", false},
		{"depth below 0", "depth", -1, false},
		{"largest depth", "depth", 9007199254740991, true},
		{"depth too large", "depth", 9007199254740992, false},
		{"no origin_server_ts", "origin_server_ts", nil, false},
		{"origin_server_ts is a float", "origin_server_ts", 1.5, false},
		{"no hashes", "hashes", nil, false},
		{"hashes without sha256", "hashes", map[string]any{}, false},
		{"hashes is a list", "hashes", []any{}, false},
		{"no signatures", "signatures", nil, false},
		{"signatures is a list", "signatures", []any{}, false},
		{"signatures of a server is a string", "signatures", map[string]any{"a": "b"}, false},
		{"a signature is a number", "signatures", map[string]any{"a": map[string]any{"ed25519:1": 1}}, false},
		{"no prev_events", "prev_events", nil, false},
		{"prev_events is an object", "prev_events", map[string]any{}, false},
		{"20 prev_events", "prev_events", many(20), true},
		{"21 prev_events", "prev_events", many(21), false},
		{"a prev event is a number", "prev_events", []any{1}, false},
		{"a prev event is no id", "prev_events", []any{"x"}, false},
		{"a prev event is a pair", "prev_events", []any{[]any{"$x", map[string]any{}}}, false},
		{"no auth_events", "auth_events", nil, false},
		{"10 auth_events", "auth_events", many(10), true},
		{"11 auth_events", "auth_events", many(11), false},
		{"unsigned is a list", "unsigned", []any{}, false},
		{"unsigned is an object", "unsigned", map[string]any{"a": 1}, true},
		{"65536 bytes", "fill", pdu.MaxBytes, true},
		{"65537 bytes", "fill", pdu.MaxBytes + 1, false},
	} {
		e := build(t, "11", proto("11", "m.room.topic", `{}`))
		var fields map[string]any
		decoder := json.NewDecoder(bytes.NewReader(e.JSON()))
		decoder.UseNumber()
		if err := decoder.Decode(&fields); err != nil {
			t.Fatal(err)
		}
		if test.value == nil {
			delete(fields, test.field)
		} else {
			fields[test.field] = test.value
		}
		if test.field == "fill" {
			fields["fill"] = strings.Repeat("x", test.value.(int)-len(e.JSON())-len(`,"fill":""`))
		}
		raw, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pdu.Parse("11", raw); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		} else if _, is := mxerr.As(err); err != nil && !is {
			t.Errorf("%s: the error has no errcode: %v", test.name, err)
		}
	}
	for _, raw := range []string{`[]`, `null`, `1`, `""`, ``, `{}`} {
		if _, err := pdu.Parse("11", []byte(raw)); err == nil {
			t.Errorf("took %s for an event", raw)
		}
	}
}

func TestParseOfOldVersionsWantsPairsAndAnEventID(t *testing.T) {
	good := string(build(t, "1", proto("1", "m.room.topic", `{}`)).JSON())
	eventID := string(pdu.Member([]byte(good), "event_id"))
	for name, raw := range map[string]string{
		"no event id":                strings.Replace(good, `"event_id":`, `"other":`, 1),
		"event id without a server":  strings.Replace(good, eventID, `"$x"`, 1),
		"event id without the sigil": strings.Replace(good, eventID, `"x:domain"`, 1),
		"reference is an id":         strings.Replace(good, `["$auth:domain",{}]`, `"$auth:domain"`, 1),
		"pair without a hash":        strings.Replace(good, `["$auth:domain",{}]`, `["$auth:domain"]`, 1),
		"pair of three":              strings.Replace(good, `["$auth:domain",{}]`, `["$auth:domain",{},{}]`, 1),
		"pair of two ids":            strings.Replace(good, `["$auth:domain",{}]`, `["$auth:domain","$b"]`, 1),
	} {
		if raw == good {
			t.Fatalf("%s: nothing was replaced", name)
		}
		if _, err := pdu.Parse("1", []byte(raw)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	float := strings.Replace(good, `"content":{}`, `"content":{"a":1.50,"b":123456789012345678901234567890}`, 1)
	if e, err := pdu.Parse("1", []byte(float)); err != nil || !bytes.Contains(e.Content(), []byte("1.50")) {
		t.Errorf("numbers outside canonical JSON must be kept in old versions: %v", err)
	}
}

func TestRoomIDsOfVersion12AreHashes(t *testing.T) {
	p := proto("12", "m.room.topic", `{}`)
	for _, roomID := range []id.RoomID{"!room:domain", "!short", "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpY+"} {
		p.RoomID = roomID
		if _, err := pdu.Build("12", p, testSigner(t)); err == nil {
			t.Errorf("took room id %s", roomID)
		}
	}
}

func TestBuildRefusesWhatIsTooLargeOrNotCanonical(t *testing.T) {
	for _, test := range []struct {
		v             id.RoomVersion
		content, code string
	}{
		{"11", `{"a":"` + strings.Repeat("x", pdu.MaxBytes) + `"}`, "M_TOO_LARGE"},
		{"11", `{"a":"` + strings.Repeat("x", pdu.MaxBytes-300) + `"}`, "M_TOO_LARGE"},
		{"11", `{"a":1.5}`, "M_BAD_JSON"},
		{"11", `{"a":1e400}`, "M_BAD_JSON"},
		{"11", `[]`, "M_BAD_JSON"},
		{"11", `{`, "M_NOT_JSON"},
		{"11", ``, "M_NOT_JSON"},
		{"5", `{"a":1.5}`, ""},
	} {
		_, err := pdu.Build(test.v, proto(test.v, "m.room.topic", test.content), testSigner(t))
		if e, _ := mxerr.As(err); err == nil && test.code != "" || e != nil && e.Code != test.code {
			t.Errorf("%.40s: %v, want %s", test.content, err, test.code)
		}
	}
}

func TestSignaturesNeeded(t *testing.T) {
	for _, test := range []struct {
		name    string
		v       id.RoomVersion
		content string
		want    []id.ServerName
	}{
		{"join", "10", `{"membership":"join"}`, []id.ServerName{"domain"}},
		{"restricted join", "10", `{"membership":"join","join_authorised_via_users_server":"@b:other"}`, []id.ServerName{"domain", "other"}},
		{"restricted join, same server", "10", `{"membership":"join","join_authorised_via_users_server":"@b:domain"}`, []id.ServerName{"domain"}},
		{"before restricted joins", "7", `{"membership":"join","join_authorised_via_users_server":"@b:other"}`, []id.ServerName{"domain"}},
		{"third-party invite", "10", `{"membership":"invite","third_party_invite":{}}`, nil},
		{"third-party invite with an event id", "1", `{"membership":"invite","third_party_invite":{}}`, []id.ServerName{"domain"}},
	} {
		e := build(t, test.v, proto(test.v, "m.room.member", test.content))
		if got := e.SignaturesNeeded(); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	raw := bytes.Replace(build(t, "2", proto("2", "m.room.topic", `{}`)).JSON(), []byte(`"event_id":"$`), []byte(`"event_id":"$x:other`), 1)
	e, err := pdu.ParseTrusted("2", "$x:other", raw)
	if err != nil || !slices.Equal(e.SignaturesNeeded(), []id.ServerName{"domain", "other"}) {
		t.Errorf("event id of another server: %v", err)
	}
}

func TestSignAddsASignatureAndKeepsTheOthers(t *testing.T) {
	e := build(t, "10", proto("10", "m.room.member", `{"membership":"invite"}`))
	other := testSigner(t)
	other.ServerName = "a\"quote"
	second := testSigner(t)
	second.KeyID = "ed25519:0"
	for _, s := range []pdu.Signer{other, second, second} {
		var err error
		if e, err = pdu.Sign(e, s); err != nil {
			t.Fatal(err)
		}
	}
	public := other.PrivateKey.Public().(ed25519.PublicKey)
	if len(e.Signatures("domain")) != 2 || !e.VerifySignature("domain", "ed25519:0", public) || !e.VerifySignature("domain", "ed25519:1", public) ||
		!e.VerifySignature(other.ServerName, "ed25519:1", public) || e.VerifySignature("domain", "ed25519:2", public) {
		t.Errorf("signatures: %s", e.JSON())
	}
	canonical, err := pdu.CanonicalJSON("10", e.JSON())
	if err != nil || !bytes.Equal(canonical, e.JSON()) {
		t.Errorf("not canonical: %s", e.JSON())
	}
	if parsed, err := pdu.Parse("10", e.JSON()); err != nil || parsed.ID() != e.ID() || !bytes.Equal(parsed.Content(), e.Content()) {
		t.Errorf("the id changed: %v", err)
	}
}

func TestChangedContentFailsTheHashAndKeepsTheID(t *testing.T) {
	e := build(t, "11", proto("11", "m.room.topic", `{"topic":"a"}`))
	changed, err := pdu.Parse("11", bytes.Replace(e.JSON(), []byte(`"a"`), []byte(`"b"`), 1))
	if err != nil || changed.CheckContentHash() || changed.ID() != e.ID() {
		t.Errorf("changed content: %v, hash %t, id %s", err, changed.CheckContentHash(), changed.ID())
	}
	if changed.Redact().CheckContentHash() {
		t.Error("a redacted event cannot have the content hash")
	}
}

func TestEventsCrossInternalMessagesUnchanged(t *testing.T) {
	for _, v := range roomversion.All() {
		content := `{"topic":"<a> & \u2028 \"é\"","x":1}`
		e := build(t, v, proto(v, "m.room.topic", content))
		raw, err := json.Marshal(map[string]any{"event": e})
		if err != nil {
			t.Fatal(err)
		}
		var back struct{ Event *pdu.Event }
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.Event.JSON(), e.JSON()) || back.Event.ID() != e.ID() || back.Event.Version() != v || back.Event.RoomID() != e.RoomID() {
			t.Errorf("version %s: %s became %s", v, e.JSON(), back.Event.JSON())
		}
	}
	if err := new(pdu.Event).UnmarshalJSON([]byte(`{"v":"11","id":"$x","pdu":{}}`)); err == nil {
		t.Error("took an empty event")
	}
}

func TestTrustedEventsThatAreBrokenAreAnError(t *testing.T) {
	good := string(build(t, "11", proto("11", "m.room.topic", `{"a":"b"}`)).JSON())
	for n := range len(good) {
		if _, err := pdu.ParseTrusted("11", "$x", []byte(good[:n])); err == nil {
			t.Errorf("took %s", good[:n])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range []id.RoomVersion{"1", "6", "11", "12"} {
		f.Add(string(v), build(f, v, proto(v, "m.room.member", `{"membership":"join","third_party_invite":{"signed":{}}}`)).JSON())
	}
	redaction := proto("10", "m.room.redaction", `{}`)
	redaction.Redacts = "$x"
	f.Add("10", build(f, "10", redaction).JSON())
	f.Add("12", []byte(`{"type":"m.room.create"}`))
	f.Fuzz(func(t *testing.T, v string, raw []byte) {
		e, err := pdu.Parse(id.RoomVersion(v), raw)
		if err != nil {
			if _, is := mxerr.As(err); !is {
				t.Fatalf("error without an errcode: %v", err)
			}
			return
		}
		canonical, err := pdu.CanonicalJSON(e.Version(), e.JSON())
		if err != nil || !bytes.Equal(canonical, e.JSON()) {
			t.Fatalf("not canonical: %s %v", e.JSON(), err)
		}
		again, err := pdu.ParseTrusted(e.Version(), e.ID(), e.JSON())
		if err != nil || again.RoomID() != e.RoomID() || again.Sender() != e.Sender() {
			t.Fatalf("cannot be read again: %v", err)
		}
		redacted := e.Redact()
		if twice := redacted.Redact(); !bytes.Equal(twice.JSON(), redacted.JSON()) {
			t.Fatalf("redaction is not idempotent: %s", redacted.JSON())
		}
		if reparsed, err := pdu.Parse(e.Version(), redacted.JSON()); err != nil || reparsed.ID() != e.ID() {
			t.Fatalf("the redacted event is another one: %v", err)
		}
		for _, form := range [][]byte{e.AppendClient(nil, pdu.ClientOptions{WithRoomID: true}), e.AppendClient(nil, pdu.ClientOptions{Federation: true}),
			e.AppendClient(nil, pdu.ClientOptions{Fields: []string{"content.membership"}}), e.Stripped()} {
			if !json.Valid(form) {
				t.Fatalf("no JSON: %s", form)
			}
		}
		e.CheckContentHash()
		e.SignaturesNeeded()
	})
}

func BenchmarkBuild(b *testing.B) {
	signer := testSigner(b)
	for _, size := range []int{100, 1000, 10000} {
		p := proto("11", "m.room.message", `{"msgtype":"m.text","body":"`+strings.Repeat("x", size)+`"}`)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for b.Loop() {
				if _, err := pdu.Build("11", p, signer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("ed25519 alone", func(b *testing.B) {
		message := make([]byte, 500)
		for b.Loop() {
			ed25519.Sign(signer.PrivateKey, message)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	e := build(b, "11", proto("11", "m.room.message", `{"msgtype":"m.text","body":"`+strings.Repeat("x", 300)+`"}`))
	b.Run("untrusted", func(b *testing.B) {
		for b.Loop() {
			if _, err := pdu.Parse("11", e.JSON()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("trusted", func(b *testing.B) {
		for b.Loop() {
			if _, err := pdu.ParseTrusted("11", e.ID(), e.JSON()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("client form", func(b *testing.B) {
		for b.Loop() {
			e.AppendClient(nil, pdu.ClientOptions{WithRoomID: true})
		}
	})
}
