package input

import (
	"unsafe"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	knownBytes       = 32 << 20 // the current state of rooms that is in memory,
	knownBytesOfRoom = 8 << 20  // and that of one room
)

// known is current state of a room that is in memory, as of one version of the room's row: a redaction changes events,
// but no root. Only the room's worker uses it, or who creates the room.
type known struct {
	version int64
	root    api.Root
	entries map[auth.Key]*storage.Event // nil for what the state does not have
	bytes   int                         // that the entries take, about
}

func newKnown(room *storage.Room) *known {
	return &known{version: room.RowVersion, root: room.Root, entries: make(map[auth.Key]*storage.Event)}
}

func newKnownCache() *lru.Cache[id.RoomID, *known] {
	return lru.New(knownBytes, func(roomID id.RoomID, k *known) int {
		return int(unsafe.Sizeof(*k)) + len(roomID) + k.bytes
	})
}

// put notes an entry. What does not fit any more makes everything else be forgotten: it is read again where it is
// needed.
func (k *known) put(key auth.Key, e *storage.Event) {
	if before, has := k.entries[key]; has {
		k.bytes -= sizeOfEntry(key, before)
		delete(k.entries, key)
	}
	size := sizeOfEntry(key, e)
	if k.bytes+size > knownBytesOfRoom {
		clear(k.entries)
		k.bytes = 0
	}
	k.entries[key] = e
	k.bytes += size
}

func sizeOfEntry(key auth.Key, e *storage.Event) int {
	n := 2*int(unsafe.Sizeof(key)+unsafe.Sizeof(e)) + len(key.Type) + len(key.StateKey) // a map is half full
	if e != nil {
		n += e.Size()
	}
	return n
}
