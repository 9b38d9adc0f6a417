// Package visibility decides what somebody may see of a room (Client-Server API, § Room History Visibility), and makes of the
// events that they may see what their clients get. Every read of the roomserver that returns events goes through it: there is
// no other place where this is decided.
//
// Whether an event may be seen depends on the state of the room at that event, which never changes, and on what the viewer is in
// the room now, which a View holds. Most questions are answered without looking at any state: a member sees all of a room whose
// history is shared. Otherwise what the viewer was is looked up once for each distinct state of a page of events.
package visibility

import (
	"context"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// cachedLeaves bounds the memory for how members left.
const cachedLeaves = 50_000

// Checker decides. It is safe for concurrent use.
type Checker struct {
	rooms reader
	// leaves has, for a member event that is no join, the event that ended the last join before it. That never changes.
	leaves *lru.Cache[id.EventID, id.EventID]
}

// New makes a Checker.
func New(r *state.Reader) *Checker { return newChecker(rooms{r}) }

func newChecker(r reader) *Checker {
	leaves, err := lru.New[id.EventID, id.EventID](cachedLeaves)
	if err != nil {
		panic(err) // the size is a constant greater than 0, which is all that New checks
	}
	return &Checker{rooms: r, leaves: leaves}
}

// Searches tells whether a search looks at this place in the room: the viewer may read the room, and what came after
// they left only if everybody may (Client-Server API, § Server Side Search). It needs no look at the event.
func (v *View) Searches(at api.OrderKey) bool {
	until, bounded := v.Until()
	return v.Check() == nil && (!bounded || at.Compare(until) <= 0)
}

// Filter returns those of the events that a viewer may see, in order. They are events of this room.
func (c *Checker) Filter(ctx context.Context, room *storage.Room, viewer api.Viewer, events []*storage.Event) ([]api.Event, error) {
	if len(events) == 0 {
		return nil, nil
	}
	v, err := c.View(ctx, room, viewer)
	if err != nil {
		return nil, err
	}
	return v.Filter(ctx, events)
}

// View is what one viewer may see of one room, as of the moment when it was made.
type View struct {
	checker *Checker
	room    *storage.Room
	viewer  api.Viewer
	// all says that nothing is checked.
	all bool
	// joined is the viewer's member event if they are joined now.
	joined *storage.Event
	// left is the event that ended the last time when they were joined, if they are not joined now.
	left *storage.Event
}

// View finds out what the viewer is in the room.
func (c *Checker) View(ctx context.Context, room *storage.Room, viewer api.Viewer) (*View, error) {
	v := &View{checker: c, room: room, viewer: viewer, all: viewer.UserID == ""}
	if v.all {
		return v, nil
	}
	now, err := c.rooms.Membership(ctx, room.NID, viewer.UserID)
	if err != nil {
		return nil, fmt.Errorf("membership of %s: %w", viewer.UserID, err)
	}
	joined := now.Membership == "join"
	if now.EventID == "" || now.Forgotten || viewer.Guest && !joined {
		return v, nil
	}
	at := now.EventID
	if !joined {
		if at, err = c.leave(ctx, room.NID, viewer.UserID, now.EventID); err != nil || at == "" {
			return v, err
		}
	}
	found, err := c.rooms.EventsByID(ctx, []id.EventID{at}, !joined)
	if err != nil {
		return nil, err
	}
	if found[at] == nil {
		return nil, fmt.Errorf("member event %s of %s is not stored", at, viewer.UserID)
	}
	if joined {
		v.joined = found[at]
	} else {
		v.left = found[at]
	}
	return v, nil
}

// Unchecked is a View for a viewer of whom it is known already that they may see what is asked for.
func (c *Checker) Unchecked(room *storage.Room, viewer api.Viewer) *View {
	return &View{checker: c, room: room, viewer: viewer, all: true}
}

// maxLeaveSteps bounds the walk through a user's member events. Nobody is kicked, invited and kicked again that often without
// joining in between, except in order to keep servers busy.
const maxLeaveSteps = 200

// leave finds the event that ended a user's last join, going back from their current member event; empty if they never joined.
func (c *Checker) leave(ctx context.Context, roomNID int64, user id.UserID, current id.EventID) (id.EventID, error) {
	if known, has := c.leaves.Get(current); has {
		return known, nil
	}
	found, err := c.rooms.EventsByID(ctx, []id.EventID{current}, false)
	if err != nil {
		return "", err
	}
	k := auth.Key{Type: pdu.TypeMember, StateKey: string(user)}
	var left id.EventID
	for e, steps := found[current], 0; e != nil && e.InTimeline && steps < maxLeaveSteps; steps++ {
		before, err := c.rooms.AtRoots(ctx, roomNID, map[api.Root][]auth.Key{e.Root: {k}})
		if err != nil {
			return "", err
		}
		previous := before[e.Root][k]
		if previous != nil && previous.PDU.Membership() == "join" {
			left = e.PDU.ID()
			break
		}
		e = previous
	}
	if e := found[current]; e != nil && e.InTimeline { // an outlier may get a place in the room later
		c.leaves.Add(current, left)
	}
	return left, nil
}

// Check is M_FORBIDDEN for somebody who may not read the room at all: who is not and never was a member, while the room is not
// world readable.
func (v *View) Check() error {
	if v.all || v.joined != nil || v.left != nil || v.room.Visibility == storage.WorldReadable {
		return nil
	}
	return NotMember(v.room.ID)
}

// NotMember is the error for those who may not read a room. It is the same for rooms that do not exist, so that nobody can find
// out which ones do.
func NotMember(room id.RoomID) error {
	return mxerr.Forbidden("you are not a member of %s and never were: join it to read it", room)
}

// State is a state of a room: that of Root with the state event After, if any, on top.
type State struct {
	Root  api.Root
	After *storage.Event
}

// StateAfter is the state of the room after an event.
func StateAfter(e *storage.Event) State {
	if !e.PDU.IsState() {
		return State{Root: e.Root}
	}
	return State{e.Root, e}
}

// State is the newest state that the viewer may see: the current one, or for those who left the one when they did. The error is
// that of Check.
func (v *View) State() (State, error) {
	if v.left != nil {
		return StateAfter(v.left), nil
	}
	return State{Root: v.room.Root}, v.Check()
}

// Until is the place in the room after which the viewer sees nothing: that of their leave.
func (v *View) Until() (until api.OrderKey, bounded bool) {
	if v.left == nil || v.room.Visibility == storage.WorldReadable {
		return until, false
	}
	return v.left.Order, true
}

// Filter returns those of the events that the viewer may see, in order.
func (v *View) Filter(ctx context.Context, events []*storage.Event) ([]api.Event, error) {
	before, err := v.lookUp(ctx, events, true)
	if err != nil {
		return nil, err
	}
	seen := make([]*storage.Event, 0, len(events))
	for _, e := range events {
		if v.allows(e, before) {
			seen = append(seen, e)
		}
	}
	return v.describe(ctx, seen, before)
}

// Show returns state events that the viewer may see because they may see the state that they are part of. It does not say what
// they replaced.
func (v *View) Show(ctx context.Context, events []*storage.Event) ([]api.Event, error) {
	return v.describe(ctx, events, nil)
}
