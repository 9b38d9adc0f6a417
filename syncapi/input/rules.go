package input

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// rules are the push rules of users who have changed theirs, which of these users are in which rooms, and who ignores whom.
type rules struct {
	loading *sync.Mutex // held while reading

	mu     *sync.Mutex
	loaded bool
	// version counts changes of users and rooms: a list of followers that was under way meanwhile may be old and is not kept.
	version int64
	old     map[id.UserID]struct{} // who have changed something since
	users   map[id.UserID]*pushrules.Document
	rooms   map[id.RoomID]followers
	// ignoredBy lists who ignores a user.
	ignoredBy map[id.UserID][]id.UserID
}

// followers are as a streak knows them.
type followers struct {
	list   []follower
	streak int64
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
	return rules{loading: new(sync.Mutex), mu: new(sync.Mutex), old: make(map[id.UserID]struct{}), users: make(map[id.UserID]*pushrules.Document), rooms: make(map[id.RoomID]followers)}
}

// changed forgets who is in a room.
func (r *rules) changed(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.rooms, room)
}

// maxRefreshed is how many users' rules are read by themselves; where more have changed, all are read.
const maxRefreshed = 100

// Forget makes the rules of users be read again, or, if none is named, those of all.
func (in *Input) Forget(users []id.UserID) {
	r := &in.rules
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, user := range users {
		r.old[user] = struct{}{}
	}
	if users == nil || len(r.old) > maxRefreshed {
		r.loaded = false
		clear(r.old)
		clear(r.rooms)
	}
}

// followers lists those for whom the event is evaluated: users whose rules no class follows, those whom it mentions, and those who
// ignore its sender.
func (r *rules) followers(ctx context.Context, b *batch, output *roomserver.OutputEvent) ([]follower, error) {
	inRoom, err := r.of(ctx, b, output.RoomID, output.RootAfter)
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
		if err == nil && user.Server() == b.in.Server && mentioned < 100 && !slices.Contains(singled, user) && !isIn(user) {
			singled = append(singled, user)
			mentioned++
		}
	}
	if len(singled)+len(ignoring) == 0 {
		return inRoom, nil
	}
	members, err := b.latest(ctx, output.RoomID, singled)
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
func (r *rules) of(ctx context.Context, b *batch, room id.RoomID, root roomserver.Root) ([]follower, error) {
	if err := r.load(ctx, b.in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	kept, known := r.rooms[room]
	known = known && kept.streak == b.followed.streak
	some, version := len(r.users) > 0, r.version
	r.mu.Unlock()
	if known {
		return kept.list, nil
	}
	var list []follower
	var joined []id.UserID
	if some {
		var err error
		if joined, err = b.joined(ctx, room); err != nil {
			return nil, err
		}
	}
	for _, user := range joined {
		r.mu.Lock()
		document := r.users[user]
		r.mu.Unlock()
		if document == nil {
			continue
		}
		class, exact := document.Classify(room)
		if exact {
			continue
		}
		displayName, err := b.in.judge.DisplayName(ctx, room, root, user)
		if err != nil {
			return nil, err
		}
		list = append(list, follower{user: user, class: class, evaluator: pushrules.Compile(document.Merge(user)), displayName: displayName})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rooms) >= maxRoomsOfRules {
		clear(r.rooms)
	}
	if r.version == version {
		r.rooms[room] = followers{list, b.followed.streak}
	}
	return list, nil
}

// latest is the last change of membership of each of these users, those of the batch included.
func (b *batch) latest(ctx context.Context, room id.RoomID, users []id.UserID) (members map[id.UserID]storage.Membership, err error) {
	err = b.in.Storage.Read(ctx, "members with own rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		members, err = b.in.Storage.Latest(ctx, tx, room, users)
		return err
	})
	for _, m := range b.changes.Memberships {
		if m.RoomID == room && slices.Contains(users, m.UserID) {
			members[m.UserID] = m
		}
	}
	return members, err
}

// joined lists the users of this server in a room, after the batch so far.
func (b *batch) joined(ctx context.Context, room id.RoomID) (users []id.UserID, err error) {
	err = b.in.Storage.Read(ctx, "members of a room", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		users, err = b.in.Storage.Joined(ctx, tx, room)
		return err
	})
	for _, m := range b.changes.Memberships {
		if m.RoomID != room {
			continue
		}
		users = slices.DeleteFunc(users, func(user id.UserID) bool { return user == m.UserID })
		if m.Membership == "join" {
			users = append(users, m.UserID)
		}
	}
	return users, err
}

func (r *rules) load(ctx context.Context, in *Input) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	r.mu.Lock()
	loaded, old := r.loaded, slices.Collect(maps.Keys(r.old))
	r.loaded = true // before reading: what changes meanwhile unsets it again
	clear(r.old)
	r.mu.Unlock()
	switch {
	case loaded && len(old) > 0:
		err := r.refresh(ctx, in, old)
		if err != nil {
			in.Forget(old)
		}
		return err
	case loaded:
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
	r.version++
	return nil
}

// refresh reads the rules of a few users, and forgets who is in their rooms.
func (r *rules) refresh(ctx context.Context, in *Input, users []id.UserID) error {
	documents := make(map[id.UserID]*pushrules.Document)
	ignored := make(map[id.UserID][]id.UserID)
	var rooms []id.RoomID
	err := in.Storage.Read(ctx, "push rules that changed", func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, user := range users {
			raw, err := in.Storage.AccountDataOne(ctx, tx, user, "", storage.PushRules)
			if err != nil {
				return err
			}
			if raw != nil {
				documents[user] = new(pushrules.Document)
				if err := json.Unmarshal(raw, documents[user]); err != nil {
					return fmt.Errorf("push rules of %s: %w", user, err)
				}
			}
			if raw, err = in.Storage.AccountDataOne(ctx, tx, user, "", storage.IgnoredUsers); err != nil {
				return err
			}
			ignored[user] = storage.IgnoredIn(raw)
			history, err := in.Storage.History(ctx, tx, user)
			if err != nil {
				return err
			}
			for i := range history {
				rooms = append(rooms, history[i].RoomID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for sender, by := range r.ignoredBy {
		if slices.ContainsFunc(by, func(user id.UserID) bool { return slices.Contains(users, user) }) {
			// A new slice: the old one may be in use.
			r.ignoredBy[sender] = slices.DeleteFunc(slices.Clone(by), func(user id.UserID) bool { return slices.Contains(users, user) })
		}
	}
	for _, user := range users {
		delete(r.users, user)
		if d := documents[user]; d != nil {
			r.users[user] = d
		}
		for _, sender := range ignored[user] {
			r.ignoredBy[sender] = append(slices.Clip(r.ignoredBy[sender]), user)
		}
	}
	for _, room := range rooms {
		delete(r.rooms, room)
	}
	r.version++
	return nil
}
