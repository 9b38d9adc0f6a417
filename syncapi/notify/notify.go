// Package notify tells what a user's push rules say of an event in a room, with all that the conditions look at.
package notify

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/events"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
	"github.com/matrix-org/dendrite/syncapi/stream"
)

// Judge evaluates rules.
type Judge struct {
	Room   *roomserver.RoomserverAPI
	Events *events.Cache
}

// Budgets of matching, in steps of glob.Work. A message of a few hundred words and some hundreds of keywords stay far
// below.
const (
	// UserWork is what the rules of one user may take for one event. Rules that would take more do not match.
	UserWork = 256 << 10
	// EventWork is what the rules of all users of a room may take for one event.
	EventWork = 8 << 20
)

// Share is the budget of the next of some users for an event, of which an amount is left. Users come in the order of
// what their rules may take: whoever needs little gets all they need, and those who need much share what remains.
func Share(left, users int) *glob.Work { return &glob.Work{Left: min(UserWork, left/users)} }

// Rules are a user's, compiled. They may be shared.
type Rules struct {
	*pushrules.Evaluator
	User     id.UserID
	Document *pushrules.Document
}

// NewRules compiles what a user has changed.
func NewRules(user id.UserID, document *pushrules.Document) *Rules {
	return &Rules{pushrules.Compile(document.Merge(user)), user, document}
}

// Subject is an event as rules see it. root is the state in which its sender sent it.
func (j *Judge) Subject(
	ctx context.Context, e *pdu.Event, room id.RoomID, root roomserver.Root, joined int64,
) *pushrules.Subject {
	return &pushrules.Subject{Event: e, Members: joined, Power: func() (func(string) bool, error) {
		return j.mayNotify(ctx, room, root, e.Sender())
	}}
}

// Evaluate tells what a user's rules say of an event, within the budget, which may be less than UserWork.
func (j *Judge) Evaluate(
	ctx context.Context, rules *Rules, row *storage.TimelineRow, e *pdu.Event, w *glob.Work,
) (pushrules.Result, error) {
	var displayName string
	if rules.NeedsDisplayName() {
		var err error
		if displayName, err = j.DisplayName(ctx, row.RoomID, row.RootAfter, rules.User); err != nil {
			return pushrules.Result{}, err
		}
	}
	return rules.Evaluator.Evaluate(j.Subject(ctx, e, row.RoomID, row.RootBefore, row.Joined), displayName, w)
}

// Candidates gets those of the rows of a user's rooms that may notify the user, with their events: what others sent, whom the user does
// not ignore, while the user was joined, and what invites the user.
func (j *Judge) Candidates(ctx context.Context, user id.UserID, view *stream.View, rows []storage.TimelineRow) ([]Candidate, error) {
	var seen, checked []id.EventID
	rows = slices.DeleteFunc(slices.Clone(rows), func(row storage.TimelineRow) bool {
		_, ignored := view.Ignored[row.Sender]
		m := view.MembershipAt(row.RoomID, row.Pos)
		if ignored || row.Sender == user || row.Has(storage.Hidden) || m == nil {
			return true
		}
		switch {
		case m.Membership == "join" && !row.Has(storage.Forked):
			seen = append(seen, row.EventID)
		case m.Membership == "join", m.Membership == "invite" && m.EventID == row.EventID && !view.BlocksInvites:
			checked = append(checked, row.EventID)
		default:
			return true
		}
		return false
	})
	found, err := j.Events.Get(ctx, seen)
	if err != nil {
		return nil, err
	}
	visible, err := j.Events.Visible(ctx, roomserver.Viewer{UserID: user}, checked)
	if err != nil {
		return nil, err
	}
	candidates := make([]Candidate, 0, len(rows))
	for i := range rows {
		e := found[rows[i].EventID]
		if e == nil {
			e = visible[rows[i].EventID]
		}
		if e != nil && e.RedactedBecause == nil {
			candidates = append(candidates, Candidate{rows[i], e})
		}
	}
	return candidates, nil
}

