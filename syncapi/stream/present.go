package stream

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/syncapi/presence"
)

// predecessor stands for the replicas that ended before this one began, as one that tells nothing more.
const predecessor = "predecessor"

// restorePresent takes those for present whom others have kept. Nothing is told of them: who does not come back becomes offline as where
// a replica has ended.
func (h *Hub) restorePresent(ctx context.Context) {
	kept, err := h.o.Storage.Present(ctx)
	if err != nil {
		if ctx.Err() == nil {
			h.o.Log.WithError(err).Warn("who was online before cannot be read: who does not come back is not told to be offline")
		}
		return
	}
	for users := range slices.Chunk(kept, presenceOfOne) {
		moves := make(map[id.UserID]int)
		h.mu.Lock()
		for _, u := range users {
			p := h.presentUser(u.UserID)
			p.by[predecessor] = told{u, time.Now()}
			p.combine() // which others know already
			p.number = max(p.number, h.presence.first)
			h.presence.kept[u.UserID] = u.State
			moves[u.UserID] = p.moves
		}
		h.mu.Unlock()
		if err := h.learnPresent(ctx, moves); err != nil && ctx.Err() == nil {
			h.o.Log.WithError(err).Warn("who was online before is not shown until they do something")
		}
	}
}

// keepPresent keeps who is present for those who begin after this replica.
func (h *Hub) keepPresent(ctx context.Context) {
	kept := h.presence.kept
	h.mu.Lock()
	var changed []presence.Update
	var gone []id.UserID
	for name, p := range h.presence.users {
		if p.State != presence.Offline && kept[name] != p.State {
			changed = append(changed, presence.Update{UserID: name, State: p.State, Active: p.Active})
		}
	}
	for name := range kept {
		if p := h.presence.users[name]; p == nil || p.State == presence.Offline {
			gone = append(gone, name)
		}
	}
	h.mu.Unlock()
	if len(changed)+len(gone) == 0 {
		return
	}
	// In one order for all replicas, so that none waits for another that waits for it.
	slices.SortFunc(changed, func(a, b presence.Update) int { return cmp.Compare(a.UserID, b.UserID) })
	slices.Sort(gone)
	if err := h.o.Storage.KeepPresent(ctx, changed, gone); err != nil {
		if ctx.Err() == nil {
			h.o.Log.WithError(err).Warn("who is online cannot be kept now")
		}
		return
	}
	for _, u := range changed {
		kept[u.UserID] = u.State
	}
	for _, name := range gone {
		delete(kept, name)
	}
}
