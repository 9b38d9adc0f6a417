package stream

import (
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// inboxes are positions of devices up to which no message to them is stored.
type inboxes map[id.DeviceID]int64

// MayHold tells whether messages to a device may be stored that have a position up to this one. Where nothing was sent
// since they were last removed, it knows that none are.
func (h *Hub) MayHold(name id.UserID, device id.DeviceID, upTo int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[name]
	if u == nil {
		return true
	}
	empty := u.inboxes[device]
	if empty >= upTo {
		return false
	}
	if max(h.floorOf(u), u.changes.lastFor(storage.KindToDevice, device)) > empty {
		return true
	}
	u.inboxes.set(device, min(upTo, h.pos))
	return false
}

// Emptied says that no message to a device is stored any more with a position up to this one, which the Hub knows.
func (h *Hub) Emptied(name id.UserID, device id.DeviceID, upTo int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[name]
	if u != nil && upTo > u.inboxes[device] {
		u.inboxes.set(device, min(upTo, h.pos))
	}
}

// maxInboxes is of how many devices of a user it is known up to where nothing is stored. A user has fewer devices: where
// devices come and go, it is forgotten of all.
const maxInboxes = 2000

func (i *inboxes) set(device id.DeviceID, pos int64) {
	if *i == nil || len(*i) >= maxInboxes {
		*i = make(inboxes)
	}
	(*i)[device] = pos
}
