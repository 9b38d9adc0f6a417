package rules

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// freeze keeps the counts of joined rooms whose class changes.
func (s *Store) freeze(
	ctx context.Context, tx *sqlutil.Tx, user id.UserID, pos int64, before, after *pushrules.Document,
) ([]storage.Frozen, error) {
	history, err := s.Storage.History(ctx, tx, user)
	if err != nil {
		return nil, err
	}
	rooms := reclassified(history, before, after)
	if len(rooms) == 0 {
		return nil, nil
	}
	unread, err := s.Storage.Unread(ctx, tx, user, rooms)
	if err != nil {
		return nil, err
	}
	stored, err := s.Storage.Rooms(ctx, tx, rooms)
	if err != nil {
		return nil, err
	}
	frozen := make([]storage.Frozen, len(unread))
	for i := range unread {
		u := &unread[i]
		frozen[i] = storage.Frozen{UserID: user, RoomID: u.RoomID, Pos: pos, Place: u.Place, Counts: u.Of(before),
			Base: stored[u.RoomID].All}
	}
	return frozen, nil
}

// reclassified lists the rooms that a user is joined to and whose class is another one now. history is oldest first.
func reclassified(history []storage.Membership, before, after *pushrules.Document) (rooms []id.RoomID) {
	now := make(map[id.RoomID]string)
	for i := range history {
		now[history[i].RoomID] = history[i].Membership
	}
	for room, membership := range now {
		was, _ := before.Classify(room)
		is, _ := after.Classify(room)
		if membership == "join" && was != is {
			rooms = append(rooms, room)
		}
	}
	return rooms
}
