package accountdata

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

const (
	alice = id.UserID("@alice:here")
	known = id.RoomID("!known:here") // also with something behind
)

// world is a service, with its database.
type world struct {
	*Service
	t  *testing.T
	db *sqlutil.DB
}

func databases(t *testing.T, body func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { body(t, newWorld(t, "file:"+filepath.Join(t.TempDir(), "sync.db"))) })
	t.Run("postgres", func(t *testing.T) { body(t, newWorld(t, test.Postgres(t))) })
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	store, err := storage.New(t.Context(), db, func(storage.Changes) {})
	must(t, err)
	rooms := &roomserver.RoomserverAPI{
		QueryMembership: func(_ context.Context,
			req roomserver.QueryMembershipRequest) (res roomserver.QueryMembershipResponse, err error) {
			if strings.HasPrefix(string(req.RoomID), string(known)) {
				res.Membership = "leave"
			}
			return res, nil
		},
	}
	return &world{&Service{Storage: store, Room: rooms}, t, db}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// of is content of so many bytes.
func of(bytes int) json.RawMessage {
	const frame = `{"x":""}`
	return json.RawMessage(`{"x":"` + strings.Repeat("x", bytes-len(frame)) + `"}`)
}

// before puts what a user kept before there was a quota.
func (w *world) before(n int, entry func(i int) storage.AccountData) {
	w.t.Helper()
	must(w.t, w.write(w.t.Context(), "before", n, func(ctx context.Context, tx *sqlutil.Tx, one *writing) error {
		for i := range n {
			e := entry(i)
			replace := func(json.RawMessage) (json.RawMessage, error) { return e.Content, nil }
			if err := one.change(ctx, tx, key{alice, e.RoomID, e.Type}, replace, w.within(math.MaxInt64)); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestTheCostOfAnEntryIsTheSameAmongMany(t *testing.T) {
	databases(t, func(t *testing.T, w *world) {
		const n, most = 100, 4 // the position, the old content, the quota, the new content
		must(t, w.Put(t.Context(), alice, "", "x.growing", of(10)))
		must(t, w.PutTag(t.Context(), alice, known, "u.work", of(10)))
		for _, many := range []int{n, 10 * n} {
			w.before(many, func(i int) storage.AccountData {
				return storage.AccountData{Type: fmt.Sprint("x.", i), Content: of(100)}
			})
			for name, write := range map[string]func() error{
				"growing":   func() error { return w.Put(t.Context(), alice, "", "x.growing", of(20+many)) },
				"shrinking": func() error { return w.Put(t.Context(), alice, "", "x.growing", of(10)) },
				"a tag":     func() error { return w.PutTag(t.Context(), alice, known, "u.work", of(20+many/10)) },
			} {
				must(t, write()) // what is asked first, is prepared
				must(t, w.Put(t.Context(), alice, "", "x.growing", of(15)))
				before := w.db.Count()
				must(t, write())
				if cost := w.db.Count().Since(before); cost.Statements > most || cost.Rows > 3 {
					t.Errorf("%s among %d costs %v, want at most %d statements", name, many, cost, most)
				}
			}
		}
	})
}

// Whoever has more than the quota since before there was one, may keep it and make it smaller.
func TestWhoIsBeyondTheQuotaMayShrink(t *testing.T) {
	databases(t, func(t *testing.T, w *world) {
		const large, n = 1_000_000, 12
		w.before(n, func(i int) storage.AccountData {
			return storage.AccountData{Type: fmt.Sprint("x.", i), Content: of(large)}
		})
		tags := make(map[string]json.RawMessage)
		for i := range 10 * MaxTags {
			tags[fmt.Sprint("u.", i)] = of(MaxTagBytes)
		}
		content, err := json.Marshal(map[string]any{"tags": tags})
		must(t, err)
		w.before(1, func(int) storage.AccountData {
			return storage.AccountData{RoomID: "!nosuch:room", Type: Tags, Content: content}
		})
		refused := func(what, errcode string, err error) {
			t.Helper()
			if !mxerr.Is(err, errcode) {
				t.Errorf("%s: %v, want %s", what, err, errcode)
			}
		}
		refused("one more", "M_TOO_LARGE", w.Put(t.Context(), alice, "", "x.more", of(10)))
		refused("one that grows", "M_TOO_LARGE", w.Put(t.Context(), alice, "", "x.0", of(large+1)))
		refused("one more tag", "M_TOO_LARGE", w.PutTag(t.Context(), alice, "!nosuch:room", "u.more", of(10)))
		must(t, w.DeleteTag(t.Context(), alice, "!nosuch:room", "u.1"))
		must(t, w.Put(t.Context(), alice, "!nosuch:room", Tags, of(10)))
		refused("a tag of a room that is not the user's", "M_FORBIDDEN",
			w.PutTag(t.Context(), alice, "!nosuch:room", "u.more", of(100)))
		for i := range n {
			must(t, w.Put(t.Context(), alice, "", fmt.Sprint("x.", i), of(large)))
			must(t, w.Put(t.Context(), alice, "", fmt.Sprint("x.", i), json.RawMessage(`{}`)))
		}
		must(t, w.Put(t.Context(), alice, "", "x.more", of(large)))
	})
}
