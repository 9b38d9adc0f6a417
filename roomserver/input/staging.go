package input

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// takeStaged tries those staged events again for which all that they waited for is here, as long as one of them can be checked. more
// says that there are further ones: one transaction takes a limited number. One that could not be checked stays staged.
func (in *Input) takeStaged(ctx context.Context, d *draft) (more bool, err error) {
	waiting, err := in.Storage.WaitingPDUs(ctx, d.room.ID)
	if err != nil || len(waiting) == 0 {
		return false, err
	}
	var missing []id.EventID
	for _, w := range waiting {
		missing = append(missing, w.Missing...)
	}
	stored, err := in.Storage.KnownEvents(ctx, missing)
	if err != nil {
		return false, err
	}
	absent := func(eventID id.EventID) bool { return stored[eventID].NID == 0 && d.byID.now[eventID] == nil }
	taken := map[id.EventID]bool{}
	for progress := true; progress; {
		progress = false
		var ready []id.EventID
		for _, w := range waiting {
			if !taken[w.EventID] && !slices.ContainsFunc(w.Missing, absent) {
				ready = append(ready, w.EventID)
			}
		}
		if len(ready) == 0 {
			return false, nil
		}
		all, err := in.Storage.StagedPDUs(ctx, ready)
		if err != nil {
			return false, err
		}
		for _, p := range all {
			if len(taken) == stagedAtOnce {
				return true, nil
			}
			done, err := in.takeOneStaged(ctx, d, p)
			if err != nil {
				in.warn(err, p.EventID, "a staged event could not be checked")
			}
			if done {
				taken[p.EventID], progress = true, true
			}
		}
	}
	return false, nil
}

func (in *Input) takeOneStaged(ctx context.Context, d *draft, p storage.Staged) (done bool, err error) {
	event, err := pdu.ParseTrusted(p.Version, "", p.JSON)
	if err != nil {
		return false, fmt.Errorf("staged event: %w", err)
	}
	r := &received{origin: p.Origin, event: event, staged: true}
	err = in.checkOne(ctx, d, r)
	return slices.Contains(d.unstage, p.EventID), err
}

// takeAllStaged takes staged events, a transaction for every so many, until none of the rest can be checked.
func (in *Input) takeAllStaged(ctx context.Context, roomID id.RoomID) error {
	for {
		more, err := in.submit(ctx, roomID, &job{run: func(ctx context.Context, d *draft) (any, error) { return in.takeStaged(ctx, d) }})
		if err != nil || more != true {
			return err
		}
	}
}

func (in *Input) warn(err error, event id.EventID, what string) {
	if in.Log != nil {
		in.Log.WithError(err).WithField("event", event).Warn(what)
	}
}

// FetchStaged gets what the staged events of a room wait for, once, and puts it in. It tells how many of them are left.
func (in *Input) FetchStaged(ctx context.Context, roomID id.RoomID, f Fetcher) (int, error) {
	room, err := in.Reader.Room(ctx, roomID)
	if err != nil || room == nil {
		return 0, err
	}
	waiting, err := in.Storage.WaitingPDUs(ctx, roomID)
	if err != nil {
		return 0, err
	}
	for _, w := range waiting {
		if err := in.fetchFor(ctx, room, w.EventID, f); err != nil {
			in.warn(err, w.EventID, "what a staged event waits for cannot be had now")
		}
	}
	if err := in.takeAllStaged(ctx, roomID); err != nil {
		return 0, err
	}
	waiting, err = in.Storage.WaitingPDUs(ctx, roomID)
	return len(waiting), err
}

// fetchFor gets what one staged event waits for, unless that has come meanwhile.
func (in *Input) fetchFor(ctx context.Context, room *storage.Room, eventID id.EventID, f Fetcher) error {
	staged, err := in.Storage.StagedPDUs(ctx, []id.EventID{eventID})
	if err != nil || len(staged) == 0 {
		return err
	}
	fetching, cancel := context.WithTimeout(ctx, time.Minute)
	placed, outliers, err := f.Fetch(fetching, staged[0])
	cancel()
	if err != nil {
		return err
	}
	var all []*received
	for i, raw := range slices.Concat(outliers, placed) {
		r := &received{origin: staged[0].Origin, outlier: i < len(outliers)}
		r.failed = in.receive(ctx, room, r, raw)
		all = append(all, r)
	}
	return in.take(ctx, room.ID, all)
}
