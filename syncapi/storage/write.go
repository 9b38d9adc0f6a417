package storage

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

type writeStatements struct {
	rooms, timeline, memberships, mentions, frozen, receipts, accountData, filter *sqlutil.Insert

	filterID, surplusFilters *sqlutil.Stmt
}

func newWriteStatements(db *sqlutil.DB) writeStatements {
	return writeStatements{
		rooms: db.Insert("syncapi_rooms",
			[]string{"room_id", "version", "pos", "seg", "idx", "root", "joined", "invited", "n", "h", "mn", "mh"},
			`ON CONFLICT (room_id) DO UPDATE SET pos = excluded.pos, seg = excluded.seg, idx = excluded.idx, root = excluded.root,
			 joined = excluded.joined, invited = excluded.invited, n = excluded.n, h = excluded.h, mn = excluded.mn, mh = excluded.mh`),
		timeline: db.Insert("syncapi_timeline", []string{"room_id", "pos", "event_id", "seg", "idx", "type", "sender", "flags", "thread",
			"root_before", "root_after", "joined", "invited", "n", "h", "mn", "mh", "tn", "th"}, ""),
		memberships: db.Insert("syncapi_memberships",
			[]string{"user_id", "room_id", "pos", "membership", "event_id", "sender", "root", "stripped"}, ""),
		mentions: db.Insert("syncapi_mentions", []string{"user_id", "room_id", "at", "pos", "thread", "n", "h"}, ""),
		frozen: db.Insert("syncapi_frozen", []string{"user_id", "room_id", "pos", "place", "n", "h", "bn", "bh"},
			`ON CONFLICT (user_id, room_id) DO UPDATE SET pos = excluded.pos, place = excluded.place, n = excluded.n, h = excluded.h,
			 bn = excluded.bn, bh = excluded.bh`),
		receipts: db.Insert("syncapi_receipts", []string{"room_id", "user_id", "type", "thread", "pos", "event_id", "seg", "idx", "place", "ts"},
			`ON CONFLICT (room_id, user_id, type, thread) DO UPDATE SET pos = excluded.pos, event_id = excluded.event_id,
			 seg = excluded.seg, idx = excluded.idx, place = excluded.place, ts = excluded.ts`),
		accountData: db.Insert("syncapi_account_data", []string{"user_id", "room_id", "type", "pos", "content"},
			`ON CONFLICT (user_id, room_id, type) DO UPDATE SET pos = excluded.pos, content = excluded.content`),
		filter: db.Insert("syncapi_filters", []string{"user_id", "hash", "content"}, "ON CONFLICT (user_id, hash) DO NOTHING"),
		surplusFilters: db.Stmt(`DELETE FROM syncapi_filters WHERE id IN (SELECT id FROM syncapi_filters
			WHERE user_id = $1 AND id <> $2 ORDER BY id DESC LIMIT 1000000 OFFSET $3)`),
		filterID: db.Stmt(`SELECT id FROM syncapi_filters WHERE user_id = $1 AND hash = $2`),
	}
}

