package input

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/notify"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// ruleCache has users' push rules, compiled, who has changed theirs, who ignores whom, and for whom of a room each
// event is evaluated.
type ruleCache struct {
	storage *storage.Database
	loading sync.Mutex // held while reading who has changed what

	mu     sync.Mutex
	loaded bool
	// version counts changes, when they are heard of and when they are read: what was read meanwhile may be old and is
	// not kept.
	version int64
	old     map[id.UserID]struct{} // who have changed something since it was read
	own     map[id.UserID]struct{} // who have changed their rules
	ignores map[id.UserID][]id.UserID
	// ignoredBy are those who ignore a user.
	ignoredBy map[id.UserID]map[id.UserID]struct{}
	compiled  *simplelru.LRU[id.UserID, *notify.Rules]
	size      int // of what is compiled
	rooms     map[id.RoomID]*roomRules
	inRooms   int // users in them, together
	// changed are rooms whose users are remembered although these users came or went: they need no more than their class
	// says. When that changes, they are in the room before what is stored says so.
	changed map[id.UserID][]id.RoomID
	changes int // in these, together
}

const (
	// maxCompiled is how many bytes of compiled rules are kept, about.
	maxCompiled = 256 << 20
	// maxRead is how many documents are read for an event, if they are not in memory.
	maxRead = 100
	// maxInRooms limits of how many users in rooms, and of how many rooms, it is remembered that each event is
	// evaluated for them.
	maxInRooms = 500_000
	// maxChanges limits how many users who came and went it is remembered of.
	maxChanges = 10_000
	// maxRefreshed is how many users' changes are read by themselves; where more have changed, all are read.
	maxRefreshed = 100
)

func newRuleCache(db *storage.Database) *ruleCache {
	r := &ruleCache{storage: db, old: make(map[id.UserID]struct{}), rooms: make(map[id.RoomID]*roomRules),
		changed: make(map[id.UserID][]id.RoomID)}
	// It fails for size 0 only.
	r.compiled, _ = simplelru.NewLRU(math.MaxInt, func(_ id.UserID, gone *notify.Rules) { r.size -= gone.Size() })
	return r
}

// Invalidate makes the rules of users, and whom they ignore, be read again, or, if none is named, those of all.
func (r *ruleCache) Invalidate(users []id.UserID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	for _, user := range users {
		r.old[user] = struct{}{}
		r.compiled.Remove(user)
	}
	if users == nil {
		r.compiled.Purge()
	}
	if users == nil || len(r.old) > maxRefreshed {
		r.loaded = false
		clear(r.old)
		r.forgetRooms()
	}
}

func (r *ruleCache) forgetRooms() {
	clear(r.rooms)
	clear(r.changed)
	r.inRooms, r.changes = 0, 0
}

// forgetRoom makes it be read again who is in a room.
func (r *ruleCache) forgetRoom(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropRoom(room)
}

// moved makes it be read again who is in a room, because of a user who came, went, or has another name there. For most
// users that changes nothing: a room that thousands join, as those of bridges, is not read for each of them.
func (r *ruleCache) moved(room id.RoomID, user id.UserID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := r.rooms[room]
	if kept == nil {
		return
	}
	_, own := r.own[user]
	_, old := r.old[user]
	if own || old || !r.loaded || r.ignores[user] != nil {
		r.dropRoom(room)
		return
	}
	if r.changes++; r.changes > maxChanges {
		r.forgetRooms()
		return
	}
	r.changed[user] = append(r.changed[user], room)
}

func (r *ruleCache) dropRoom(room id.RoomID) {
	if kept := r.rooms[room]; kept != nil {
		r.inRooms -= kept.users()
		delete(r.rooms, room)
	}
}

