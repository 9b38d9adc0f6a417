// Package auth is the authorization rules of rooms (Server-Server API, § Authorisation rules, and § Authorisation rules of
// each room version).
//
// There is one path through the rules for all room versions. What differs is in roomversion.Properties; a rule's number in a
// version is found by its place in the tree of rules. A rule that fails gives an *Error with version and number; every other
// error says that the event could not be checked, which is no verdict.
//
// The rules look at single entries of a state, through State, so that the cost of a check does not depend on the size of the
// room.
package auth

import (
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
)

// Key names an entry of a room's state.
type Key struct{ Type, StateKey string }

// State is the room state that an event is checked against.
type State interface {
	// Get returns the state event, or nil if the state has none. An error means that it cannot be known now.
	Get(Key) (*pdu.Event, error)
}

// Map is a State that is wholly in memory.
type Map map[Key]*pdu.Event

// Get looks into the map.
func (m Map) Get(k Key) (*pdu.Event, error) { return m[k], nil }

// Error says which rule rejects an event.
type Error struct {
	Version id.RoomVersion
	Rule    string // number in the specification of the room version, such as "4.3.3"
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("rule %s of room version %s: %s", e.Rule, e.Version, e.Message)
}

// Unwrap gives what a client is told.
func (e *Error) Unwrap() error { return mxerr.Forbidden("%s", e.Error()) }

// MissingError says that an event could not be checked because its auth events are not all at hand.
type MissingError struct{ EventIDs []id.EventID }

func (e *MissingError) Error() string { return fmt.Sprintf("auth events are missing: %v", e.EventIDs) }

// Check applies the rules to an event and the state before it, except for those about its auth_events. Signatures are not
// verified here: pdu.Event.SignaturesNeeded names those that the rules count on.
func Check(e *pdu.Event, s State) error {
	c := checker{e: e, props: e.Properties(), state: s}
	if err := c.check(); err != nil {
		if verdict, is := err.(*Error); is {
			return verdict
		}
		return fmt.Errorf("checking event %s: %w", e.ID(), err)
	}
	return nil
}

// CheckAuthEvents applies the rules to an event and its auth events: those about auth_events themselves, and then all others
// against the state that they make. authEvents are the events that the event lists, in any order; in room versions whose room
// ids are hashes the room's create event is given too, although it is not listed. rejected are those among them that were
// rejected.
func CheckAuthEvents(e *pdu.Event, authEvents []*pdu.Event, rejected ...id.EventID) error {
	c := checker{e: e, props: e.Properties()}
	if e.Type() == pdu.TypeCreate {
		return Check(e, Map{})
	}
	state, err := c.authEvents(authEvents, rejected)
	if err != nil {
		return err
	}
	return Check(e, state)
}

// checker is the check of one event.
type checker struct {
	e      *pdu.Event
	props  *roomversion.Properties
	state  State
	create *pdu.Event
	levels *PowerLevels
}

func (c *checker) deny(r rule, format string, args ...any) error {
	return &Error{c.props.Version, number(c.props.Version, r), fmt.Sprintf(format, args...)}
}