// insert writes all rows, each table's with one statement. Of rows with one key the last counts.
func (d *Database) insert(ctx context.Context, tx *sqlutil.Tx, c *Changes) error {
	w := &d.writes
	for _, table := range []struct {
		insert *sqlutil.Insert
		rows   [][]any
	}{
		{w.rooms, last(c.Rooms, func(r *Room) any { return r.RoomID }, func(r *Room) []any {
			return []any{r.RoomID, r.Version, r.Pos, r.Order.Segment, r.Order.Index, r.Root[:], r.Joined, r.Invited,
				r.All.Notify, r.All.Highlight, r.Main.Notify, r.Main.Highlight}
		})},
		{w.timeline, last(c.Timeline, func(r *TimelineRow) any { return r.Pos }, func(r *TimelineRow) []any {
			return []any{r.RoomID, r.Pos, r.EventID, r.Order.Segment, r.Order.Index, r.Type, r.Sender, r.Flags, r.Thread,
				r.RootBefore[:], r.RootAfter[:], r.Joined, r.Invited, r.All.Notify, r.All.Highlight, r.Main.Notify, r.Main.Highlight,
				r.InThread.Notify, r.InThread.Highlight}
		})},
		{w.memberships, last(c.Memberships, func(m *Membership) any { return [3]any{m.UserID, m.RoomID, m.Pos} }, func(m *Membership) []any {
			return []any{m.UserID, m.RoomID, m.Pos, m.Membership, m.EventID, m.Sender, m.Root[:], strippedText(m.Stripped)}
		})},
		{w.mentions, last(c.Mentions, func(m *Mention) any { return [4]any{m.UserID, m.RoomID, m.At, m.Pos} }, func(m *Mention) []any {
			return []any{m.UserID, m.RoomID, m.At, m.Pos, m.Thread, m.Counts.Notify, m.Counts.Highlight}
		})},
		{w.frozen, last(c.Frozen, func(f *Frozen) any { return [2]any{f.UserID, f.RoomID} }, func(f *Frozen) []any {
			return []any{f.UserID, f.RoomID, f.Pos, f.Place, f.Counts.Notify, f.Counts.Highlight, f.Base.Notify, f.Base.Highlight}
		})},
		{w.receipts, last(c.Receipts, func(r *Receipt) any { return [4]any{r.RoomID, r.UserID, r.Type, r.Thread} }, func(r *Receipt) []any {
			return []any{r.RoomID, r.UserID, r.Type, r.Thread, r.Pos, r.EventID, r.Order.Segment, r.Order.Index, r.Place, r.TS}
		})},
		{w.accountData, last(c.AccountData, func(a *AccountData) any { return [3]any{a.UserID, a.RoomID, a.Type} }, func(a *AccountData) []any {
			return []any{a.UserID, a.RoomID, a.Type, a.Pos, string(a.Content)}
		})},
	} {
		if len(table.rows) == 0 {
			continue
		}
		if _, err := table.insert.Exec(ctx, tx, table.rows); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	return nil
}

// last makes rows of values, of several with one key only the last: one statement may touch a row once.
func last[T any](values []T, key func(*T) any, row func(*T) []any) [][]any {
	rows := make([][]any, 0, len(values))
	var at map[any]int
	if len(values) > 1 {
		at = make(map[any]int, len(values))
	}
	for i := range values {
		if at != nil {
			k := key(&values[i])
			if before, has := at[k]; has {
				rows[before] = row(&values[i])
				continue
			}
			at[k] = len(rows)
		}
		rows = append(rows, row(&values[i]))
	}
	return rows
}

func strippedText(state []json.RawMessage) string {
	if len(state) == 0 {
		return ""
	}
	text, err := json.Marshal(state)
	if err != nil {
		return "" // an event that is not JSON was never stored
	}
	return string(text)
}

// MaxFilters is how many filters a user has. A client whose filter is gone is told so, and uploads it again.
const MaxFilters = 100

// PutFilter keeps a filter and returns its number; the same filter has the same number. The oldest ones go, beyond MaxFilters.
func (d *Database) PutFilter(ctx context.Context, user id.UserID, hash []byte, content []byte) (filterID int64, err error) {
	err = d.db.Write(ctx, "filter", func(ctx context.Context, tx *sqlutil.Tx) error {
		if _, err := d.writes.filter.Exec(ctx, tx, [][]any{{user, hash, string(content)}}); err != nil {
			return err
		}
		if err := d.writes.filterID.QueryRow(ctx, tx, user, hash).Scan(&filterID); err != nil {
			return err
		}
		_, err := d.writes.surplusFilters.Exec(ctx, tx, user, filterID, MaxFilters-1)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("store filter: %w", err)
	}
	return filterID, nil
}
