package stream

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	// keptPeople is how many users whose memberships changed stay in memory, for all who look at their rooms.
	keptPeople = 256
	// maxMoved is how many of them one answer is made of. Where more have come or gone, the database counts.
	maxMoved = 64
)

// moved says that in a room the keys of a user have changed, or their membership.
type moved struct {
	user   id.UserID
	pos    int64
	member bool
}

// Moved are the users whose keys or memberships have changed in a user's rooms.
type Moved struct {
	// Known: these are all. Otherwise the database tells who they are.
	Known   bool
	Updated map[id.UserID]struct{} // whose keys have changed
	Members map[id.UserID]int64    // whose memberships have changed, and where they did last
}

// people are users whose memberships changed lately.
type people struct {
	// From where on it is known in which rooms memberships have changed, and where anything of this kind has last.
	from, last int64
	read       Coalesced[struct{}]
	kept       *lru.Cache[id.UserID, *devicelists.Person]

	mu     sync.Mutex
	wanted map[id.UserID]int64 // and up to where at least they must be known
}

func (p *people) begin(h *Hub) {
	p.kept, _ = lru.New[id.UserID, *devicelists.Person](keptPeople) // it fails for a size of nothing
	p.wanted = make(map[id.UserID]int64)
	p.read.Ask = func(ctx context.Context) (struct{}, error) { return struct{}{}, h.readPeople(ctx) }
}

// addMoved notes what has happened in a room. A release before this one does not say in which room a membership has
// changed.
func (h *Hub) addMoved(t *storage.Touched) {
	h.people.last = h.pos
	if t.Room == "" {
		h.people.from = h.pos
		return
	}
	r := h.room(t.Room)
	m := &moved{t.User, h.pos, t.Kind == storage.KindMemberships}
	r.people = slide(r.people, m, &r.peopleFrom, func(m *moved) int64 { return m.pos })
	r.lastMoved = h.pos
}

// movedSince finds who has moved since a position, where that is known and where it is enough to know: whose own rooms
// have become others sees others for that.
func (h *Hub) movedSince(name id.UserID, u *user, w *Window, since int64) (m Moved) {
	if !w.Complete || since < h.people.from || w.changes.has(storage.KindMemberships, "") ||
		w.changes.has(storage.KindSignedUsers, "") {
		return m
	}
	m.Known = true
	if w.changes.has(storage.KindDeviceLists, "") {
		m.Updated = map[id.UserID]struct{}{name: {}}
	}
	if h.people.last <= since {
		return m
	}
	for _, name := range u.view.Joined {
		r := h.rooms[name]
		if r == nil || r.lastMoved <= since {
			continue
		}
		if r.peopleFrom > since || len(m.Members) > maxMoved {
			return Moved{}
		}
		m.add(r.people, since)
	}
	return m
}

func (m *Moved) add(people []moved, since int64) {
	for i := len(people) - 1; i >= 0 && people[i].pos > since; i-- {
		switch p := &people[i]; {
		case p.member:
			if m.Members == nil {
				m.Members = make(map[id.UserID]int64)
			}
			m.Members[p.user] = max(m.Members[p.user], p.pos)
		default:
			if m.Updated == nil {
				m.Updated = make(map[id.UserID]struct{})
			}
			m.Updated[p.user] = struct{}{}
		}
	}
}

// rounds is how often it is tried to have all who are wanted in memory at a time.
const rounds = 3

// People returns what is known of users up to these positions at least. They are read once for all who ask. It returns
// nil where too many are asked for at a time: then the database tells.
func (h *Hub) People(ctx context.Context, wanted map[id.UserID]int64) (map[id.UserID]*devicelists.Person, error) {
	for range rounds {
		found := make(map[id.UserID]*devicelists.Person, len(wanted))
		h.people.mu.Lock()
		for user, pos := range wanted {
			if p, has := h.people.kept.Get(user); has && p.At >= pos {
				found[user] = p
			} else {
				h.people.wanted[user] = max(pos, h.people.wanted[user])
			}
		}
		h.people.mu.Unlock()
		if len(found) == len(wanted) {
			return found, nil
		}
		if _, err := h.people.read.Get(ctx); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// readPeople reads those who are wanted, but for those whom a question before this one has read already.
func (h *Hub) readPeople(ctx context.Context) error {
	p := &h.people
	p.mu.Lock()
	var users []id.UserID
	for user, pos := range p.wanted {
		if known, has := p.kept.Peek(user); (!has || known.At < pos) && len(users) < maxMoved {
			users = append(users, user)
		}
	}
	clear(p.wanted)
	p.mu.Unlock()
	if len(users) == 0 {
		return nil
	}
	read, err := h.o.Storage.People(ctx, users)
	if err != nil {
		return err
	}
	for user, person := range read {
		p.kept.Add(user, person)
	}
	return nil
}