func (c *checker) check() error {
	if c.e.Type() == pdu.TypeCreate {
		return c.checkCreate()
	}
	if err := c.load(); err != nil {
		return err
	}
	sender := c.e.Sender()
	if federate := pdu.Member(c.create.Content(), "m.federate"); string(federate) == "false" && sender.Server() != c.create.Sender().Server() {
		return c.deny(ruleFederate, "the room is not federated, and %s is not of the server that created it", sender)
	}
	stateKey, isState := c.e.StateKey()
	switch {
	case c.e.Type() == pdu.TypeAliases && c.props.AliasesAuth:
		return c.checkAliases(stateKey, isState)
	case c.e.Type() == pdu.TypeMember:
		return c.checkMember()
	}
	if membership, err := c.membership(sender); err != nil {
		return err
	} else if membership != "join" {
		return c.deny(ruleSenderJoined, "%s is not joined to the room", sender)
	}
	level := c.levels.User(sender)
	if c.e.Type() == pdu.TypeThirdPartyInvite {
		if invite := c.levels.Invite(); level < invite {
			return c.deny(ruleThirdPartyInviteLevel, "%s has power level %d, but inviting needs %d", sender, level, invite)
		}
		return nil
	}
	if required := c.levels.Event(c.e.Type(), isState); level < required {
		return c.deny(ruleRequiredLevel, "%s has power level %d, but sending %s needs %d", sender, level, c.e.Type(), required)
	}
	if isState && len(stateKey) > 0 && stateKey[0] == '@' && stateKey != string(sender) {
		return c.deny(ruleOwnStateKey, "the state key %q is another user's id", stateKey)
	}
	switch {
	case c.e.Type() == pdu.TypePowerLevels:
		return c.checkPowerLevels(level)
	case c.e.Type() == pdu.TypeRedaction && c.props.RedactionAuth:
		if redact := c.levels.Redact(); level < redact && c.e.Redacts().Server() != c.e.ID().Server() {
			return c.deny(ruleRedactionOtherwise, "%s has power level %d, but redacting another server's event needs %d", sender, level, redact)
		}
	}
	return nil
}

// load reads what nearly every rule needs: the create event and the power levels.
func (c *checker) load() (err error) {
	if c.create, err = c.state.Get(Key{pdu.TypeCreate, ""}); err != nil {
		return err
	}
	switch {
	case c.create == nil && c.props.RoomIDIsCreateHash:
		return c.deny(ruleRoomCreate, "the create event of room %s is not known", c.e.RoomID())
	case c.create == nil:
		return c.deny(ruleAuthNoCreate, "the room has no create event")
	case c.props.RoomIDIsCreateHash && c.create.RoomID() != c.e.RoomID():
		return c.deny(ruleRoomCreate, "the room id %s is not the hash of the create event %s", c.e.RoomID(), c.create.ID())
	}
	powerLevels, err := c.state.Get(Key{pdu.TypePowerLevels, ""})
	if err != nil {
		return err
	}
	c.levels = LevelsFrom(c.create, powerLevels)
	return nil
}

// membership is a user's membership in the state; "leave" if there is none.
func (c *checker) membership(user id.UserID) (string, error) {
	e, err := c.state.Get(Key{pdu.TypeMember, string(user)})
	if err != nil || e == nil {
		return "leave", err
	}
	return e.Membership(), nil
}

func (c *checker) checkCreate() error {
	content := c.e.Content()
	if len(c.e.PrevEvents()) > 0 {
		return c.deny(ruleCreatePrev, "a create event has no prev_events")
	}
	if c.props.RoomIDIsCreateHash {
		if c.e.HasRoomID() {
			return c.deny(ruleCreateRoomID, "a create event has no room_id")
		}
	} else if c.e.RoomID().Server() != c.e.Sender().Server() {
		return c.deny(ruleCreateDomain, "the room id %s is not of the server of its creator %s", c.e.RoomID(), c.e.Sender())
	}
	if raw := pdu.Member(content, "room_version"); raw != nil {
		if v, isString := pdu.String(raw); !isString || !roomversion.Supported(id.RoomVersion(v)) {
			return c.deny(ruleCreateVersion, "room version %s is not recognised", raw)
		}
	}
	if c.props.CreatorInContent && pdu.Member(content, "creator") == nil {
		return c.deny(ruleCreateCreator, "content has no creator")
	}
	if raw := pdu.Member(content, "additional_creators"); c.props.PrivilegedCreators && raw != nil {
		valid := raw[0] == '['
		pdu.EachElement(raw, func(value []byte) {
			s, isString := pdu.String(value)
			_, err := id.ParseUserID(s)
			valid = valid && isString && err == nil
		})
		if !valid {
			return c.deny(ruleCreateAdditional, "additional_creators is not an array of user ids")
		}
	}
	return nil
}

func (c *checker) checkAliases(stateKey string, isState bool) error {
	if !isState {
		return c.deny(ruleAliasesStateKey, "m.room.aliases has no state key")
	}
	if stateKey != string(c.e.Sender().Server()) {
		return c.deny(ruleAliasesDomain, "the state key %q is not the server of %s", stateKey, c.e.Sender())
	}
	return nil
}
