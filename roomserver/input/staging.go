package input

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// Fetcher gets from other servers what staged PDUs wait for. It works outside the rooms' workers.
type Fetcher interface {
	// Fetch returns events that lead to a staged one: those with a place in the room, oldest first, and outliers, which are
	// needed as auth events only.
	Fetch(ctx context.Context, p storage.Staged) (placed, outliers []json.RawMessage, err error)
}

// takeStaged tries staged events again, as long as one of them can be checked.
func (in *Input) takeStaged(ctx context.Context, d *draft) error {
	if len(d.events)+len(d.aside) == 0 {
		return nil // nothing has come that any of them could have waited for
	}
	waiting, err := in.Storage.StagedPDUs(ctx, d.room.ID)
	if err != nil {
		return err
	}
	for progress := true; progress && len(waiting) > 0; {
		progress = false
		var still []storage.Staged
		for _, p := range waiting {
			event, err := pdu.ParseTrusted(p.Version, "", p.JSON)
			if err != nil {
				return fmt.Errorf("staged event %s: %w", p.EventID, err)
			}
			r := &received{origin: p.Origin, event: event, staged: true}
			missing, err := in.isMissing(ctx, d, p.Missing)
			if err != nil {
				return err
			}
			if !missing {
				err = in.check(ctx, d, r)
			}
			if err != nil {
				return err
			}
			if r.decided && len(d.unstage) > 0 && d.unstage[len(d.unstage)-1] == p.EventID {
				progress = true
				continue
			}
			still = append(still, p)
		}
		waiting = still
	}
	return nil
}

func (in *Input) isMissing(ctx context.Context, d *draft, ids []id.EventID) (bool, error) {
	found, err := in.eventsByID(ctx, d, ids)
	return len(found) < len(ids), err
}

// FetchStaged gets what the staged events of a room wait for, once, and puts it in. It tells how many of them are left.
func (in *Input) FetchStaged(ctx context.Context, roomID id.RoomID, f Fetcher) (int, error) {
	room, err := in.Reader.Room(ctx, roomID)
	if err != nil || room == nil {
		return 0, err
	}
	waiting, err := in.Storage.StagedPDUs(ctx, roomID)
	if err != nil {
		return 0, err
	}
	for _, p := range waiting {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		placed, outliers, err := f.Fetch(ctx, p)
		cancel()
		if err != nil {
			in.Log.WithError(err).WithField("event", p.EventID).Warn("what a staged event waits for cannot be fetched now")
			continue
		}
		var all []*received
		for i, raw := range append(outliers, placed...) {
			r := &received{origin: p.Origin, outlier: i < len(outliers)}
			if err := in.receive(ctx, room, r, raw); err != nil {
				return 0, err
			}
			all = append(all, r)
		}
		if err := in.take(ctx, roomID, all); err != nil {
			return 0, err
		}
	}
	waiting, err = in.Storage.StagedPDUs(ctx, roomID)
	return len(waiting), err
}