// Invites are the user's invites to rooms, as rows, that came after a position.
func Invites(view *stream.View, after int64) (rows []storage.TimelineRow) {
	for room, history := range view.Rooms {
		if m := &history[len(history)-1]; m.Pos > after && m.Membership == "invite" && m.EventID != "" {
			rows = append(rows, storage.TimelineRow{RoomID: room, Pos: m.Pos, EventID: m.EventID, Type: "m.room.member", Sender: m.Sender,
				RootBefore: m.Root, RootAfter: m.Root})
		}
	}
	return rows
}

// Candidate is an event that may notify.
type Candidate struct {
	Row   storage.TimelineRow
	Event *roomserver.Event
}

// DisplayName is a user's name in a room.
func (j *Judge) DisplayName(ctx context.Context, room id.RoomID, root roomserver.Root, user id.UserID) (string, error) {
	names, err := j.DisplayNames(ctx, room, root, []id.UserID{user})
	return names[user], err
}

// DisplayNames are the names of users in a room, of those who have one.
func (j *Judge) DisplayNames(
	ctx context.Context, room id.RoomID, root roomserver.Root, users []id.UserID,
) (map[id.UserID]string, error) {
	members, err := j.Events.Members(ctx, room, root, users)
	if err != nil {
		return nil, err
	}
	names := make(map[id.UserID]string)
	for _, m := range members {
		if stateKey, is := m.PDU.StateKey(); is {
			names[id.UserID(stateKey)] = gjson.GetBytes(m.PDU.Content(), "displayname").Str
		}
	}
	return names, nil
}

// Mentions lists the users whom an event mentions by m.mentions, each once. It is as long as the sender made it.
func Mentions(e *pdu.Event) (users []id.UserID) {
	seen := make(map[string]struct{})
	for _, name := range texts(e, `m\.mentions.user_ids`) {
		if _, again := seen[name]; again {
			continue
		}
		seen[name] = struct{}{}
		if user, err := id.ParseUserID(name); err == nil {
			users = append(users, user)
		}
	}
	return users
}

// texts are the strings of a list in an event's content. What is no list has none.
func texts(e *pdu.Event, path string) (all []string) {
	list := gjson.GetBytes(e.Content(), path)
	if !list.IsArray() {
		return nil
	}
	list.ForEach(func(_, v gjson.Result) bool {
		if v.Type == gjson.String {
			all = append(all, v.Str)
		}
		return true
	})
	return all
}

// mayNotify tells which notifications a sender may trigger (§ Conditions, sender_notification_permission).
func (j *Judge) mayNotify(
	ctx context.Context, room id.RoomID, root roomserver.Root, sender id.UserID,
) (func(key string) bool, error) {
	answer, err := j.Room.QueryState(ctx, roomserver.QueryStateRequest{RoomID: room, Root: &root,
		Keys: []roomserver.StateKeyTuple{{Type: "m.room.power_levels"}, {Type: "m.room.create"}}})
	if err != nil {
		return nil, fmt.Errorf("power levels of %s: %w", room, err)
	}
	var levels, create *pdu.Event
	for i := range answer.Events {
		switch e := answer.Events[i].PDU; e.Type() {
		case "m.room.power_levels":
			levels = e
		case "m.room.create":
			create = e
		}
	}
	creator := create != nil &&
		(create.Sender() == sender || slices.Contains(texts(create, "additional_creators"), string(sender)))
	power := powerOf(levels, creator, sender)
	return func(key string) bool {
		needed := int64(usualLevel)
		if levels != nil {
			if v := gjson.GetBytes(levels.Content(), "notifications."+gjson.Escape(key)); v.Exists() {
				needed = v.Int()
			}
		}
		return creator && create.Properties().PrivilegedCreators || power >= needed
	}, nil
}

// usualLevel is what notifications need where the power levels do not say.
const usualLevel = 50

func powerOf(levels *pdu.Event, creator bool, sender id.UserID) int64 {
	switch {
	case levels == nil && creator:
		return 100
	case levels == nil:
		return 0
	}
	content := levels.Content()
	if v := gjson.GetBytes(content, "users."+gjson.Escape(string(sender))); v.Exists() {
		return v.Int()
	}
	return gjson.GetBytes(content, "users_default").Int()
}
