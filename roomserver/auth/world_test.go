package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// The people of the world. Those of server two have power level 0.
const (
	creator  id.UserID = "@creator:one"
	admin    id.UserID = "@admin:one"  // joined, 100
	mod      id.UserID = "@mod:one"    // joined, 50
	mod2     id.UserID = "@mod2:one"   // joined, 50
	helper   id.UserID = "@helper:one" // joined, 10
	user     id.UserID = "@user:two"   // joined
	other    id.UserID = "@other:two"  // joined
	invited  id.UserID = "@invited:two"
	banned   id.UserID = "@banned:two"
	banned50 id.UserID = "@banned50:two" // banned, 50
	left     id.UserID = "@left:two"
	knocker  id.UserID = "@knocker:two"
	stranger id.UserID = "@stranger:two" // never heard of
)

type object = map[string]any

// world is a room and its state. Inviting, kicking and redacting need 50, banning 60.
type world struct {
	t      testing.TB
	v      id.RoomVersion
	props  *roomversion.Properties
	create *pdu.Event
	room   id.RoomID
	state  Map
	signer pdu.Signer
}

// newWorld makes a room; more are changes to the content of its create event.
func newWorld(t testing.TB, v id.RoomVersion, more object) *world {
	t.Helper()
	props, _ := roomversion.Get(v)
	w := &world{t: t, v: v, props: props, state: Map{}}
	w.signer = pdu.Signer{ServerName: "one", KeyID: "ed25519:1", PrivateKey: ed25519.NewKeyFromSeed(make([]byte, 32))}
	w.room = "!room:one"
	w.create = w.build(w.createProto(more))
	w.room = w.create.RoomID()
	w.state[Key{pdu.TypeCreate, ""}] = w.create
	for user, membership := range map[id.UserID]string{
		creator: "join", admin: "join", mod: "join", mod2: "join", helper: "join", user: "join", other: "join",
		invited: "invite", banned: "ban", banned50: "ban", left: "leave", knocker: "knock",
	} {
		w.put(pdu.TypeMember, string(user), user, object{"membership": membership})
	}
	w.put(pdu.TypePowerLevels, "", creator, w.levels())
	w.joinRule("invite")
	return w
}

func (w *world) createProto(more object) pdu.Proto {
	content := object{"room_version": string(w.v)}
	if w.props.CreatorInContent {
		content["creator"] = string(creator)
	}
	for key, value := range more {
		if content[key] = value; value == nil {
			delete(content, key)
		}
	}
	return pdu.Proto{Type: pdu.TypeCreate, StateKey: stateKey(""), Sender: creator, Content: w.json(content)}
}

// levels are the power levels of the room.
func (w *world) levels() object {
	users := object{string(admin): 100, string(mod): 50, string(mod2): 50, string(helper): 10, string(banned50): 50}
	if !w.props.PrivilegedCreators {
		users[string(creator)] = 100
	}
	return object{
		"users": users, "invite": 50, "kick": 50, "ban": 60, "redact": 50,
		"events":        object{"m.room.topic": 60, "m.room.avatar": 50, "m.secret": 30, "m.room.redaction": 0},
		"notifications": object{"room": 60, "here": 20},
	}
}

func (w *world) joinRule(rule string) {
	w.put(pdu.TypeJoinRules, "", creator, object{"join_rule": rule})
}

