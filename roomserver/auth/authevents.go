package auth

import (
	"slices"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// Needed selects the state entries that belong into an event's auth_events (Server-Server API, § Auth events selection).
func Needed(e *pdu.Event) []Key {
	stateKey, isState := e.StateKey()
	return needed(e.Properties(), e.Type(), stateKey, isState, e.Sender(), e.Content())
}

// NeededForProto is Needed for an event that has not been built yet. Its content must be JSON.
func NeededForProto(v id.RoomVersion, p pdu.Proto) ([]Key, error) {
	content, err := pdu.CanonicalJSON(v, p.Content)
	if err != nil {
		return nil, err
	}
	props, _ := roomversion.Get(v) // known, or CanonicalJSON had failed
	var stateKey string
	if p.StateKey != nil {
		stateKey = *p.StateKey
	}
	return needed(props, p.Type, stateKey, p.StateKey != nil, p.Sender, content), nil
}

func needed(props *roomversion.Properties, eventType, stateKey string, isState bool, sender id.UserID, content []byte) []Key {
	if eventType == pdu.TypeCreate {
		return nil
	}
	keys := make([]Key, 0, 6)
	if !props.RoomIDIsCreateHash {
		keys = append(keys, Key{pdu.TypeCreate, ""})
	}
	keys = append(keys, Key{pdu.TypePowerLevels, ""}, Key{pdu.TypeMember, string(sender)})
	if eventType != pdu.TypeMember {
		return keys
	}
	if isState && stateKey != string(sender) {
		keys = append(keys, Key{pdu.TypeMember, stateKey})
	}
	membership, _ := pdu.String(pdu.Member(content, "membership"))
	if membership == "join" || membership == "invite" || membership == "knock" {
		keys = append(keys, Key{pdu.TypeJoinRules, ""})
	}
	if invite := pdu.Member(content, "third_party_invite"); membership == "invite" && invite != nil {
		if token, is := pdu.String(pdu.Member(pdu.Member(invite, "signed"), "token")); is {
			keys = append(keys, Key{pdu.TypeThirdPartyInvite, token})
		}
	}
	if membership == "join" && props.Restricted {
		authoriser, is := pdu.String(pdu.Member(content, "join_authorised_via_users_server"))
		if key := (Key{pdu.TypeMember, authoriser}); is && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// authEvents applies the rules about auth_events themselves, and returns the state that they make.
func (c *checker) authEvents(given []*pdu.Event, rejected []id.EventID) (Map, error) {
	byID := make(map[id.EventID]*pdu.Event, len(given))
	for _, e := range given {
		byID[e.ID()] = e
	}
	state := make(Map, len(given))
	var missing []id.EventID
	if c.props.RoomIDIsCreateHash {
		createID := "$" + id.EventID(strings.TrimPrefix(string(c.e.RoomID()), "!"))
		create := byID[createID]
		switch {
		case create == nil:
			missing = append(missing, createID)
		case create.Type() != pdu.TypeCreate || slices.Contains(rejected, createID):
			return nil, c.deny(ruleRoomCreate, "the room id %s is not the id of an accepted create event", c.e.RoomID())
		default:
			state[Key{pdu.TypeCreate, ""}] = create
		}
	}
	for _, eventID := range c.e.AuthEvents() {
		if byID[eventID] == nil {
			missing = append(missing, eventID)
		}
	}
	if missing != nil {
		return nil, &MissingError{missing}
	}
	selected := Needed(c.e)
	for _, eventID := range c.e.AuthEvents() {
		e := byID[eventID]
		stateKey, isState := e.StateKey()
		key := Key{e.Type(), stateKey}
		needed := isState && slices.Contains(selected, key)
		switch {
		case needed && state[key] != nil:
			return nil, c.deny(ruleAuthDuplicate, "auth_events has %s with state key %q twice", key.Type, key.StateKey)
		case !needed:
			return nil, c.deny(ruleAuthUnneeded, "auth_events has %s with state key %q, which this event does not need", key.Type, key.StateKey)
		case slices.Contains(rejected, eventID):
			return nil, c.deny(ruleAuthRejected, "the auth event %s was rejected", eventID)
		case e.RoomID() != c.e.RoomID():
			return nil, c.deny(ruleAuthOtherRoom, "the auth event %s is of another room", eventID)
		}
		state[key] = e
	}
	if !c.props.RoomIDIsCreateHash && state[Key{pdu.TypeCreate, ""}] == nil {
		return nil, c.deny(ruleAuthNoCreate, "auth_events has no create event")
	}
	return state, nil
}
