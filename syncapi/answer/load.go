package answer

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// filteredRows is how far back the timeline is searched for events that a filter selects.
const filteredRows = 1000

// allRows limits, for all rooms of an answer together, how many rows are read; but fewRows of a room always may be.
const (
	allRows = 100_000
	fewRows = 20
)

// wants is what has to be read from the database.
type wants struct {
	changed        []id.RoomID // joined rooms of which it is not known whether they have changed
	rows, anewRows []id.RoomID // since the token; the newest
	leftRows       []int64     // positions of leaves
	now            []id.RoomID
	receipts       []id.RoomID
	allReceipts    []id.RoomID
	accountData    bool
	allAccountData bool
	unread         bool
}

func (a *answering) load(ctx context.Context) error {
	if len(a.rooms) == 0 && !a.window.Changed(storage.KindAccountData, a.DeviceID) && a.window.Complete {
		return nil
	}
	a.planned = len(a.rooms)
	w := a.wanted()
	if !w.nothing() {
		err := a.Storage.Read(ctx, "sync", func(ctx context.Context, tx *sqlutil.Tx) error {
			return a.read(ctx, tx, w)
		})
		if err != nil {
			return err
		}
	}
	a.Hub.KeepCounts(a.UserID, a.window.UpTo, a.unread)
	for _, r := range a.rooms {
		if a.countsWanted(r) && a.countsKnown(r) {
			counts := r.unread.Of(a.window.View.Rules)
			r.counts = &counts
		}
		a.settle(r)
	}
	return nil
}

func (a *answering) wanted() *wants {
	w := &wants{accountData: a.window.Changed(storage.KindAccountData, a.DeviceID)}
	for name, r := range a.rooms {
		switch r.kind {
		case joinedNew:
			w.anewRows = append(w.anewRows, name)
			w.allReceipts = append(w.allReceipts, name)
			w.allAccountData = true
		case joined:
			switch {
			case r.rowsFrom == stored && !a.window.Complete:
				w.changed = append(w.changed, name)
			case r.rowsFrom == stored:
				w.rows = append(w.rows, name)
			}
			if r.receiptsFrom == stored {
				w.receipts = append(w.receipts, name)
			}
		case left, leftNew, outside:
			if r.rowsFrom == stored {
				w.leftRows = append(w.leftRows, r.membership.Pos)
			}
		}
		if r.kind.section() == join {
			if r.full {
				w.now = append(w.now, name)
			}
			w.unread = w.unread || a.countsWanted(r) && !a.countsKnown(r)
		}
	}
	return w
}

// countsWanted tells whether the unread counts of a room may be new to the client.
func (a *answering) countsWanted(r *room) bool {
	return r.kind.section() == join && (r.full || r.rowsFrom != nothing || a.hasRead(r))
}

// hasRead tells whether the user has moved a receipt of theirs.
func (a *answering) hasRead(r *room) bool {
	return slices.ContainsFunc(r.receipts, func(receipt storage.Receipt) bool { return receipt.UserID == a.UserID })
}

// countsKnown tells whether the Hub knows them. It knows nothing of threads.
func (a *answering) countsKnown(r *room) bool {
	return r.unread != nil && !a.Filter.UnreadThreadNotifications()
}

func (w *wants) nothing() bool {
	return len(w.changed)+len(w.rows)+len(w.anewRows)+len(w.leftRows)+len(w.now) == 0 &&
		len(w.receipts)+len(w.allReceipts) == 0 && !w.unread && !w.accountData && !w.allAccountData
}

// limits are how many rows of a room are read, and how many of them the client gets.
func (a *answering) limits() (read, keep int) {
	share := max(fewRows, allRows/max(1, a.planned))
	keep = min(a.Filter.TimelineLimit(), share)
	read = keep + 1
	if f := a.Filter.Room.Timeline; f != nil && (f.Types != nil || len(f.NotTypes) > 0 || f.Senders != nil ||
		len(f.NotSenders) > 0 || f.ContainsURL != nil) {
		read = max(read, min(filteredRows, share))
	}
	if len(a.window.View.Ignored) > 0 {
		read = max(read, 4*keep)
	}
	return read, keep
}
