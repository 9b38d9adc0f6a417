package answer

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/matrix-org/dendrite/common/id"
)

// lazyDevices is how many devices it is remembered of which member events they have; lazyRooms and lazyMembersOfRoom limit each.
const (
	lazyDevices       = 2000
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
	devices *lru.Cache[device, map[id.RoomID]map[id.UserID]int64]
}

// sent tells whether a device has got a member's event in an answer up to this position. Answers after it may have been lost.
func (l *lazyMembers) sent(user id.UserID, of id.DeviceID, room id.RoomID, member id.UserID, since int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.devices == nil {
		return false
	}
	rooms, _ := l.devices.Get(device{user, of})
	pos, has := rooms[room][member]
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
	if l.devices == nil {
		devices, err := lru.New[device, map[id.RoomID]map[id.UserID]int64](lazyDevices)
		if err != nil {
			return // not reached: the size is positive
		}
		l.devices = devices
	}
	key := device{a.UserID, a.DeviceID}
	rooms, has := l.devices.Get(key)
	if !has || a.initial() || len(rooms) > lazyRooms {
		rooms = make(map[id.RoomID]map[id.UserID]int64)
		l.devices.Add(key, rooms)
	}
	for name, r := range a.rooms {
		if r.kind.section() != join || r.limited {
			delete(rooms, name)
		}
		if r.kind.section() != join || len(r.sent) == 0 {
			continue
		}
		if len(rooms[name]) == 0 || len(rooms[name]) > lazyMembersOfRoom {
			rooms[name] = make(map[id.UserID]int64)
		}
		for _, user := range r.sent {
			rooms[name][user] = a.next.Pos
		}
	}
}
