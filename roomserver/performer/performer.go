// Package performer turns what local users ask for into events: rooms that are created, messages, joins, invites and other
// changes of membership (Client-Server API, § Rooms). It decides on the room as it is when the room's worker comes to the input;
// whether the events are allowed is for the authorization rules.
package performer

import (
	"encoding/json"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/input"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// Deps are what a Performer works with.
type Deps struct {
	Input          *input.Input
	Reader         *state.Reader
	Storage        *storage.Storage
	ServerName     id.ServerName
	DefaultVersion id.RoomVersion
	// Notices sends server notices; invites from it cannot be rejected. Empty: nobody does.
	Notices id.UserID
	// MayPublish tells whether the configuration lets a user create an alias, or publish a room if alias is empty.
	MayPublish func(user id.UserID, room id.RoomID, alias id.RoomAlias) bool
}

// Performer implements the changing calls of the contract.
type Performer struct {
	Deps
	guestsOut chan struct{} // wakes RemoveGuests
}

// New makes a Performer.
func New(d Deps) *Performer { return &Performer{d, make(chan struct{}, 1)} }

const (
	join   = "join"
	leave  = "leave"
	invite = "invite"
	ban    = "ban"
	knock  = "knock"

	typeGuestAccess = "m.room.guest_access"
)

// memberContent is the content of an m.room.member event.
type memberContent struct {
	Membership  string    `json:"membership"`
	DisplayName string    `json:"displayname,omitempty"`
	AvatarURL   string    `json:"avatar_url,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	IsDirect    bool      `json:"is_direct,omitempty"`
	Authoriser  id.UserID `json:"join_authorised_via_users_server,omitempty"`
}

func (c memberContent) with(p api.Profile) memberContent {
	c.DisplayName, c.AvatarURL = p.DisplayName, p.AvatarURL
	return c
}

// member is the proto of a member event.
func member(sender, target id.UserID, c memberContent, ts int64) (input.Proto, error) {
	return stateProto(sender, pdu.TypeMember, string(target), c, ts)
}

// stateProto is the proto of a state event.
func stateProto(sender id.UserID, eventType, stateKey string, content any, ts int64) (input.Proto, error) {
	raw, err := json.Marshal(content)
	return input.Proto{Proto: pdu.Proto{Type: eventType, StateKey: &stateKey, Sender: sender, Content: raw, OriginServerTS: ts}}, err
}
