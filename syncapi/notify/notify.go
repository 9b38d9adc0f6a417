// Package notify tells what a user's push rules say of an event in a room, with all that the conditions look at.
package notify

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidwall/gjson"

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

// Rules are a user's, compiled.
type Rules struct {
	user      id.UserID
	evaluator *pushrules.Evaluator
	names     bool // a rule looks for the user's display name
}

// RulesOf compiles the rules of a view.
func RulesOf(user id.UserID, view *stream.View) *Rules {
	set := view.Rules.Merge(user)
	return &Rules{user, pushrules.Compile(set), set.NeedsDisplayName()}
}

// Evaluate tells what the rules say of an event.
func (j *Judge) Evaluate(ctx context.Context, rules *Rules, row *storage.TimelineRow, e *pdu.Event) (pushrules.Result, error) {
	subject := &pushrules.Subject{Event: e, Members: row.Joined}
	var err error
	if rules.names {
		if subject.DisplayName, err = j.DisplayName(ctx, row.RoomID, row.RootAfter, rules.user); err != nil {
			return pushrules.Result{}, err
		}
	}
	if MentionsRoom(e) {
		if subject.MayNotify, err = j.MayNotify(ctx, row.RoomID, row.RootBefore, e.Sender()); err != nil {
			return pushrules.Result{}, err
		}
	}
	return rules.evaluator.Evaluate(subject), nil
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
	members, err := j.Events.Members(ctx, room, root, []id.UserID{user})
	if err != nil || len(members) == 0 {
		return "", err
	}
	return gjson.GetBytes(members[0].PDU.Content(), "displayname").Str, nil
}

// MentionsRoom tells whether an event mentions everybody, which asks for power.
func MentionsRoom(e *pdu.Event) bool {
	return gjson.GetBytes(e.Content(), `m\.mentions.room`).Type == gjson.True
}

// MayNotify tells which notifications a sender may trigger (§ Conditions, sender_notification_permission).
func (j *Judge) MayNotify(ctx context.Context, room id.RoomID, root roomserver.Root, sender id.UserID) (func(key string) bool, error) {
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
	return func(key string) bool {
		creator := create != nil && (create.Sender() == sender || isAmong(create, "additional_creators", sender))
		if creator && create.Properties().PrivilegedCreators {
			return true
		}
		needed, power := int64(50), int64(0)
		if levels == nil {
			if creator {
				power = 100
			}
			return power >= needed
		}
		content := levels.Content()
		if v := gjson.GetBytes(content, "notifications."+gjson.Escape(key)); v.Exists() {
			needed = v.Int()
		}
		if v := gjson.GetBytes(content, "users."+gjson.Escape(string(sender))); v.Exists() {
			power = v.Int()
		} else {
			power = gjson.GetBytes(content, "users_default").Int()
		}
		return power >= needed
	}, nil
}

func isAmong(e *pdu.Event, key string, user id.UserID) bool {
	return slices.ContainsFunc(gjson.GetBytes(e.Content(), key).Array(), func(v gjson.Result) bool { return v.Str == string(user) })
}
