package answer

import (
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/matrix-org/dendrite/common/id"
)

// lazyDevices is how many devices it is remembered of which member events they have; lazyMembersOfAll is how many of
// these there are together, some 100 bytes each, and lazyRooms and lazyMembersOfRoom limit what one device has of them.
const (
	lazyDevices       = 2000
	lazyMembersOfAll  = 1_000_000
	lazyRooms         = 200
	lazyMembersOfRoom = 1000
)

type device struct {
	user   id.UserID
	device id.DeviceID
}

// lazyMembers remembers which member events devices were sent, and with which answer. What is forgotten is sent again.
type lazyMembers struct {
	mu      sync.Mutex
	devices *simplelru.LRU[device, *lazyDevice]
	members int // of all devices
}

// lazyDevice has the positions of the answers by room and member.
type lazyDevice struct {
	rooms   map[id.RoomID]map[id.UserID]int64
	members int
}

// sent tells whether a device has got a member's event in an answer up to this position. Answers after it may have been
// lost.
func (l *lazyMembers) sent(user id.UserID, of id.DeviceID, room id.RoomID, member id.UserID, since int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.devices == nil {
		return false
	}
	d, has := l.devices.Get(device{user, of})
	if !has {
		return false
	}
	pos, has := d.rooms[room][member]
	return has && pos <= since
}

// remember notes what an answer sends.
func (a *answering) remember() {
	if !a.Filter.LazyLoadMembers() {
		return
	}
	l := &a.lazy
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(device{a.UserID, a.DeviceID}, a.initial())
	if d == nil {
		return
	}
	for name, r := range a.rooms {
		if r.kind.section() != join || r.limited {
			l.forget(d, name)
		}
		if r.kind.section() == join {
			l.add(d, name, r.sent, a.next.Pos)
		}
	}
	for l.members > lazyMembersOfAll {
		l.devices.RemoveOldest()
	}
}

// of finds or makes a device. One that begins anew has nothing.
func (l *lazyMembers) of(key device, anew bool) *lazyDevice {
	if l.devices == nil {
		devices, err := simplelru.NewLRU(lazyDevices, func(_ device, gone *lazyDevice) { l.members -= gone.members })
		if err != nil {
			return nil // not reached: the size is positive
		}
		l.devices = devices
	}
	d, has := l.devices.Get(key)
	if has && !anew && len(d.rooms) <= lazyRooms {
		return d
	}
	l.devices.Remove(key)
	d = &lazyDevice{rooms: make(map[id.RoomID]map[id.UserID]int64)}
	l.devices.Add(key, d)
	return d
}

func (l *lazyMembers) forget(d *lazyDevice, room id.RoomID) {
	n := len(d.rooms[room])
	delete(d.rooms, room)
	d.members -= n
	l.members -= n
}

func (l *lazyMembers) add(d *lazyDevice, room id.RoomID, sent []id.UserID, pos int64) {
	if len(sent) == 0 {
		return
	}
	if len(d.rooms[room]) > lazyMembersOfRoom {
		l.forget(d, room)
	}
	members := d.rooms[room]
	if members == nil {
		members = make(map[id.UserID]int64)
		d.rooms[room] = members
	}
	before := len(members)
	for _, user := range sent {
		if _, has := members[user]; !has {
			// It is a part of an event, which would stay in memory with it.
			user = id.UserID(strings.Clone(string(user)))
		}
		members[user] = pos
	}
	d.members += len(members) - before
	l.members += len(members) - before
}
