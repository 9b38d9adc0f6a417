package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

func TestAuthEventsSelection(t *testing.T) {
	create, power, rules := Key{pdu.TypeCreate, ""}, Key{pdu.TypePowerLevels, ""}, Key{pdu.TypeJoinRules, ""}
	member := func(user id.UserID) Key { return Key{pdu.TypeMember, string(user)} }
	token := Key{pdu.TypeThirdPartyInvite, "token"}
	signed := object{"signed": object{"token": "token"}}
	for name, c := range map[string]struct {
		eventType string
		key       *string
		sender    id.UserID
		content   object
		want      []Key
		onlyIn    func(*roomversion.Properties) bool // for the last of want
	}{
		"message":     {"m.room.message", nil, user, object{}, []Key{power, member(user)}, nil},
		"state":       {"m.room.name", stateKey(""), mod, object{"membership": "join"}, []Key{power, member(mod)}, nil},
		"join":        {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join"}, []Key{power, member(user), rules}, nil},
		"knock":       {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "knock"}, []Key{power, member(user), rules}, nil},
		"leave":       {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "leave"}, []Key{power, member(user)}, nil},
		"kick":        {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "leave"}, []Key{power, member(mod), member(user)}, nil},
		"ban":         {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "ban"}, []Key{power, member(mod), member(user)}, nil},
		"invite":      {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "invite"}, []Key{power, member(mod), member(user), rules}, nil},
		"third party": {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "invite", "third_party_invite": signed}, []Key{power, member(mod), member(user), rules, token}, nil},
		"third party without an invite": {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join", "third_party_invite": signed},
			[]Key{power, member(user), rules}, nil},
		"third party without a token": {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "invite", "third_party_invite": object{}},
			[]Key{power, member(mod), member(user), rules}, nil},
		"restricted": {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join", "join_authorised_via_users_server": string(mod)},
			[]Key{power, member(user), rules, member(mod)}, restricted},
		"restricted by oneself": {pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join", "join_authorised_via_users_server": string(user)},
			[]Key{power, member(user), rules}, nil},
		"an invite that names an authoriser": {pdu.TypeMember, stateKey(string(user)), mod, object{"membership": "invite", "join_authorised_via_users_server": string(admin)},
			[]Key{power, member(mod), member(user), rules}, nil},
	} {
		for _, v := range roomversion.All() {
			w := newWorld(t, v, nil)
			want := slices.Clone(c.want)
			if c.onlyIn != nil && !c.onlyIn(w.props) {
				want = want[:len(want)-1]
			}
			if !w.props.RoomIDIsCreateHash {
				want = append(want, create)
			}
			have := Needed(w.event(c.eventType, c.key, c.sender, c.content))
			proto, err := NeededForProto(v, pdu.Proto{Type: c.eventType, StateKey: c.key, Sender: c.sender, Content: w.json(c.content)})
			if err != nil || !slices.Equal(have, proto) {
				t.Errorf("version %s, %s: before the event is built, %v is needed, later %v; %v", v, name, proto, have, err)
			}
			if !sameKeys(have, want) {
				t.Errorf("version %s, %s: %v is needed, want %v", v, name, have, want)
			}
		}
	}
	w := newWorld(t, "12", nil)
	if have := Needed(w.create); len(have) != 0 {
		t.Errorf("a create event needs %v", have)
	}
	if _, err := NeededForProto("12", pdu.Proto{Type: "m.x", Sender: user, Content: json.RawMessage(`{`)}); err == nil {
		t.Error("content that is no JSON was taken")
	}
}

func sameKeys(a, b []Key) bool {
	in := func(keys []Key) map[Key]int {
		counts := map[Key]int{}
		for _, k := range keys {
			counts[k]++
		}
		return counts
	}
	return maps.Equal(in(a), in(b))
}

func TestMissingAuthEventsAreNoVerdict(t *testing.T) {
	for _, v := range roomversion.All() {
		w := newWorld(t, v, nil)
		e, cited := w.message(nil)
		for i := range cited {
			err := CheckAuthEvents(e, slices.Delete(slices.Clone(cited), i, i+1))
			missing, verdict := (*MissingError)(nil), (*Error)(nil)
			if !errors.As(err, &missing) || errors.As(err, &verdict) || !slices.Equal(missing.EventIDs, []id.EventID{cited[i].ID()}) {
				t.Errorf("version %s: without %s: %v", v, cited[i].Type(), err)
			}
		}
	}
}

