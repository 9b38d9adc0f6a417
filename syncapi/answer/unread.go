package answer

import (
	"context"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// readUnread reads the unread counts that are wanted and not known.
func (a *answering) readUnread(ctx context.Context, tx *sqlutil.Tx) error {
	var rooms []id.RoomID
	for name, r := range a.rooms {
		if a.countsWanted(r) && !a.countsKnown(r) {
			rooms = append(rooms, name)
		}
	}
	if len(rooms) == 0 {
		return nil
	}
	if !a.Filter.UnreadThreadNotifications() {
		unread, err := a.Storage.Unread(ctx, tx, a.UserID, rooms)
		if err != nil {
			return err
		}
		for i := range unread {
			a.rooms[unread[i].RoomID].unread = &unread[i]
		}
		a.unread = unread
		return nil
	}
	main, err := a.Storage.UnreadMain(ctx, tx, a.UserID, rooms)
	if err != nil {
		return err
	}
	for i := range main {
		counts := main[i].Of(a.window.View.Rules)
		a.rooms[main[i].RoomID].counts = &counts
	}
	threads, err := a.Storage.UnreadThreads(ctx, tx, a.UserID, rooms)
	if err != nil {
		return err
	}
	for i := range threads {
		if counts := threads[i].Of(a.window.View.Rules); counts != (storage.Counts{}) {
			r := a.rooms[threads[i].RoomID]
			if r.threads == nil {
				r.threads = make(map[id.EventID]storage.Counts)
			}
			r.threads[threads[i].Thread] = counts
		}
	}
	return nil
}
