package answer

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
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
	if len(a.rooms) == 0 && !a.window.DataChanged && a.window.Complete {
		return nil
	}
	a.planned = len(a.rooms)
	w := a.wanted()
	if !w.nothing() {
		err := a.Storage.Read(ctx, "sync", func(ctx context.Context, tx *sqlutil.Tx) error { return a.read(ctx, tx, w) })
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
	w := &wants{accountData: a.window.DataChanged}
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
	return len(w.changed)+len(w.rows)+len(w.anewRows)+len(w.leftRows)+len(w.now)+len(w.receipts)+len(w.allReceipts) == 0 &&
		!w.unread && !w.accountData && !w.allAccountData
}

// limits are how many rows of a room are read, and how many of them the client gets.
func (a *answering) limits() (read, keep int) {
	share := max(fewRows, allRows/max(1, a.planned))
	keep = min(a.Filter.TimelineLimit(), share)
	read = keep + 1
	if f := a.Filter.Room.Timeline; f != nil && (f.Types != nil || len(f.NotTypes) > 0 || f.Senders != nil || len(f.NotSenders) > 0 || f.ContainsURL != nil) {
		read = max(read, min(filteredRows, share))
	}
	if len(a.window.View.Ignored) > 0 {
		read = max(read, 4*keep)
	}
	return read, keep
}

// read reads what is wanted. It may run again, where a connection was lost.
func (a *answering) read(ctx context.Context, tx *sqlutil.Tx, wanted *wants) error {
	w := *wanted
	w.rows, w.changed = slices.Clip(w.rows), slices.Clip(w.changed)
	a.accountData = nil
	for _, r := range a.rooms {
		if r.rowsFrom == stored {
			r.rows = nil
		}
		if r.receiptsFrom == stored {
			r.receipts = nil
		}
		r.accountData = nil
	}
	n, _ := a.limits()
	upTo := a.window.UpTo
	if len(w.changed)+len(w.now) > 0 {
		found, err := a.Storage.Rooms(ctx, tx, append(w.changed, w.now...))
		if err != nil {
			return err
		}
		for name, now := range found {
			a.rooms[name].now = &now
		}
		for _, name := range w.changed {
			if r := a.rooms[name]; r.now == nil || r.now.Pos <= a.since.Pos {
				r.rowsFrom = nothing
			} else {
				r.rowsFrom = stored
				w.rows = append(w.rows, name)
			}
		}
	}
	for _, part := range []struct {
		rooms []id.RoomID
		after int64
	}{{w.rows, a.since.Pos}, {w.anewRows, 0}} {
		if len(part.rooms) > 0 {
			rows, err := a.Storage.Newest(ctx, tx, part.rooms, part.after, upTo, n)
			if err != nil {
				return err
			}
			a.addRows(rows, part.rooms)
		}
	}
	if len(w.leftRows) > 0 {
		rows, err := a.Storage.NewestUpTo(ctx, tx, a.UserID, w.leftRows, a.since.Pos, n)
		if err != nil {
			return err
		}
		a.addRows(rows, nil)
	}
	if err := a.readRoots(ctx, tx, n); err != nil {
		return err
	}
	for _, part := range []struct {
		rooms []id.RoomID
		after int64
	}{{w.receipts, a.since.Pos}, {w.allReceipts, 0}} {
		if len(part.rooms) > 0 {
			receipts, err := a.Storage.Receipts(ctx, tx, a.UserID, part.rooms, part.after, upTo)
			if err != nil {
				return err
			}
			for _, receipt := range receipts {
				r := a.rooms[receipt.RoomID]
				r.receipts = append(r.receipts, receipt)
			}
		}
	}
	if w.accountData || w.allAccountData {
		after := a.since.Pos
		if w.allAccountData {
			after = 0
		}
		data, err := a.Storage.AccountData(ctx, tx, a.UserID, after, upTo)
		if err != nil {
			return err
		}
		a.addAccountData(data)
	}
	return a.readUnread(ctx, tx)
}

func (a *answering) addRows(rows []storage.TimelineRow, rooms []id.RoomID) {
	for _, name := range rooms {
		a.rooms[name].rows = nil
	}
	for len(rows) > 0 {
		name, n := rows[0].RoomID, 1
		for n < len(rows) && rows[n].RoomID == name {
			n++
		}
		if r := a.rooms[name]; r.rows == nil {
			r.rows = rows[:n:n]
		} else {
			r.rows = append(r.rows, rows[:n]...)
		}
		rows = rows[n:]
	}
}

// readRoots finds the state that the client has of rooms whose first rows since the token were not read.
func (a *answering) readRoots(ctx context.Context, tx *sqlutil.Tx, n int) error {
	var unknown []id.RoomID
	for name, r := range a.rooms {
		if r.rowsFrom == stored && (len(r.rows) >= n || r.kind == joinedNew) && a.needsRootSince(r) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	at, err := a.Storage.At(ctx, tx, unknown, a.since.Pos)
	if err != nil {
		return err
	}
	for _, name := range unknown {
		root := at[name].RootAfter // of a room that had no row then: the empty state
		a.rooms[name].rootSince = &root
	}
	return nil
}

// needsRootSince tells whether it matters which state the client has: what it gets then are differences. Who loads members lazily gets
// those of members in any case.
func (a *answering) needsRootSince(r *room) bool {
	return a.joinedAt(r.id, a.since.Pos) && (!r.full || a.Filter.LazyLoadMembers())
}

// addAccountData sorts account data into rooms. What is older than the token is for rooms that are new to the client.
func (a *answering) addAccountData(data []storage.AccountData) {
	for _, d := range data {
		isNew := a.initial() || d.Pos > a.since.Pos
		if d.RoomID == "" {
			if isNew && a.Filter.AccountData.MatchesType(d.Type) && d.Type != storage.PushRules {
				a.accountData = append(a.accountData, d)
			}
			if isNew && d.Type == storage.PushRules {
				a.addPushRules()
			}
			continue
		}
		r := a.rooms[d.RoomID]
		if r == nil && isNew {
			r = a.joinedRoom(d.RoomID)
		}
		if r == nil || !isNew && !r.kind.anew() || !a.Filter.Room.AccountData.MatchesType(d.Type) || !a.Filter.Room.AccountData.MatchesRoom(d.RoomID) {
			continue
		}
		r.accountData = append(r.accountData, d)
	}
}

// addPushRules adds m.push_rules, as it is now, once.
func (a *answering) addPushRules() {
	if !a.Filter.AccountData.MatchesType(storage.PushRules) {
		return
	}
	for i := range a.accountData {
		if a.accountData[i].Type == storage.PushRules {
			return
		}
	}
	content, err := PushRulesContent(a.window.View.Rules, a.UserID)
	if err != nil {
		a.Log.WithError(err).WithField("user", a.UserID).Error("push rules cannot be shown")
		return
	}
	a.accountData = append(a.accountData, storage.AccountData{Type: storage.PushRules, Content: content})
}

// PushRulesContent is the content of m.push_rules.
func PushRulesContent(document *pushrules.Document, user id.UserID) ([]byte, error) {
	return marshal(map[string]any{"global": document.Merge(user)})
}

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
