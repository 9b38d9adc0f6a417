package stream

import (
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// changes are the last position of each kind of change, and for each device where a change is for one.
type changes []change

type change struct {
	kind   storage.Kind
	device id.DeviceID
	pos    int64
}

func (c *changes) set(kind storage.Kind, device id.DeviceID, pos int64) {
	for i := range *c {
		if one := &(*c)[i]; one.kind == kind && one.device == device {
			one.pos = pos
			return
		}
	}
	if device != "" && len(*c) >= maxChanges {
		c.merge(kind)
	}
	*c = append(*c, change{kind, device, pos})
}

// maxChanges is how many changes of a user are told apart. Beyond, a change for one device counts as one for all.
const maxChanges = 64

// merge makes one change for all devices of those of a kind.
func (c *changes) merge(kind storage.Kind) {
	pos := c.of(kind)
	*c = slices.DeleteFunc(*c, func(one change) bool { return one.kind == kind })
	*c = append(*c, change{kind, "", pos})
}

// lastFor is the last change of a kind for a device.
func (c changes) lastFor(kind storage.Kind, device id.DeviceID) (pos int64) {
	for i := range c {
		if one := &c[i]; one.kind == kind && (one.device == "" || one.device == device) {
			pos = max(pos, one.pos)
		}
	}
	return pos
}

// has tells whether there is a change of a kind for a device.
func (c changes) has(kind storage.Kind, device id.DeviceID) bool {
	return slices.ContainsFunc(c, func(one change) bool {
		return one.kind == kind && (one.device == "" || one.device == device)
	})
}

// of is the last change of a kind, whatever device it is for.
func (c changes) of(kind storage.Kind) (pos int64) {
	for i := range c {
		if c[i].kind == kind {
			pos = max(pos, c[i].pos)
		}
	}
	return pos
}

func (c changes) last() (pos int64) {
	for i := range c {
		pos = max(pos, c[i].pos)
	}
	return pos
}

// after are the changes after a position.
func (c changes) after(pos int64) (later changes) {
	for _, one := range c {
		if one.pos > pos {
			later = append(later, one)
		}
	}
	return later
}

// forget drops those up to a position.
func (c *changes) forget(pos int64) {
	*c = slices.DeleteFunc(*c, func(one change) bool { return one.pos <= pos })
}

// floorOf is the position after which everything is known of a user.
func (h *Hub) floorOf(u *user) int64 { return max(h.floor, u.floor) }

// touch notes what has changed, and wakes whom it concerns.
func (h *Hub) touch(touched []storage.Touched) {
	awake := make(map[id.UserID]struct{})
	var settings []id.UserID
	for i := range touched {
		t := &touched[i]
		switch t.Kind {
		case storage.KindTimeline, storage.KindReceipts: // the rows say it
		case storage.KindCounts:
			h.recount(t.Room, t.User)
		case storage.KindAccountData, storage.KindToDevice:
			h.user(t.User).changes.set(t.Kind, t.Device, h.pos)
		case storage.KindSettings:
			u := h.user(t.User)
			u.changes.set(storage.KindCounts, "", h.pos)
			h.dropView(t.User, u)
			settings = append(settings, t.User)
		case storage.KindMemberships:
			u := h.user(t.User)
			u.changes.set(t.Kind, t.Device, h.pos)
			h.dropView(t.User, u)
			h.presence.moved(t.User)
			h.addMoved(t)
		case storage.KindDeviceLists:
			if t.Room != "" {
				h.addMoved(t)
				break
			}
			h.user(t.User).changes.set(t.Kind, "", h.pos)
		case storage.KindDeviceListsAnywhere:
			h.people.from, h.people.last = h.pos, h.pos
			for name := range h.users {
				awake[name] = struct{}{}
			}
		case storage.KindSignedUsers:
			h.user(t.User).changes.set(t.Kind, "", h.pos)
		case storage.KindKeyCounts:
			h.forgetKeys(t)
		case storage.KindPushers:
			nudge(h.pushers)
			continue
		default:
			h.unknown(t)
		}
		h.rouse(t, awake)
	}
	for name := range awake {
		if u := h.users[name]; u != nil {
			u.wake("")
		}
	}
	if settings != nil {
		h.o.RulesChanged(settings)
	}
}

// rouse wakes a device, or adds to the users who are to be woken.
func (h *Hub) rouse(t *storage.Touched, awake map[id.UserID]struct{}) {
	switch {
	case t.Device != "":
		if u := h.users[t.User]; u != nil {
			u.wake(t.Device)
		}
	case t.User != "" && t.Kind != storage.KindDeviceLists:
		awake[t.User] = struct{}{}
		if t.Kind == storage.KindMemberships {
			h.rouseRoom(t.Room, awake)
		}
	case t.Room != "":
		h.rouseRoom(t.Room, awake)
	default:
		awake[t.User] = struct{}{}
	}
}

func (h *Hub) rouseRoom(room id.RoomID, awake map[id.UserID]struct{}) {
	for name := range h.inRoom[room] {
		awake[name] = struct{}{}
	}
}

// unknown forgets what is known of a user or a room, of which a newer release tells a change that this one does not
// know: whoever looks reads it from the database.
func (h *Hub) unknown(t *storage.Touched) {
	if t.User != "" {
		u := h.user(t.User)
		u.floor, u.keys.known = h.pos, nil
		h.dropView(t.User, u)
		return
	}
	h.rooms[t.Room] = &room{timelineFrom: h.pos, receiptsFrom: h.pos, peopleFrom: h.pos,
		lastTimeline: h.pos, lastReceipt: h.pos, lastMoved: h.pos}
	h.people.last = h.pos
	h.recount(t.Room, "")
}

// isUnderstood tells whether a message says all that this release has to know. One of another release may not.
func (w *wake) isUnderstood() bool {
	isNobody := func(t storage.Touched) bool { return t.User == "" && t.Room == "" }
	return w.Touched != nil && !slices.ContainsFunc(w.Touched, isNobody)
}
