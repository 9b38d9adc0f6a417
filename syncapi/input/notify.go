package input

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// relation is m.relates_to of an event, as far as threads are concerned.
type relation struct {
	parent id.EventID
	thread id.EventID // root, if the relation is m.thread
}

func relationOf(e *pdu.Event) relation {
	r := gjson.GetBytes(e.Content(), `m\.relates_to`)
	if !r.IsObject() {
		return relation{}
	}
	parent, err := id.ParseEventID(r.Get("event_id").Str)
	if err != nil {
		return relation{} // anything may stand there
	}
	out := relation{parent: parent}
	if r.Get("rel_type").Str == "m.thread" {
		out.thread = out.parent
	}
	return out
}

// threadOf finds the thread of an event: by its own relation, or by that of the event that it relates to, whose thread is known
// (Client-Server API, § Threaded read receipts).
func (b *batch) threadOf(output *roomserver.OutputEvent) id.EventID {
	r := relationOf(output.Event)
	if r.thread != "" || r.parent == "" {
		return r.thread
	}
	if thread, has := b.parents[r.parent]; has {
		return thread
	}
	if row, has := b.known[r.parent]; has && row.RoomID == output.RoomID {
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
	users, err := b.in.rules.followers(ctx, b.in, output)
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
		b.changes.Mentions = append(b.changes.Mentions, storage.Mention{UserID: u.user, RoomID: output.RoomID, Pos: row.Pos, Thread: row.Thread, Counts: delta})
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
	b.changes.Redacted = append(b.changes.Redacted, output.Redacts)
	target, has := b.known[output.Redacts]
	if !has {
		return nil // it is not in the timeline, or in this very batch: then it has just been counted, and is read as a message was
	}
	var undo []storage.Mention
	err := b.in.Storage.Read(ctx, "mentions of a redacted event", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		undo, err = b.in.Storage.MentionsAt(ctx, tx, target.RoomID, target.Pos)
		return err
	})
	if err != nil {
		return err
	}
	everybody := storage.Mention{RoomID: target.RoomID, At: target.Pos, Thread: target.Thread}
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

// rules are the push rules of users who have changed theirs, which of these users are in which rooms, and who ignores whom.
type rules struct {
	mu     *sync.Mutex
	loaded bool
	users  map[id.UserID]*pushrules.Document
	rooms  map[id.RoomID][]follower
	// ignoredBy lists who ignores a user.
	ignoredBy map[id.UserID][]id.UserID
}

// follower is a user in a room for whom each event is evaluated.
type follower struct {
	user        id.UserID
	class       pushrules.Class
	evaluator   *pushrules.Evaluator
	displayName string
	ignores     bool // the sender
}

// maxRoomsOfRules limits for how many rooms it is remembered who of them has own rules.
const maxRoomsOfRules = 10_000

func newRules() rules {
	return rules{mu: new(sync.Mutex), users: make(map[id.UserID]*pushrules.Document), rooms: make(map[id.RoomID][]follower)}
}

// changed forgets who is in a room.
func (r *rules) changed(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rooms, room)
}

// Forget makes the rules of all users be read again, because some have changed.
func (in *Input) Forget() {
	in.rules.mu.Lock()
	defer in.rules.mu.Unlock()
	in.rules.loaded = false
	clear(in.rules.rooms)
}

