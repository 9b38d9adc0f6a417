// Package state reads rooms: their rows, their events, and their state at any root, by keys of the protocol instead of the
// numbers that the tables and the trie use. It keeps what was used last in memory.
//
// What the caches hold cannot change, with three exceptions: a room's row, an event that is redacted, and an outlier that finds its
// place in the room. Where another process may write (Sole is not set), rows are therefore always read from the database, and so are
// outliers and the events whose content somebody looks at.
package state

import (
	"context"
	"fmt"
	"slices"
	"sync"

	counted "github.com/hashicorp/golang-lru/v2"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

const (
	trieCacheBytes  = 8 << 20
	eventCacheBytes = 16 << 20 // 8,000 events of the usual size
	cachedIDs       = 8_000
	// keptOfScan is how many events of a large state are kept in memory, so that the others are not driven out.
	keptOfScan = 4_000
	scanned    = 1000 // events that one statement reads of a large state
	// paged is how many events of a timeline are read before it is looked whether that is enough. At 64 KiB an event it
	// bounds what a page reads too much.
	paged       = 100
	cachedRooms = 5_000
)

// Reader reads rooms. It is safe for concurrent use.
type Reader struct {
	Storage *storage.Storage
	sole    bool
	nodes   *statetrie.Cache
	events  *lru.Cache[stateres.EventNID, *storage.Event]
	byID    *counted.Cache[id.EventID, stateres.EventNID]
	rooms   *counted.Cache[id.RoomID, *storage.Room]
	// roomsMu orders the rows that are put into the cache: one that was read before a commit must not replace the newer one.
	roomsMu sync.Mutex
}

// NewReader makes a Reader. sole says that no other process writes rooms.
func NewReader(s *storage.Storage, sole bool) (*Reader, error) {
	r := &Reader{Storage: s, sole: sole, nodes: statetrie.NewCache(trieCacheBytes),
		events: lru.New(eventCacheBytes, func(_ stateres.EventNID, e *storage.Event) int { return e.Size() })}
	var err error
	if r.byID, err = counted.New[id.EventID, stateres.EventNID](cachedIDs); err != nil {
		return nil, err
	}
	r.rooms, err = counted.New[id.RoomID, *storage.Room](cachedRooms)
	return r, err
}

// Room is a room's current row; nil if there is no such room. It is shared and only read.
func (r *Reader) Room(ctx context.Context, roomID id.RoomID) (*storage.Room, error) {
	if r.sole {
		if room, has := r.rooms.Get(roomID); has {
			return room, nil
		}
	}
	room, err := r.Storage.Room(ctx, roomID)
	if err != nil {
		return nil, fmt.Errorf("room %s: %w", roomID, err)
	}
	if room != nil && r.sole {
		r.roomsMu.Lock()
		defer r.roomsMu.Unlock()
		if newer, has := r.rooms.Get(roomID); has {
			return newer, nil
		}
		r.rooms.Add(roomID, room)
	}
	return room, nil
}

// Rooms are the current rows of those rooms that exist.
func (r *Reader) Rooms(ctx context.Context, roomIDs []id.RoomID) (map[id.RoomID]*storage.Room, error) {
	found := make(map[id.RoomID]*storage.Room, len(roomIDs))
	missing := roomIDs
	if r.sole {
		missing = nil
		for _, roomID := range roomIDs {
			if room, has := r.rooms.Get(roomID); has {
				found[roomID] = room
			} else {
				missing = append(missing, roomID)
			}
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read, err := r.Storage.Rooms(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	for roomID, room := range read {
		found[roomID] = room
	}
	return found, nil
}

// Committed puts a row into the cache that has just been committed by the room's worker, or by who made the room. Who
// made it is not in the worker: the first input from elsewhere may have been committed already, and has the newer row.
func (r *Reader) Committed(room *storage.Room, isNew bool) {
	r.roomsMu.Lock()
	defer r.roomsMu.Unlock()
	if r.sole && !(isNew && r.rooms.Contains(room.ID)) {
		r.rooms.Add(room.ID, room)
	}
}

// Forget drops a row after a commit that failed, or may have.
func (r *Reader) Forget(roomID id.RoomID) {
	r.roomsMu.Lock()
	defer r.roomsMu.Unlock()
	r.rooms.Remove(roomID)
}

// Stored puts events into the cache that have just been committed, or have been redacted.
func (r *Reader) Stored(all ...*storage.Event) {
	for _, e := range all {
		r.events.Add(e.NID, e)
		r.byID.Add(e.PDU.ID(), e.NID)
	}
}

// remember puts events into the cache that were read. A commit may have changed them since: where only this process writes, what the
// cache has by then is newer.
func (r *Reader) remember(read []*storage.Event) {
	for _, e := range read {
		if r.sole {
			r.events.AddMissing(e.NID, e)
		} else {
			r.events.Add(e.NID, e)
		}
		r.byID.Add(e.PDU.ID(), e.NID)
	}
}

// Kept is how many bytes of events are in memory.
func (r *Reader) Kept() int { return r.events.Bytes() }

// isOutlier tells whether an event may yet find its place in the room, in another process too.
func isOutlier(e *storage.Event) bool {
	return e.Outcome == storage.Outlier || e.Outcome == storage.RejectedOutlier
}

// Events reads events for checks and computations, which do not look at what a redaction removes.
func (r *Reader) Events(ctx context.Context, nids []stateres.EventNID) (map[stateres.EventNID]*storage.Event, error) {
	return r.readEvents(ctx, nids, true)
}

func (r *Reader) readEvents(ctx context.Context, nids []stateres.EventNID, keep bool) (map[stateres.EventNID]*storage.Event, error) {
	found := make(map[stateres.EventNID]*storage.Event, len(nids))
	var missing []stateres.EventNID
	for _, nid := range nids {
		if _, twice := found[nid]; twice {
			continue
		}
		e, has := r.events.Get(nid)
		found[nid] = e
		if !has {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read, err := r.Storage.EventsByNID(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if keep {
		r.remember(read)
	}
	for _, e := range read {
		found[e.NID] = e
	}
	return found, nil
}

// EventsByID reads those of the events that exist. fresh asks for their redaction as it is now, for events whose content somebody
// looks at.
func (r *Reader) EventsByID(ctx context.Context, ids []id.EventID, fresh bool) (map[id.EventID]*storage.Event, error) {
	found := make(map[id.EventID]*storage.Event, len(ids))
	missing := ids
	if r.sole || !fresh {
		missing = nil
		for _, eventID := range ids {
			if nid, has := r.byID.Get(eventID); has {
				if e, has := r.events.Get(nid); has && (r.sole || !isOutlier(e)) {
					found[eventID] = e
					continue
				}
			}
			missing = append(missing, eventID)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read, err := r.Storage.EventsByID(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	r.remember(read)
	for _, e := range read {
		found[e.PDU.ID()] = e
	}
	return found, nil
}

// Fresh reads events whose content somebody looks at, with their redaction as it is now.
func (r *Reader) Fresh(ctx context.Context, nids []stateres.EventNID) (map[stateres.EventNID]*storage.Event, error) {
	return r.fresh(ctx, nids, true)
}

// Scan hands over events of which there may be very many, with their redaction as it is now. So many at once that they would drive out
// what others need are not kept in memory.
func (r *Reader) Scan(ctx context.Context, nids []stateres.EventNID, take func(*storage.Event)) error {
	for batch := range slices.Chunk(nids, scanned) {
		read, err := r.fresh(ctx, batch, len(nids) <= keptOfScan)
		if err != nil {
			return err
		}
		for _, nid := range batch {
			take(read[nid])
		}
	}
	return nil
}

func (r *Reader) fresh(ctx context.Context, nids []stateres.EventNID, keep bool) (map[stateres.EventNID]*storage.Event, error) {
	if r.sole {
		return r.readEvents(ctx, nids, keep)
	}
	read, err := r.Storage.EventsByNID(ctx, nids)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	if keep {
		r.remember(read)
	}
	found := make(map[stateres.EventNID]*storage.Event, len(read))
	for _, e := range read {
		found[e.NID] = e
	}
	return found, nil
}

// Timeline reads a page of a room's timeline, as Storage.Timeline lists it, up to about so many bytes. more says that
// the timeline may go on behind the page. What is in memory is used if it has the redaction that the database has.
func (r *Reader) Timeline(ctx context.Context, roomNID int64, from, to api.OrderKey, backward bool, limit, bytes int) (
	page []*storage.Event, more bool, err error) {
	placed, err := r.Storage.Timeline(ctx, roomNID, from, to, backward, limit)
	if err != nil {
		return nil, false, fmt.Errorf("timeline: %w", err)
	}
	page = make([]*storage.Event, 0, len(placed))
	for batch := range slices.Chunk(placed, paged) {
		if bytes <= 0 {
			break
		}
		events, err := r.placed(ctx, batch)
		if err != nil {
			return nil, false, err
		}
		for _, e := range events {
			bytes -= len(e.PDU.JSON())
		}
		page = append(page, events...)
	}
	return page, len(placed) == limit || len(page) < len(placed), nil
}

// placed reads events of a timeline.
func (r *Reader) placed(ctx context.Context, placed []storage.Placed) ([]*storage.Event, error) {
	page := make([]*storage.Event, len(placed))
	var missing []stateres.EventNID
	for i, p := range placed {
		if e, has := r.events.Get(p.NID); has && e.RedactedBy == p.RedactedBy && e.InTimeline {
			page[i] = e
		} else {
			missing = append(missing, p.NID)
		}
	}
	if len(missing) == 0 {
		return page, nil
	}
	read, err := r.Storage.EventsByNID(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	r.remember(read)
	found := make(map[stateres.EventNID]*storage.Event, len(read))
	for _, e := range read {
		found[e.NID] = e
	}
	for i, p := range placed {
		if page[i] == nil {
			page[i] = found[p.NID]
		}
	}
	return page, nil
}

// Trie is the state trie of a room.
func (r *Reader) Trie(roomNID int64) *statetrie.Trie {
	return statetrie.New(r.Storage.Nodes(roomNID), r.nodes)
}

// NIDs looks up entries of a state. Those that it does not have are left out.
func (r *Reader) NIDs(ctx context.Context, roomNID int64, root api.Root, keys []auth.Key) (map[auth.Key]stateres.EventNID, error) {
	numbers, err := r.Storage.KeyNIDs(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	wanted := make([]statetrie.KeyNID, 0, len(numbers))
	for _, nid := range numbers {
		wanted = append(wanted, nid)
	}
	entries, err := r.Trie(roomNID).Get(ctx, root, wanted)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", root, err)
	}
	found := make(map[auth.Key]stateres.EventNID, len(entries))
	for k, nid := range numbers {
		if event, has := entries[nid]; has {
			found[k] = event
		}
	}
	return found, nil
}

// Get reads entries of a state as events, with their redaction as it is now. Those that it does not have are left out.
func (r *Reader) Get(ctx context.Context, roomNID int64, root api.Root, keys []auth.Key) (map[auth.Key]*storage.Event, error) {
	nids, err := r.NIDs(ctx, roomNID, root, keys)
	if err != nil {
		return nil, err
	}
	wanted := make([]stateres.EventNID, 0, len(nids))
	for _, nid := range nids {
		wanted = append(wanted, nid)
	}
	events, err := r.Fresh(ctx, wanted)
	if err != nil {
		return nil, err
	}
	found := make(map[auth.Key]*storage.Event, len(nids))
	for k, nid := range nids {
		found[k] = events[nid]
	}
	return found, nil
}

// One reads one entry of a state; nil if it does not have it.
func (r *Reader) One(ctx context.Context, roomNID int64, root api.Root, k auth.Key) (*storage.Event, error) {
	found, err := r.Get(ctx, roomNID, root, []auth.Key{k})
	return found[k], err
}

// Entries lists the numbers of the events of a state, or of a part of it.
func (r *Reader) Entries(ctx context.Context, roomNID int64, root api.Root, part statetrie.Part) ([]stateres.EventNID, error) {
	entries, err := r.Trie(roomNID).Entries(ctx, root, part)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", root, err)
	}
	nids := make([]stateres.EventNID, len(entries))
	for i, e := range entries {
		nids[i] = e.Event
	}
	return nids, nil
}

// Diff lists what leads from one state to another.
func (r *Reader) Diff(ctx context.Context, roomNID int64, from, to api.Root) ([]api.StateChange, error) {
	if from == to {
		return nil, nil
	}
	differences, err := r.Trie(roomNID).Diff(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("difference of states %s and %s: %w", from, to, err)
	}
	var keyNIDs []statetrie.KeyNID
	var eventNIDs []stateres.EventNID
	for _, d := range differences {
		keyNIDs = append(keyNIDs, d.Key)
		for _, nid := range []stateres.EventNID{d.Old, d.New} {
			if nid != 0 {
				eventNIDs = append(eventNIDs, nid)
			}
		}
	}
	keys, err := r.Storage.Keys(ctx, keyNIDs)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	events, err := r.Events(ctx, eventNIDs)
	if err != nil {
		return nil, err
	}
	changes := make([]api.StateChange, len(differences))
	for i, d := range differences {
		changes[i] = Change(keys[d.Key], events[d.Old], events[d.New])
	}
	return changes, nil
}

// Change describes the change of one entry; either event may be nil.
func Change(k auth.Key, before, after *storage.Event) api.StateChange {
	c := api.StateChange{Type: k.Type, StateKey: k.StateKey}
	if before != nil {
		c.Old = before.PDU.ID()
	}
	if after != nil {
		c.New = after.PDU.ID()
	}
	if k.Type == pdu.TypeMember {
		c.OldMembership, c.NewMembership = membershipOf(before), membershipOf(after)
	}
	return c
}

// membershipOf is the membership that an entry of the state means. One that is absent counts as leave.
func membershipOf(e *storage.Event) string {
	if e == nil {
		return "leave"
	}
	return e.PDU.Membership()
}
