package input

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// threadOf finds the thread of an event: by its own relation, or by that of the event that it relates to, whose thread is known
// (Client-Server API, § Threaded read receipts).
func (b *batch) threadOf(output *roomserver.OutputEvent) id.EventID {
	r := output.Event.Relation()
	if r.Parent == "" || r.Type == pdu.RelThread {
		return r.Parent
	}
	if thread, has := b.parents[r.Parent]; has {
		return thread
	}
	if row, has := b.known[r.Parent]; has && row.RoomID == output.RoomID {
		return row.Thread
	}
	return ""
}

// count sets the flags of a row that tell whether it notifies by the default rules, and adds what it counts for single users
// beyond their class.
func (b *batch) count(ctx context.Context, output *roomserver.OutputEvent, row *storage.TimelineRow) error {
	subject := &pushrules.Subject{Event: output.Event, Members: output.Joined}
	if gjson.GetBytes(output.Event.Content(), `m\.mentions.room`).Type == gjson.True {
		mayNotify, err := b.in.mayNotify(ctx, output)
		if err != nil {
			return err
		}
		subject.MayNotify = mayNotify
	}
	byClass := pushrules.ByClass(subject)
	if byClass[pushrules.ClassDefault].Notify {
		row.Flags |= storage.Notify
	}
	if byClass[pushrules.ClassDefault].Highlight {
		row.Flags |= storage.Highlight
	}
	users, err := b.in.rules.followers(ctx, b, output)
	if err != nil {
		return err
	}
	for _, u := range users {
		if u.user == output.Event.Sender() {
			continue
		}
		subject.DisplayName = u.displayName
		var result pushrules.Result // nothing, of those whom the user ignores
		if !u.ignores {
			result = u.evaluator.Evaluate(subject)
		}
		class := byClass[u.class]
		delta := countsOf(result).Minus(countsOf(class))
		if delta == (storage.Counts{}) {
			continue
		}
		b.changes.Mentions = append(b.changes.Mentions, storage.Mention{UserID: u.user, RoomID: output.RoomID, At: -row.Pos, Pos: row.Pos, Thread: row.Thread, Counts: delta})
	}
	return nil
}

func countsOf(r pushrules.Result) (c storage.Counts) {
	if r.Notify {
		c.Notify = 1
	}
	if r.Highlight {
		c.Highlight = 1
	}
	return c
}

// correct takes back what a redacted event counted.
func (b *batch) correct(ctx context.Context, output *roomserver.OutputEvent) error {
	if slices.Contains(b.changes.Redacted, output.Redacts) {
		return nil
	}
	b.changes.Redacted = append(b.changes.Redacted, output.Redacts)
	target, undo, at := b.ownTarget(output)
	if target == nil {
		row, has := b.known[output.Redacts]
		if !has {
			return nil // it is not in the timeline
		}
		err := b.in.Storage.Read(ctx, "mentions of a redacted event", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			undo, err = b.in.Storage.MentionsAt(ctx, tx, row.RoomID, row.Pos)
			return err
		})
		if err != nil {
			return err
		}
		target, at = &row, row.Pos
	}
	everybody := storage.Mention{RoomID: target.RoomID, At: at, Thread: target.Thread}
	if target.Has(storage.Notify) {
		everybody.Counts.Notify = 1
	}
	if target.Has(storage.Highlight) {
		everybody.Counts.Highlight = 1
	}
	if !slices.ContainsFunc(undo, func(m storage.Mention) bool { return m.UserID == "" }) {
		undo = append(undo, everybody)
	}
	for _, m := range undo {
		if m.Counts != (storage.Counts{}) && (m.UserID != "" || m == everybody) {
			m.Counts, m.Pos = storage.Counts{}.Minus(m.Counts), int64(b.positions)
			b.changes.Mentions = append(b.changes.Mentions, m)
		}
	}
	return nil
}

// ownTarget finds the redacted event among those of the batch, with what it counts.
func (b *batch) ownTarget(output *roomserver.OutputEvent) (target *storage.TimelineRow, counted []storage.Mention, at int64) {
	for i := range b.changes.Timeline {
		if row := &b.changes.Timeline[i]; row.EventID == output.Redacts && row.RoomID == output.RoomID {
			target, at = row, -row.Pos
		}
	}
	if target == nil {
		return nil, nil, 0
	}
	for _, m := range b.changes.Mentions {
		if m.At == at {
			counted = append(counted, m)
		}
	}
	return target, counted, at
}

// mayNotify tells which notifications the sender may trigger (§ Conditions, sender_notification_permission).
func (in *Input) mayNotify(ctx context.Context, output *roomserver.OutputEvent) (func(string) bool, error) {
	root := output.StateRoot
	answer, err := in.Room.QueryState(ctx, roomserver.QueryStateRequest{RoomID: output.RoomID, Root: &root,
		Keys: []roomserver.StateKeyTuple{{Type: "m.room.power_levels"}, {Type: "m.room.create"}}})
	if err != nil {
		return nil, fmt.Errorf("power levels of %s: %w", output.RoomID, err)
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
	sender := output.Event.Sender()
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
