package visibility

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// reader is what the rules need to know of rooms.
type reader interface {
	// Membership is what a user is in a room now.
	Membership(ctx context.Context, roomNID int64, user id.UserID) (storage.Membership, error)
	// EventsByID reads those of the events that exist; fresh asks for their redaction as it is now.
	EventsByID(ctx context.Context, ids []id.EventID, fresh bool) (map[id.EventID]*storage.Event, error)
	// Erasures returns, of some users, those who were erased, with the room as it was then.
	Erasures(ctx context.Context, roomNID int64, users []id.UserID) ([]storage.Erasure, error)
	// AtRoots reads entries of several states of a room, with redactions as they are now.
	AtRoots(ctx context.Context, roomNID int64, wanted map[api.Root][]auth.Key) (states, error)
}

// rooms reads them from the tables.
type rooms struct{ *state.Reader }

func (r rooms) Membership(ctx context.Context, roomNID int64, user id.UserID) (storage.Membership, error) {
	return r.Storage.Membership(ctx, roomNID, user)
}

func (r rooms) Erasures(ctx context.Context, roomNID int64, users []id.UserID) ([]storage.Erasure, error) {
	return r.Storage.Erasures(ctx, roomNID, users)
}

func (r rooms) AtRoots(ctx context.Context, roomNID int64, wanted map[api.Root][]auth.Key) (states, error) {
	var keys []auth.Key
	for _, some := range wanted {
		keys = append(keys, some...)
	}
	numbers, err := r.Storage.KeyNIDs(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	byNumber := make(map[api.Root][]statetrie.KeyNID, len(wanted))
	for root, some := range wanted {
		for _, k := range some {
			if n, has := numbers[k]; has {
				byNumber[root] = append(byNumber[root], n)
			}
		}
	}
	nids, err := r.Trie(roomNID).GetEach(ctx, byNumber)
	if err != nil {
		return nil, fmt.Errorf("states of %d events: %w", len(wanted), err)
	}
	distinct := make(map[stateres.EventNID]bool)
	for _, entries := range nids {
		for _, nid := range entries {
			distinct[nid] = true
		}
	}
	all := make([]stateres.EventNID, 0, len(distinct))
	for nid := range distinct {
		all = append(all, nid)
	}
	events, err := r.Fresh(ctx, all)
	if err != nil {
		return nil, err
	}
	found := make(states, len(wanted))
	for root, some := range wanted {
		found[root] = make(map[auth.Key]*storage.Event, len(some))
		for _, k := range some {
			if e := events[nids[root][numbers[k]]]; e != nil {
				found[root][k] = e
			}
		}
	}
	return found, nil
}
