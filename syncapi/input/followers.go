package input

import (
	"cmp"
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/sqlutil"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// roomRules are the joined users of a room who need more than their class says, as a streak knows them.
type roomRules struct {
	// own are those whose rules no class follows, first whose rules cost least.
	own []follower
	has map[id.UserID]struct{} // who is one of these
	// ignoring are others, who ignore somebody.
	ignoring map[id.UserID]struct{}
	streak   int64
}

func (r *roomRules) users() int { return 1 + len(r.own) + len(r.ignoring) }

// follower is a user in a room for whom an event is evaluated.
type follower struct {
	user        id.UserID
	displayName string // if the rules look for it
	ignores     bool   // the sender
}

func usersOf(list []follower) []id.UserID {
	users := make([]id.UserID, len(list))
	for i := range list {
		users[i] = list[i].user
	}
	return users
}

// followers lists those for whom an event is evaluated: users whose rules no class follows, those who ignore its
// sender, and those of the joined users of this server whom it mentions. The number of these has no bound but the size
// of the event.
func followers(room *roomRules, ignoring map[id.UserID]struct{}, mentioned []id.UserID) []follower {
	all := slices.Clone(room.own)
	for i := range all {
		_, all[i].ignores = ignoring[all[i].user]
	}
	few, many := ignoring, room.ignoring
	if len(many) < len(few) {
		few, many = many, few
	}
	for user := range few {
		_, both := many[user]
		if _, has := room.has[user]; both && !has {
			all = append(all, follower{user: user, ignores: true})
		}
	}
	for _, user := range mentioned {
		_, ignores := ignoring[user]
		if _, has := room.has[user]; !has && !ignores {
			all = append(all, follower{user: user})
		}
	}
	return all
}

// followers lists those for whom the event is evaluated.
func (b *batch) followers(ctx context.Context, output *roomserver.OutputEvent) ([]follower, error) {
	room, err := b.roomRules(ctx, output.RoomID, output.RootAfter)
	if err != nil {
		return nil, err
	}
	mentioned, err := b.mentioned(ctx, output.RoomID, output.Event)
	return followers(room, b.in.rules.ignoring(output.Event.Sender()), mentioned), err
}

// mentioned lists the joined users of this server whom an event mentions.
func (b *batch) mentioned(ctx context.Context, room id.RoomID, e *pdu.Event) ([]id.UserID, error) {
	users := slices.DeleteFunc(notify.Mentions(e), func(user id.UserID) bool { return user.Server() != b.in.Server })
	if len(users) == 0 {
		return nil, nil
	}
	members, err := b.latest(ctx, room, users)
	return slices.DeleteFunc(users, func(user id.UserID) bool { return members[user] != "join" }), err
}

// roomRules lists the users of a room who need more than their class says.
func (b *batch) roomRules(ctx context.Context, room id.RoomID, root roomserver.Root) (*roomRules, error) {
	cache := b.in.rules
	kept, some, version, err := cache.room(ctx, room)
	if err != nil || kept != nil && kept.streak == b.followed.Streak {
		return kept, err
	}
	list := &roomRules{streak: b.followed.Streak, has: make(map[id.UserID]struct{}),
		ignoring: make(map[id.UserID]struct{})}
	if some {
		joined, err := b.joined(ctx, room)
		if err != nil {
			return nil, err
		}
		own, ignoring := cache.special(joined)
		if list.own, err = b.own(ctx, room, root, own); err != nil {
			return nil, err
		}
		for i := range list.own {
			list.has[list.own[i].user] = struct{}{}
		}
		for _, user := range ignoring {
			list.ignoring[user] = struct{}{}
		}
	}
	cache.keepRoom(room, list, version)
	return list, nil
}

// own are those of the users of a room whose rules no class follows.
func (b *batch) own(ctx context.Context, room id.RoomID, root roomserver.Root, users []id.UserID) ([]follower, error) {
	rules, err := b.in.rules.Get(ctx, users, len(users))
	if err != nil {
		return nil, err
	}
	var named []id.UserID
	users = slices.DeleteFunc(users, func(user id.UserID) bool {
		_, exact := rules[user].Document.Classify(room)
		if !exact && rules[user].NeedsDisplayName() {
			named = append(named, user)
		}
		return exact
	})
	names, err := b.in.judge.DisplayNames(ctx, room, root, named)
	if err != nil {
		return nil, err
	}
	list := make([]follower, len(users))
	for i, user := range users {
		if list[i].user = user; len(names[user]) <= pushrules.MaxText { // rules look for no longer ones
			list[i].displayName = names[user]
		}
	}
	cheapestFirst(list, rules)
	return list, nil
}

// cheapestFirst puts those first whose rules may take the least work.
func cheapestFirst(list []follower, rules map[id.UserID]*notify.Rules) {
	slices.SortFunc(list, func(x, y follower) int {
		return cmp.Or(rules[x.user].Cost()-rules[y.user].Cost(), cmp.Compare(x.user, y.user))
	})
}

// room is what is known of a room, if anything, and whether there is anybody at all who has changed rules or ignores
// somebody.
func (r *ruleCache) room(ctx context.Context, room id.RoomID) (kept *roomRules, some bool, version int64, err error) {
	if err := r.load(ctx); err != nil {
		return nil, false, 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rooms[room], len(r.own)+len(r.ignores) > 0, r.version, nil
}

// keepRoom remembers what was read at a version.
func (r *ruleCache) keepRoom(room id.RoomID, list *roomRules, version int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version != version {
		return
	}
	r.dropRoom(room)
	if r.inRooms += list.users(); r.inRooms > maxInRooms {
		r.forgetRooms()
		r.inRooms = list.users()
	}
	r.rooms[room] = list
}

// latest is what each of these users is in a room after the batch so far.
func (b *batch) latest(ctx context.Context, room id.RoomID, users []id.UserID) (map[id.UserID]string, error) {
	latest := make(map[id.UserID]string, len(users))
	err := b.in.Storage.Read(ctx, "mentioned members", func(ctx context.Context, tx *sqlutil.Tx) error {
		members, err := b.in.Storage.Latest(ctx, tx, room, users)
		for user := range members {
			latest[user] = members[user].Membership
		}
		return err
	})
	for _, m := range b.changes.Memberships {
		if m.RoomID == room {
			latest[m.UserID] = m.Membership
		}
	}
	return latest, err
}

// joined lists the users of this server in a room, after the batch so far.
func (b *batch) joined(ctx context.Context, room id.RoomID) (users []id.UserID, err error) {
	err = b.in.Storage.Read(ctx, "members of a room", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		users, err = b.in.Storage.Joined(ctx, tx, room)
		return err
	})
	changed := make(map[id.UserID]storage.Membership)
	for _, m := range b.changes.Memberships {
		if m.RoomID == room {
			changed[m.UserID] = m
		}
	}
	users = slices.DeleteFunc(users, func(user id.UserID) bool { _, has := changed[user]; return has })
	for user, m := range changed {
		if m.Membership == "join" {
			users = append(users, user)
		}
	}
	return users, err
}