func TestAnUnknownStateIsNoVerdict(t *testing.T) {
	unknown := errors.New("not known now")
	w := newWorld(t, "10", nil)
	thirdParty := w.event(pdu.TypeMember, stateKey(string(stranger)), user, w.thirdParty(user, 1))
	restrictedJoin := w.event(pdu.TypeMember, stateKey(string(stranger)), stranger, object{"membership": "join", "join_authorised_via_users_server": string(mod)})
	restrictedJoin, err := pdu.Sign(restrictedJoin, w.signer)
	if err != nil {
		t.Fatal(err)
	}
	w.joinRule("restricted")
	for _, e := range []*pdu.Event{thirdParty, restrictedJoin, w.event("m.room.message", nil, user, object{}), w.event("m.room.topic", stateKey(""), admin, object{})} {
		if err := Check(e, w.state); err != nil {
			t.Fatal(err)
		}
		for _, key := range Needed(e) {
			err := Check(e, failing{w.state, key, unknown})
			if verdict := (*Error)(nil); !errors.Is(err, unknown) || errors.As(err, &verdict) {
				t.Errorf("%s with an unknown %v: %v", e.Type(), key, err)
			}
		}
	}
}

// failing does not know an entry.
type failing struct {
	Map
	key Key
	err error
}

func (f failing) Get(k Key) (*pdu.Event, error) {
	if k == f.key {
		return nil, f.err
	}
	return f.Map.Get(k)
}

// counting counts look-ups.
type counting struct {
	Map
	lookups int
	keys    map[Key]bool
}

func (c *counting) Get(k Key) (*pdu.Event, error) {
	c.lookups++
	c.keys[k] = true
	return c.Map.Get(k)
}

func TestChecksLookUpWhatIsSelectedAndNoMore(t *testing.T) {
	for _, v := range roomversion.All() {
		var lookups [2]int
		for i, n := range []int{100, 1000} {
			w := bigRoom(t, v, n)
			for _, e := range w.sample() {
				s := &counting{Map: w.state, keys: map[Key]bool{}}
				if err := Check(e, s); err != nil {
					t.Fatal(err)
				}
				lookups[i] += s.lookups
				for key := range s.keys {
					if key != (Key{pdu.TypeCreate, ""}) && key != (Key{pdu.TypeJoinRules, ""}) && !slices.Contains(Needed(e), key) {
						t.Errorf("version %s: checking %s looks at %v", v, e.Type(), key)
					}
				}
				if s.lookups > 6 {
					t.Errorf("version %s: checking %s takes %d look-ups", v, e.Type(), s.lookups)
				}
			}
		}
		if lookups[0] != lookups[1] {
			t.Errorf("version %s: %d look-ups with 100 members, %d with 1,000", v, lookups[0], lookups[1])
		}
	}
}

// bigRoom is a world with many more members.
func bigRoom(t testing.TB, v id.RoomVersion, members int) *world {
	w := newWorld(t, v, nil)
	join := w.event(pdu.TypeMember, stateKey(string(user)), user, object{"membership": "join"})
	for i := range members {
		w.state[Key{pdu.TypeMember, fmt.Sprintf("@member%d:two", i)}] = join
	}
	return w
}

func (w *world) sample() []*pdu.Event {
	return []*pdu.Event{
		w.event("m.room.message", nil, user, object{"body": "hello"}),
		w.event("m.room.topic", stateKey(""), admin, object{"topic": "x"}),
		w.event(pdu.TypeMember, stateKey(string(stranger)), mod, object{"membership": "invite"}),
		w.event(pdu.TypeMember, stateKey(string(user)), admin, object{"membership": "ban"}),
		w.event(pdu.TypeMember, stateKey(string(invited)), invited, object{"membership": "join"}),
		w.event(pdu.TypePowerLevels, stateKey(""), admin, w.levels()),
	}
}

func BenchmarkCheckInARoomOf100kMembers(b *testing.B) {
	w := bigRoom(b, "12", 100_000)
	events := w.sample()
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range events {
			if err := Check(e, w.state); err != nil {
				b.Fatal(err)
			}
		}
	}
}
