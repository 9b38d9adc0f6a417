// Package events keeps events that this process needs again and again: those that were just sent, and the state of rooms that
// many sync. What it hands out is shared and is only read. It checks no visibility: Visible does, by asking the roomserver.
package events

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/lru"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	// keptBytes is what events take that stay in memory: 8,000 of the usual size. They are those that were sent last:
	// who is woken by one finds it here, and who comes back after a while has the roomserver asked, which keeps some
	// itself.
	keptBytes = 16 << 20
	// keptStateBytes is what states of rooms take that stay in memory: 10,000 events of the usual size together.
	keptStateBytes = 16 << 20
)

// maxAsk is how many events one call to the roomserver asks for.
const maxAsk = 1000

// Cache is the events of a process.
type Cache struct {
	room  *roomserver.RoomserverAPI
	byID  *lru.Cache[id.EventID, *roomserver.Event]
	state *lru.Cache[stateKey, *keptState]
	// drops counts what was forgotten: an answer that was under way meanwhile may be old and is not kept. The lock makes looking and
	// keeping one step.
	mu    sync.Mutex
	drops int64
}

// New makes an empty Cache. The contract is called when it is filled.
func New(room *roomserver.RoomserverAPI) *Cache {
	return &Cache{room: room,
		byID:  lru.New(keptBytes, func(i id.EventID, e *roomserver.Event) int { return len(i) + e.Size() }),
		state: lru.New(keptStateBytes, stateSize)}
}

// Put adds an event that was just sent.
func (c *Cache) Put(e *roomserver.Event) { c.byID.Add(e.PDU.ID(), e) }

// Drop forgets events whose bodies have changed.
func (c *Cache) Drop(events []id.EventID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops += int64(len(events))
	for _, e := range events {
		c.byID.Remove(e)
	}
	if len(events) > 0 {
		c.state.Purge()
	}
}

// Purge forgets everything.
func (c *Cache) Purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drops++
	c.byID.Purge()
	c.state.Purge()
}

func (c *Cache) dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drops
}

// keep calls add unless something was forgotten since.
func (c *Cache) keep(since int64, add func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drops == since {
		add()
	}
}

// Get returns events by id, those that exist. The caller knows that its user may see them.
func (c *Cache) Get(ctx context.Context, ids []id.EventID) (map[id.EventID]*roomserver.Event, error) {
	found := make(map[id.EventID]*roomserver.Event, len(ids))
	var missing []id.EventID
	for _, i := range ids {
		if e, has := c.byID.Get(i); has {
			found[i] = e
		} else {
			missing = append(missing, i)
		}
	}
	drops := c.dropped()
	for chunk := range slices.Chunk(missing, maxAsk) {
		answer, err := c.room.QueryEvents(ctx, roomserver.QueryEventsRequest{EventIDs: chunk})
		if err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		c.keep(drops, func() {
			for i := range answer.Events {
				e := answer.Events[i] // a copy: one that is kept must not keep the whole answer
				c.byID.Add(e.PDU.ID(), &e)
			}
		})
		for i := range answer.Events {
			found[answer.Events[i].PDU.ID()] = &answer.Events[i]
		}
	}
	return found, nil
}

// Visible returns those of the events that the viewer may see.
func (c *Cache) Visible(ctx context.Context, viewer roomserver.Viewer, ids []id.EventID) (map[id.EventID]*roomserver.Event, error) {
	found := make(map[id.EventID]*roomserver.Event, len(ids))
	for chunk := range slices.Chunk(ids, maxAsk) {
		answer, err := c.room.QueryEvents(ctx, roomserver.QueryEventsRequest{Viewer: viewer, EventIDs: chunk})
		if err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		for i := range answer.Events {
			found[answer.Events[i].PDU.ID()] = &answer.Events[i]
		}
	}
	return found, nil
}
