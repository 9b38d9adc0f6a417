package syncapi_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/filter"
	"github.com/matrix-org/dendrite/syncapi/receipts"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// put writes rows into the tables, and starts syncapi again, which is not told of them.
func (w *world) put(n int, row func(pos int64, c *storage.Changes)) {
	w.t.Helper()
	db, err := storage.New(w.t.Context(), w.db, func(storage.Changes) {})
	if err == nil {
		err = db.Write(w.t.Context(), "rows", n,
			func(_ context.Context, _ *sqlutil.Tx, first int64) (*storage.Changes, error) {
				c := new(storage.Changes)
				for i := range int64(n) {
					row(first+i, c)
				}
				return c, nil
			})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.reopened()
}

// Of the filters that a user uploads the newest are kept.
func TestFiltersHaveABound(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		upload := func(user id.UserID, limit int) string {
			t.Helper()
			return w.must(user, "put_filter", map[string]string{"userId": string(user)},
				kv{"room": kv{"timeline": kv{"limit": limit}}}).Get("filter_id").Str
		}
		get := func(user id.UserID, filterID string) error {
			_, err := w.call(user, "get_filter", map[string]string{"userId": string(user), "filterId": filterID}, "",
				nil)
			return err
		}
		others := upload(bob, 1)
		first, second := upload(alice, 1), upload(alice, 2)
		for i := range filter.MaxKept - 1 {
			upload(alice, 3+i)
			upload(alice, 2) // again is no other one
		}
		if err := get(alice, first); !mxerr.Is(err, "M_NOT_FOUND") {
			t.Errorf("the oldest filter of too many: %v", err)
		}
		for user, filterID := range map[id.UserID]string{alice: second, bob: others} {
			if err := get(user, filterID); err != nil {
				t.Errorf("a filter that %s keeps: %v", user, err)
			}
		}
	})
}

// One user's receipts for threads do not grow without bound: those that were moved longest ago go.
func TestReceiptsForThreadsHaveABound(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		said := w.rooms.say(room1, alice, "a root")
		thread := func() (root, reply id.EventID) {
			root = w.rooms.say(room1, alice, "root")
			return root, w.rooms.put(room1, alice, "m.room.message", nil, kv{"msgtype": "m.text", "body": "reply",
				"m.relates_to": kv{"rel_type": "m.thread", "event_id": root}})
		}
		root, reply := thread()
		w.mustRead(bob, room1, "m.read", reply, kv{"thread_id": string(root)})
		for receiptType, many := range map[string]int{"m.read": receipts.MaxThreads / 2,
			"m.read.private": receipts.MaxThreads} {
			w.put(many, func(pos int64, c *storage.Changes) {
				c.Receipts = append(c.Receipts, storage.Receipt{RoomID: room1, UserID: bob, Type: receiptType,
					Thread: fmt.Sprint("$", pos), Pos: pos, EventID: said, Place: 1, TS: 1})
			})
		}
		last := w.rooms.put(room1, alice, "m.room.message", nil,
			kv{"body": "reply", "m.relates_to": kv{"rel_type": "m.thread", "event_id": root}})
		w.mustRead(bob, room1, "m.read", last, kv{"thread_id": string(root)})
		next, first := thread()
		w.mustRead(bob, room1, "m.read", first, kv{"thread_id": string(next)})
		threads := make(map[string]int)
		for _, e := range in(w.get(bob, ""), "join", room1).Get("ephemeral.events").Array() {
			e.Get("content").ForEach(func(_, types gjson.Result) bool {
				types.ForEach(func(receiptType, users gjson.Result) bool {
					threads[receiptType.Str+users.Get(gjson.Escape(string(bob))).Get("thread_id").Str]++
					return true
				})
				return true
			})
		}
		if len(threads) != receipts.MaxThreads || threads["m.read"+string(next)] != 1 ||
			threads["m.read"+string(root)] != 1 {
			t.Errorf("%d receipts for threads are kept, want %d, those that were moved last among them",
				len(threads), receipts.MaxThreads)
		}
	})
}