// followers lists those for whom the event is evaluated: users whose rules no class follows, those whom it mentions, and those who
// ignore its sender.
func (r *rules) followers(ctx context.Context, in *Input, output *roomserver.OutputEvent) ([]follower, error) {
	inRoom, err := r.of(ctx, in, output.RoomID, output.RootAfter)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	ignoring := r.ignoredBy[output.Event.Sender()]
	r.mu.Unlock()
	isIn := func(user id.UserID) bool {
		return slices.ContainsFunc(inRoom, func(f follower) bool { return f.user == user })
	}
	singled := slices.DeleteFunc(slices.Clone(ignoring), isIn)
	mentioned := 0
	for _, v := range gjson.GetBytes(output.Event.Content(), `m\.mentions.user_ids`).Array() {
		user, err := id.ParseUserID(v.Str)
		if err == nil && user.Server() == in.Server && mentioned < 100 && !slices.Contains(singled, user) && !isIn(user) {
			singled = append(singled, user)
			mentioned++
		}
	}
	if len(singled)+len(ignoring) == 0 {
		return inRoom, nil
	}
	var members map[id.UserID]storage.Membership
	err = in.Storage.Read(ctx, "members singled out", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		members, err = in.Storage.Latest(ctx, tx, output.RoomID, singled)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := slices.Clone(inRoom)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, user := range singled {
		if members[user].Membership != "join" {
			continue
		}
		document := r.users[user]
		if document == nil {
			document = new(pushrules.Document)
		}
		class, _ := document.Classify(output.RoomID)
		all = append(all, follower{user: user, class: class, evaluator: pushrules.Compile(document.Merge(user))})
	}
	for i := range all {
		all[i].ignores = slices.Contains(ignoring, all[i].user)
	}
	return all, nil
}

// of lists the joined users of a room whose rules no class follows.
func (r *rules) of(ctx context.Context, in *Input, room id.RoomID, root roomserver.Root) ([]follower, error) {
	if err := r.load(ctx, in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	list, known := r.rooms[room]
	var candidates []id.UserID
	for user, document := range r.users {
		if known {
			break
		}
		if _, exact := document.Classify(room); !exact {
			candidates = append(candidates, user)
		}
	}
	r.mu.Unlock()
	if known {
		return list, nil
	}
	if len(candidates) > 0 {
		var members map[id.UserID]storage.Membership
		err := in.Storage.Read(ctx, "members with own rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
			members, err = in.Storage.Latest(ctx, tx, room, candidates)
			return err
		})
		if err != nil {
			return nil, err
		}
		for user, m := range members {
			if m.Membership != "join" {
				continue
			}
			displayName, err := in.displayName(ctx, room, root, user)
			if err != nil {
				return nil, err
			}
			r.mu.Lock()
			document := r.users[user]
			r.mu.Unlock()
			if document == nil {
				continue
			}
			class, _ := document.Classify(room)
			list = append(list, follower{user: user, class: class, evaluator: pushrules.Compile(document.Merge(user)), displayName: displayName})
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rooms) >= maxRoomsOfRules {
		clear(r.rooms)
	}
	r.rooms[room] = list
	return list, nil
}

func (in *Input) displayName(ctx context.Context, room id.RoomID, root roomserver.Root, user id.UserID) (string, error) {
	members, err := in.Events.Members(ctx, room, root, []id.UserID{user})
	if err != nil || len(members) == 0 {
		return "", err
	}
	return gjson.GetBytes(members[0].PDU.Content(), "displayname").Str, nil
}

func (r *rules) load(ctx context.Context, in *Input) error {
	r.mu.Lock()
	loaded := r.loaded
	r.loaded = true // before reading: what changes meanwhile unsets it again
	r.mu.Unlock()
	if loaded {
		return nil
	}
	var stored map[id.UserID]json.RawMessage
	var ignored map[id.UserID][]id.UserID
	err := in.Storage.Read(ctx, "push rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if stored, err = in.Storage.Rules(ctx, tx); err != nil {
			return err
		}
		ignored, err = in.Storage.Ignored(ctx, tx)
		return err
	})
	users := make(map[id.UserID]*pushrules.Document, len(stored))
	for user, raw := range stored {
		document := new(pushrules.Document)
		if err == nil {
			if err = json.Unmarshal(raw, document); err != nil {
				err = fmt.Errorf("push rules of %s: %w", user, err)
			}
		}
		users[user] = document
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.loaded = false
		return err
	}
	r.users = users
	r.ignoredBy = make(map[id.UserID][]id.UserID)
	for user, list := range ignored {
		for _, one := range list {
			r.ignoredBy[one] = append(r.ignoredBy[one], user)
		}
	}
	clear(r.rooms)
	return nil
}
