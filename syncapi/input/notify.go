package input

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/glob"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
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
	subject := b.in.judge.Subject(ctx, output.Event, output.RoomID, output.StateRoot, output.Joined)
	byClass, err := pushrules.ByClass(subject)
	if err != nil {
		return err
	}
	if byClass[pushrules.ClassDefault].Notify {
		row.Flags |= storage.Notify
	}
	if byClass[pushrules.ClassDefault].Highlight {
		row.Flags |= storage.Highlight
	}
	list, err := b.followers(ctx, output)
	if err != nil {
		return err
	}
	rules, err := b.in.rules.Get(ctx, usersOf(list), maxRead)
	if err != nil {
		return err
	}
	// Whose rules there is no room to remember, and no time to read, counts as their class says.
	sender := output.Event.Sender()
	list = slices.DeleteFunc(list, func(f follower) bool { return rules[f.user] == nil || f.user == sender })
	results, err := evaluate(subject, list, rules, &glob.Work{Left: notify.EventWork})
	if err != nil {
		return err
	}
	for i, result := range results {
		user := list[i].user
		class, _ := rules[user].Document.Classify(output.RoomID)
		if delta := countsOf(result).Minus(countsOf(byClass[class])); delta != (storage.Counts{}) {
			b.changes.Mentions = append(b.changes.Mentions, storage.Mention{UserID: user, RoomID: output.RoomID,
				At: -row.Pos, Pos: row.Pos, Thread: row.Thread, Counts: delta})
		}
	}
	return nil
}

// evaluate tells what the rules of users, first those whose rules cost least, say of an event. It does so within the
// budget of all, however many users there are.
func evaluate(
	subject *pushrules.Subject, list []follower, rules map[id.UserID]*notify.Rules, all *glob.Work,
) ([]pushrules.Result, error) {
	results := make([]pushrules.Result, len(list))
	for i, f := range list {
		if f.ignores {
			continue // nothing notifies
		}
		share := notify.Share(all.Left, len(list)-i)
		given := share.Left
		var err error
		if results[i], err = rules[f.user].Evaluate(subject, f.displayName, share); err != nil {
			return nil, err
		}
		all.Spend(given - share.Left)
	}
	return results, nil
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