// Get returns the rules of users, as they are now. Of those that are not in memory, the first few are read together,
// and the others are not returned.
func (r *ruleCache) Get(ctx context.Context, users []id.UserID, most int) (map[id.UserID]*notify.Rules, error) {
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	found := make(map[id.UserID]*notify.Rules, len(users))
	var unread []id.UserID
	r.mu.Lock()
	version := r.version
	for _, user := range users {
		if rules, has := r.compiled.Get(user); has {
			found[user] = rules
		} else if _, own := r.own[user]; !own {
			found[user] = notify.NewRules(user, new(pushrules.Document))
			r.keep(found[user])
		} else if len(unread) < most {
			unread = append(unread, user)
		}
	}
	r.mu.Unlock()
	if unread == nil {
		return found, nil
	}
	var stored map[id.UserID]json.RawMessage
	err := r.storage.Read(ctx, "push rules", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		stored, err = r.storage.RulesOf(ctx, tx, unread)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, user := range unread {
		document := new(pushrules.Document)
		if raw := stored[user]; raw != nil {
			if err := json.Unmarshal(raw, document); err != nil {
				return nil, fmt.Errorf("push rules of %s: %w", user, err)
			}
		}
		found[user] = notify.NewRules(user, document)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version == version {
		for _, user := range unread {
			r.keep(found[user])
		}
	}
	return found, nil
}

func (r *ruleCache) keep(rules *notify.Rules) {
	r.compiled.Remove(rules.User)
	r.compiled.Add(rules.User, rules)
	for r.size += rules.Size(); r.size > maxCompiled && r.compiled.Len() > 0; {
		r.compiled.RemoveOldest()
	}
}

// ignoring are those who ignore a user.
func (r *ruleCache) ignoring(user id.UserID) map[id.UserID]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.ignoredBy[user])
}

// special are those of the users who have changed their rules, or ignore somebody.
func (r *ruleCache) special(users []id.UserID) (own, ignoring []id.UserID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, user := range users {
		if _, has := r.own[user]; has {
			own = append(own, user)
		}
		if r.ignores[user] != nil {
			ignoring = append(ignoring, user)
		}
	}
	return own, ignoring
}

// load reads what has changed.
func (r *ruleCache) load(ctx context.Context) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	r.mu.Lock()
	loaded, old := r.loaded, slices.Collect(maps.Keys(r.old))
	r.loaded = true // before reading: what changes meanwhile unsets it again
	clear(r.old)
	r.mu.Unlock()
	var err error
	switch {
	case !loaded:
		if err = r.loadAll(ctx); err != nil {
			r.Invalidate(nil)
		}
	case len(old) > 0:
		if err = r.refresh(ctx, old); err != nil {
			r.Invalidate(old)
		}
	}
	return err
}

func (r *ruleCache) loadAll(ctx context.Context) error {
	own := make(map[id.UserID]struct{})
	var ignored map[id.UserID][]id.UserID
	err := r.storage.Read(ctx, "push rules", func(ctx context.Context, tx *sqlutil.Tx) error {
		stored, err := r.storage.WithRules(ctx, tx)
		if err != nil {
			return err
		}
		for user := range stored {
			own[user] = struct{}{}
		}
		ignored, err = r.storage.Ignored(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own = own
	r.ignores, r.ignoredBy = make(map[id.UserID][]id.UserID), make(map[id.UserID]map[id.UserID]struct{})
	for user, list := range ignored {
		r.setIgnored(user, list)
	}
	r.compiled.Purge()
	r.forgetRooms()
	r.version++
	return nil
}

// refresh reads what a few users have changed, and forgets who is in their rooms.
func (r *ruleCache) refresh(ctx context.Context, users []id.UserID) error {
	var own map[id.UserID]json.RawMessage
	ignored := make(map[id.UserID][]id.UserID)
	var rooms []id.RoomID
	err := r.storage.Read(ctx, "push rules that changed", func(ctx context.Context, tx *sqlutil.Tx) (err error) {
		if own, err = r.storage.RulesOf(ctx, tx, users); err != nil {
			return err
		}
		for _, user := range users {
			raw, err := r.storage.AccountDataOne(ctx, tx, user, "", storage.IgnoredUsers)
			if err != nil {
				return err
			}
			ignored[user] = storage.IgnoredIn(raw)
			history, err := r.storage.History(ctx, tx, user)
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
	for _, user := range users {
		delete(r.own, user)
		if own[user] != nil {
			r.own[user] = struct{}{}
		}
		r.setIgnored(user, ignored[user])
		r.compiled.Remove(user)
		rooms = append(rooms, r.changed[user]...)
	}
	for _, room := range rooms {
		r.dropRoom(room)
	}
	r.version++
	return nil
}

// setIgnored replaces whom a user ignores.
func (r *ruleCache) setIgnored(user id.UserID, list []id.UserID) {
	for _, one := range r.ignores[user] {
		if delete(r.ignoredBy[one], user); len(r.ignoredBy[one]) == 0 {
			delete(r.ignoredBy, one)
		}
	}
	delete(r.ignores, user)
	if len(list) == 0 {
		return
	}
	r.ignores[user] = list
	for _, one := range list {
		if r.ignoredBy[one] == nil {
			r.ignoredBy[one] = make(map[id.UserID]struct{})
		}
		r.ignoredBy[one][user] = struct{}{}
	}
}