func (w *world) json(v any) json.RawMessage {
	w.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func stateKey(s string) *string { return &s }

// build makes an event. It is of this room, and has a parent, unless p says something else.
func (w *world) build(p pdu.Proto) *pdu.Event {
	w.t.Helper()
	if p.RoomID == "" && !(p.Type == pdu.TypeCreate && w.props.RoomIDIsCreateHash) {
		p.RoomID = w.room
	}
	if p.PrevEvents == nil && p.Type != pdu.TypeCreate {
		p.PrevEvents = []id.EventID{"$parent:one"}
		if w.props.HashIDs() {
			p.PrevEvents[0] = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		}
	}
	p.Depth, p.OriginServerTS = max(p.Depth, 1), max(p.OriginServerTS, 1)
	signer := w.signer
	signer.ServerName = p.Sender.Server()
	e, err := pdu.Build(w.v, p, signer)
	if err != nil {
		w.t.Fatalf("building %s with %s: %v", p.Type, p.Content, err)
	}
	return e
}

func (w *world) event(eventType string, key *string, sender id.UserID, content any) *pdu.Event {
	w.t.Helper()
	return w.build(pdu.Proto{Type: eventType, StateKey: key, Sender: sender, Content: w.json(content)})
}

// put sets a state entry, unchecked.
func (w *world) put(eventType, key string, sender id.UserID, content any) *pdu.Event {
	w.t.Helper()
	e := w.event(eventType, &key, sender, content)
	w.state[Key{eventType, key}] = e
	return e
}

// send checks an event against the state.
func (w *world) send(eventType string, key *string, sender id.UserID, content any) error {
	w.t.Helper()
	return Check(w.event(eventType, key, sender, content), w.state)
}

// member checks a membership event; more are further members of its content.
func (w *world) member(sender, target id.UserID, membership string, more object) error {
	w.t.Helper()
	content := object{"membership": membership}
	maps.Copy(content, more)
	return w.send(pdu.TypeMember, stateKey(string(target)), sender, content)
}

// power checks power levels that are the room's with a change.
func (w *world) power(sender id.UserID, change func(levels, users, events, notifications object)) error {
	w.t.Helper()
	levels := w.levels()
	change(levels, levels["users"].(object), levels["events"].(object), levels["notifications"].(object))
	return w.send(pdu.TypePowerLevels, stateKey(""), sender, levels)
}

// creates checks a create event with changed content.
func (w *world) creates(more object) error {
	w.t.Helper()
	return Check(w.build(w.createProto(more)), Map{})
}

// message is a message of user that cites its auth events, and those events. change changes them before the event is built.
func (w *world) message(change func(cited []*pdu.Event) []*pdu.Event) (*pdu.Event, []*pdu.Event) {
	w.t.Helper()
	p := pdu.Proto{Type: "m.room.message", Sender: user, Content: json.RawMessage(`{}`)}
	keys, err := NeededForProto(w.v, p)
	if err != nil {
		w.t.Fatal(err)
	}
	var cited []*pdu.Event
	for _, key := range keys {
		cited = append(cited, w.state[key])
	}
	if change != nil {
		cited = change(cited)
	}
	for _, e := range cited {
		p.AuthEvents = append(p.AuthEvents, e.ID())
	}
	e := w.build(p)
	if w.props.RoomIDIsCreateHash {
		cited = append(cited, w.create)
	}
	return e, cited
}

// cites checks the message with changed auth events.
func (w *world) cites(change func(cited []*pdu.Event) []*pdu.Event) error {
	w.t.Helper()
	e, cited := w.message(change)
	return CheckAuthEvents(e, cited)
}

// thirdParty issues an m.room.third_party_invite with a key, and returns the content of an invite that takes it up. sign is
// the seed of the key that signs.
func (w *world) thirdParty(issuer id.UserID, sign byte) object {
	w.t.Helper()
	key := func(seed byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	}
	encode := base64.RawStdEncoding.EncodeToString
	public := func(seed byte) string { return encode(key(seed).Public().(ed25519.PublicKey)) }
	w.put(pdu.TypeThirdPartyInvite, "token", issuer, object{
		"public_key": public(1), "public_keys": []any{object{"public_key": public(2)}, object{"public_key": public(3)}},
	})
	signed := `{"mxid":"` + string(stranger) + `","token":"token"}`
	return object{"membership": "invite", "third_party_invite": object{"signed": object{
		"mxid": string(stranger), "token": "token",
		"signatures": object{"identity.example": object{"ed25519:0": encode(ed25519.Sign(key(sign), []byte(signed)))}},
	}}}
}

// takesUp checks the invite of thirdParty with a change.
func (w *world) takesUp(sender id.UserID, content object, change func(invite, signed object)) error {
	w.t.Helper()
	invite := content["third_party_invite"].(object)
	if change != nil {
		change(invite, invite["signed"].(object))
	}
	return w.send(pdu.TypeMember, stateKey(string(stranger)), sender, content)
}
