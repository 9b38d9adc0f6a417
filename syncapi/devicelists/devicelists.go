// Package devicelists tells whose keys a user has to fetch anew, and whose they need not follow any more
// (Client-Server API, § Tracking the device list for a user). It knows neither HTTP nor SQL.
//
// A user sees another if they are joined to a room in which the other is joined or invited: whoever speaks there
// encrypts for those who are invited, too. Everybody sees themselves. Rooms of all kinds count, since one that is not
// encrypted may become so.
package devicelists

import (
	"slices"

	"github.com/matrix-org/dendrite/common/id"
)

// Span is the time that lists are about: after Since, up to UpTo.
type Span struct{ Since, UpTo int64 }

// Candidate is a user who may belong to the lists of a viewer.
type Candidate struct {
	UserID    id.UserID
	Updated   bool // their keys have changed in the span
	Then, Now bool // the viewer saw them at its beginning; sees them at its end
}

// Lists are those of a viewer. Each is sorted, and names a user once.
type Lists struct {
	Changed []id.UserID // whose keys must be fetched anew
	Left    []id.UserID // who are not seen any more
}

// Of makes the lists. Each user is a candidate once.
func Of(candidates []Candidate) (l Lists) {
	for i := range candidates {
		switch c := &candidates[i]; {
		case c.Now && (c.Updated || !c.Then):
			l.Changed = append(l.Changed, c.UserID)
		case c.Then && !c.Now:
			l.Left = append(l.Left, c.UserID)
		}
	}
	slices.Sort(l.Changed)
	slices.Sort(l.Left)
	return l
}

// Empty tells whether there is nothing to say.
func (l *Lists) Empty() bool { return len(l.Changed)+len(l.Left) == 0 }

// Person is what is known of a user whose memberships have changed. It never changes.
type Person struct {
	// Updated is the position of the last change of their keys that all see; 0: there is none.
	Updated int64
	// Rooms has all changes of their membership in each room up to At, oldest first.
	Rooms map[id.RoomID][]Membership
	At    int64
}

// Membership is what a user became in a room.
type Membership struct {
	Pos        int64
	Membership string
}

// isIn tells whether they are joined to a room, or invited, at a position.
func (p *Person) isIn(room id.RoomID, pos int64) bool {
	history := p.Rooms[room]
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Pos <= pos {
			return history[i].Membership == "join" || history[i].Membership == "invite"
		}
	}
	return false
}

// Compare makes a candidate of a person. isJoined tells in which rooms the viewer was at a position.
func (p *Person) Compare(user id.UserID, s Span, isJoined func(room id.RoomID, pos int64) bool) Candidate {
	c := Candidate{UserID: user, Updated: p.Updated > s.Since}
	for room := range p.Rooms {
		c.Then = c.Then || p.isIn(room, s.Since) && isJoined(room, s.Since)
		c.Now = c.Now || p.isIn(room, s.UpTo) && isJoined(room, s.UpTo)
		if c.Then && c.Now {
			break
		}
	}
	return c
}
