package answer

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// maxHeroes is how many members name a room that has no name.
const maxHeroes = 5

// summary is what a client needs to show a room whose members it does not know.
type summary struct {
	heroes          []id.UserID // nil where the room has a name
	joined, invited int64
}

// summarize makes the summaries of rooms that are new to the client or whose members have changed.
func (a *answering) summarize(ctx context.Context) error {
	var rooms []id.RoomID
	for name, r := range a.rooms {
		if r.kind.section() == join && r.mayNeedSummary() {
			rooms = append(rooms, name)
		}
	}
	if len(rooms) == 0 {
		return nil
	}
	answer, err := a.Room.QueryRooms(ctx, roomserver.QueryRoomsRequest{RoomIDs: rooms})
	if err != nil {
		return fmt.Errorf("summaries of rooms: %w", err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelStates)
	for i := range answer.Rooms {
		room := &answer.Rooms[i]
		r := a.rooms[room.RoomID]
		r.summary = &summary{joined: room.Joined, invited: room.Invited}
		if room.Name != "" || room.CanonicalAlias != "" {
			continue
		}
		group.Go(func() (err error) {
			r.summary.heroes, err = a.heroes(groupCtx, r)
			return err
		})
	}
	return group.Wait()
}

// mayNeedSummary tells whether the members or the name may be others than the client knows.
func (r *room) mayNeedSummary() bool {
	if r.full || r.limited || r.rootSince != nil && *r.rootSince != r.start() || !r.showsAll() {
		return true
	}
	return slices.ContainsFunc(r.rows, func(row storage.TimelineRow) bool {
		return row.Type == member || row.Type == "m.room.name" || row.Type == "m.room.canonical_alias"
	})
}

// heroes are the first members, in the order in which their membership became part of the room; those who have left, if there
// is nobody else.
func (a *answering) heroes(ctx context.Context, r *room) ([]id.UserID, error) {
	state, err := a.Events.State(ctx, r.id, r.root, false, nil)
	if err != nil {
		return nil, err
	}
	var present, gone []*roomserver.Event
	for _, e := range state {
		if user, _ := e.PDU.StateKey(); e.PDU.Type() != member || user == string(a.UserID) {
			continue
		}
		if m := e.PDU.Membership(); m == join || m == invite {
			present = append(present, e)
		} else {
			gone = append(gone, e)
		}
	}
	if len(present) == 0 {
		present = gone
	}
	slices.SortFunc(present, func(x, y *roomserver.Event) int {
		if by := x.Order.Compare(y.Order); by != 0 {
			return by
		}
		return cmp.Compare(x.PDU.ID(), y.PDU.ID())
	})
	heroes := make([]id.UserID, 0, maxHeroes)
	for _, e := range present[:min(len(present), maxHeroes)] {
		user, _ := e.PDU.StateKey()
		heroes = append(heroes, id.UserID(user))
	}
	return heroes, nil
}
