package storage

import (
	"encoding/json"
	"io/fs"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

// Flags of a timeline row.
const (
	State     = 1 << iota // the event is a state event
	HasURL                // its content has a url
	Complex               // the state changed in another way than by this event becoming a part of it
	Hidden                // it is not for clients: only its change of state is
	Forked                // it was sent where the room's state was another one
	Notify                // it notifies those who follow the default rules
	Highlight             // and highlights for them
	// Local is the greatest flag: a user of this server has said or done something in the room. An index depends on its value.
	Local = 1 << 10
)

// Counts are numbers of notifications.
type Counts struct{ Notify, Highlight int64 }

// Plus adds.
func (c Counts) Plus(d Counts) Counts { return Counts{c.Notify + d.Notify, c.Highlight + d.Highlight} }

// Minus subtracts.
func (c Counts) Minus(d Counts) Counts { return Counts{c.Notify - d.Notify, c.Highlight - d.Highlight} }

// Room is what a room is after its last event.
type Room struct {
	RoomID          id.RoomID
	Version         id.RoomVersion
	Pos             int64
	Order           roomserver.OrderKey
	Root            roomserver.Root
	Joined, Invited int64
	All, Main       Counts // of all events so far, and of those in no thread
}

// TimelineRow is an event in its place.
type TimelineRow struct {
	RoomID                id.RoomID
	Pos                   int64
	EventID               id.EventID
	Order                 roomserver.OrderKey
	Type                  string
	Sender                id.UserID
	Flags                 int64
	Thread                id.EventID // root of its thread, if it is in one
	RootBefore, RootAfter roomserver.Root
	Joined, Invited       int64
	All, Main, InThread   Counts // so far, this event included
}

// Has tells whether all these flags are set.
func (r *TimelineRow) Has(flags int64) bool { return r.Flags&flags == flags }

// Membership is what a user of this server became in a room.
type Membership struct {
	UserID     id.UserID
	RoomID     id.RoomID
	Pos        int64
	Membership string
	EventID    id.EventID // none if the state was reset
	Sender     id.UserID
	Root       roomserver.Root   // state of the room, the change included
	Stripped   []json.RawMessage // what an invited or knocking user may see
}

// Mention is what an event counts for one user beyond what it counts for all. Without a user it is for all.
type Mention struct {
	UserID id.UserID
	RoomID id.RoomID
	At     int64 // position of the event
	Pos    int64
	Thread id.EventID
	Counts Counts
}

// Frozen is the count at the position from which on a user's rules count in another way.
type Frozen struct {
	UserID id.UserID
	RoomID id.RoomID
	Pos    int64
	Place  int64 // up to which the user had read
	Counts Counts
	Base   Counts // of the room, at that position
}

// Receipt types.
const (
	Read        = "m.read"
	ReadPrivate = "m.read.private"
)

// Receipt says up to where somebody has read.
type Receipt struct {
	RoomID  id.RoomID
	UserID  id.UserID
	Type    string
	Thread  string // "main", the root of a thread, or nothing
	Pos     int64
	EventID id.EventID
	Order   roomserver.OrderKey
	// Place is the position of the newest event that it covers. If the event is not known yet, Order is zero, and Place that of the
	// receipt before it.
	Place int64
	TS    int64 // ms
}

// Presence is what a user has set last, with the time in ms.
type Presence struct {
	UserID    id.UserID      `json:"user_id"`
	State     presence.State `json:"presence"`
	StatusMsg string         `json:"status_msg"`
	TS        int64          `json:"ts"`
}

// AccountData is one entry of a user's account data.
type AccountData struct {
	UserID  id.UserID
	RoomID  id.RoomID // empty for what is of no room
	Type    string
	Pos     int64
	Content json.RawMessage
}

// PushRules is the type under which a user's push rules are kept and shown.
const PushRules = "m.push_rules"

// IgnoredUsers is the type of the account data that names whom a user ignores.
const IgnoredUsers = "m.ignored_user_list"

// InvitePermission is the type of the account data that says whether a user wants invites.
const InvitePermission = "m.invite_permission_config"

// BlocksInvites tells whether the content of InvitePermission, which may be nil, says that the user wants none.
func BlocksInvites(content json.RawMessage) bool {
	return gjson.GetBytes(content, "default_action").Str == "block"
}

// IgnoredIn lists whom the content of IgnoredUsers names.
func IgnoredIn(content json.RawMessage) []id.UserID {
	var users []id.UserID
	gjson.GetBytes(content, "ignored_users").ForEach(func(name, _ gjson.Result) bool {
		if user, err := id.ParseUserID(name.Str); err == nil {
			users = append(users, user) // what is no user id is nobody
		}
		return true
	})
	return users
}

// Changes are the rows of a commit. The positions after Prev up to Pos are covered by it.
type Changes struct {
	Prev, Pos   int64
	Rooms       []Room
	Timeline    []TimelineRow
	Memberships []Membership
	Mentions    []Mention
	Frozen      []Frozen
	Receipts    []Receipt
	AccountData []AccountData
	// Touched is what has changed without a row here.
	Touched []Touched
	// Redacted are events whose bodies have changed.
	Redacted []id.EventID
}

func (c *Changes) add(d *Changes) {
	c.Rooms = append(c.Rooms, d.Rooms...)
	c.Timeline = append(c.Timeline, d.Timeline...)
	c.Memberships = append(c.Memberships, d.Memberships...)
	c.Mentions = append(c.Mentions, d.Mentions...)
	c.Frozen = append(c.Frozen, d.Frozen...)
	c.Receipts = append(c.Receipts, d.Receipts...)
	c.AccountData = append(c.AccountData, d.AccountData...)
	c.Redacted = append(c.Redacted, d.Redacted...)
	c.Touched = append(c.Touched, d.Touched...)
}

func subdirectory() (fs.FS, error) { return fs.Sub(migrations, "migrations") }
