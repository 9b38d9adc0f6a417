package visibility

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/state"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// reader is what the rules need to know of rooms.
type reader interface {
	// Membership is what a user is in a room now.
	Membership(ctx context.Context, roomNID int64, user id.UserID) (storage.Membership, error)
	// EventsByID reads those of the events that exist; fresh asks for their redaction as it is now.
	EventsByID(ctx context.Context, ids []id.EventID, fresh bool) (map[id.EventID]*storage.Event, error)
	// AtRoots reads entries of several states of a room, with redactions as they are now.
	AtRoots(ctx context.Context, roomNID int64, wanted map[api.Root][]auth.Key) (states, error)
}

// rooms reads them from the tables.
type rooms struct{ *state.Reader }

func (r rooms) Membership(ctx context.Context, roomNID int64, user id.UserID) (storage.Membership, error) {
	return r.Storage.Membership(ctx, roomNID, user)
}

func (r rooms) AtRoots(ctx context.Context, roomNID int64, wanted map[api.Root][]auth.Key) (states, error) {
	nids := make(map[api.Root]map[auth.Key]stateres.EventNID, len(wanted))
	distinct := make(map[stateres.EventNID]bool)
	for root, keys := range wanted {
		entries, err := r.NIDs(ctx, roomNID, root, keys)
		if err != nil {
			return nil, err
		}
		nids[root] = entries
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
	found := make(states, len(nids))
	for root, entries := range nids {
		found[root] = make(map[auth.Key]*storage.Event, len(entries))
		for k, nid := range entries {
			found[root][k] = events[nid]
		}
	}
	return found, nil
}
