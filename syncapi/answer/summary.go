package answer

import (
	"context"
	"fmt"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

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
	answer, err := a.Room.QueryRooms(ctx, roomserver.QueryRoomsRequest{RoomIDs: rooms, HeroesFor: a.UserID})
	if err != nil {
		return fmt.Errorf("summaries of rooms: %w", err)
	}
	for i := range answer.Rooms {
		room := &answer.Rooms[i]
		s := &summary{joined: room.Joined, invited: room.Invited}
		if room.Name == "" && room.CanonicalAlias == "" {
			s.heroes = append([]id.UserID{}, room.Heroes...)
		}
		a.rooms[room.RoomID].summary = s
	}
	return nil
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
