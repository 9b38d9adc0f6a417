package answer

import (
	"context"
	"slices"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// read reads what is wanted. It may run again, where a connection was lost.
func (a *answering) read(ctx context.Context, tx *sqlutil.Tx, wanted *wants) error {
	a.forgetRead()
	rows, err := a.readChanged(ctx, tx, wanted)
	if err != nil {
		return err
	}
	if err := a.readRows(ctx, tx, rows, wanted); err != nil {
		return err
	}
	if err := a.readRoots(ctx, tx); err != nil {
		return err
	}
	if err := a.readReceipts(ctx, tx, wanted.receipts, a.since.Pos); err != nil {
		return err
	}
	if err := a.readReceipts(ctx, tx, wanted.allReceipts, 0); err != nil {
		return err
	}
	if err := a.readAccountData(ctx, tx, wanted); err != nil {
		return err
	}
	return a.readUnread(ctx, tx)
}

// forgetRead takes away what an attempt before this one has read.
func (a *answering) forgetRead() {
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
}

// readChanged reads what rooms are now, and returns those whose rows since the token are wanted: of the rooms of which
// it was not known whether they have changed, those that have.
func (a *answering) readChanged(ctx context.Context, tx *sqlutil.Tx, w *wants) ([]id.RoomID, error) {
	if len(w.changed)+len(w.now) == 0 {
		return w.rows, nil
	}
	found, err := a.Storage.Rooms(ctx, tx, slices.Concat(w.changed, w.now))
	if err != nil {
		return nil, err
	}
	for name, now := range found {
		a.rooms[name].now = &now
	}
	rows := slices.Clip(w.rows)
	for _, name := range w.changed {
		r := a.rooms[name]
		r.rowsFrom = nothing
		if r.now != nil && r.now.Pos > a.since.Pos {
			r.rowsFrom = stored
			rows = append(rows, name)
		}
	}
	return rows, nil
}

// readRows reads the newest rows of rooms: since the token, of rooms that are new to the client, and of rooms that the
// user has left.
func (a *answering) readRows(ctx context.Context, tx *sqlutil.Tx, since []id.RoomID, w *wants) error {
	n, _ := a.limits()
	for _, part := range []struct {
		rooms []id.RoomID
		after int64
	}{{since, a.since.Pos}, {w.anewRows, 0}} {
		if len(part.rooms) == 0 {
			continue
		}
		rows, err := a.Storage.Newest(ctx, tx, part.rooms, part.after, a.window.UpTo, n)
		if err != nil {
			return err
		}
		a.addRows(rows, part.rooms)
	}
	if len(w.leftRows) == 0 {
		return nil
	}
	rows, err := a.Storage.NewestUpTo(ctx, tx, a.UserID, w.leftRows, a.since.Pos, n)
	a.addRows(rows, nil)
	return err
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
func (a *answering) readRoots(ctx context.Context, tx *sqlutil.Tx) error {
	n, _ := a.limits()
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

// needsRootSince tells whether it matters which state the client has: what it gets then are differences. Who loads
// members lazily gets those of members in any case.
func (a *answering) needsRootSince(r *room) bool {
	return a.joinedAt(r.id, a.since.Pos) && (!r.full || a.Filter.LazyLoadMembers())
}

// readReceipts reads the receipts of rooms that changed after a position.
func (a *answering) readReceipts(ctx context.Context, tx *sqlutil.Tx, rooms []id.RoomID, after int64) error {
	if len(rooms) == 0 {
		return nil
	}
	receipts, err := a.Storage.Receipts(ctx, tx, a.UserID, rooms, after, a.window.UpTo)
	for _, receipt := range receipts {
		r := a.rooms[receipt.RoomID]
		r.receipts = append(r.receipts, receipt)
	}
	return err
}

// readAccountData reads what changed since the token, or all where a room is new to the client.
func (a *answering) readAccountData(ctx context.Context, tx *sqlutil.Tx, w *wants) error {
	after := a.since.Pos
	switch {
	case w.allAccountData:
		after = 0
	case !w.accountData:
		return nil
	}
	data, err := a.Storage.AccountData(ctx, tx, a.UserID, after, a.window.UpTo)
	if err != nil {
		return err
	}
	a.addAccountData(data)
	return nil
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
		f := a.Filter.Room.AccountData
		if r == nil || !isNew && !r.kind.anew() || !f.MatchesType(d.Type) || !f.MatchesRoom(d.RoomID) {
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
