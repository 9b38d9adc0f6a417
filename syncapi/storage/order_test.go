package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	roomserver "github.com/matrix-org/dendrite/roomserver/api"
)

const (
	alice = id.UserID("@alice:test")
	roomA = id.RoomID("!a:test")
)

// each runs a test on SQLite and on Postgres. On Postgres there are two handles, as two processes have them.
func each(t *testing.T, body func(t *testing.T, processes []*Database)) {
	t.Run("sqlite", func(t *testing.T) {
		body(t, []*Database{openAt(t, "file:"+filepath.Join(t.TempDir(), "sync.db"), func(Changes) {})})
	})
	t.Run("postgres", func(t *testing.T) {
		at := test.Postgres(t)
		body(t, []*Database{openAt(t, at, func(Changes) {}), openAt(t, at, func(Changes) {})})
	})
}

// member is a write of a group.
func member(name string, fn func(tx *sqlutil.Tx)) *write {
	return &write{ctx: context.Background(), name: name, done: make(chan struct{}),
		fn: func(_ context.Context, tx *sqlutil.Tx) error {
			fn(tx)
			return nil
		}}
}

// together commits writes as one group.
func together(t *testing.T, d *Database, writes ...func(tx *sqlutil.Tx)) {
	t.Helper()
	group := make([]*write, len(writes))
	for i, fn := range writes {
		group[i] = member(strconv.Itoa(i), fn)
	}
	d.commitGroup(group)
	for _, w := range group {
		if w.err != nil {
			t.Fatalf("write %s: %v", w.name, w.err)
		}
	}
}

// addTo is a place that adds a word to a list in a user's account data.
func addTo(d *Database, user id.UserID, word string) Place {
	return func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*Changes, error) {
		words, err := list(ctx, tx, d, user)
		if err != nil {
			return nil, err
		}
		content, err := json.Marshal(append(words, word))
		return &Changes{AccountData: []AccountData{{UserID: user, Type: "list", Pos: pos, Content: content}}}, err
	}
}

func list(ctx context.Context, tx *sqlutil.Tx, d *Database, user id.UserID) (words []string, err error) {
	content, err := d.AccountDataOne(ctx, tx, user, "", "list")
	if err != nil || content == nil {
		return nil, err
	}
	return words, json.Unmarshal(content, &words)
}

func TestAWriteThatReadsSeesWhatItsGroupWroteBefore(t *testing.T) {
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		// says is a consumer's batch: blind rows of a room.
		says := func(n int64) func(tx *sqlutil.Tx) {
			return func(tx *sqlutil.Tx) {
				Add(tx, 1, func(_ context.Context, _ *sqlutil.Tx, pos int64) (*Changes, error) {
					counts := Counts{Notify: n}
					return &Changes{
						Rooms: []Room{{RoomID: roomA, Version: "11", Pos: pos, All: counts, Main: counts}},
						Timeline: []TimelineRow{{RoomID: roomA, Pos: pos, EventID: id.EventID(fmt.Sprintf("$%d", n)),
							Order: roomserver.OrderKey{Index: n}, All: counts, Main: counts}},
						Mentions: []Mention{
							{UserID: alice, RoomID: roomA, At: pos, Pos: pos, Counts: Counts{Highlight: 1}},
						},
					}, nil
				})
			}
		}
		// freezes is what a change of push rules does: it keeps what is counted so far.
		var frozen []Frozen
		freezes := func(tx *sqlutil.Tx) {
			AddReading(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*Changes, error) {
				unread, err := d.Unread(ctx, tx, alice, []id.RoomID{roomA})
				if err == nil && len(unread) != 1 {
					err = fmt.Errorf("%d rooms are counted", len(unread))
				}
				if err != nil {
					return nil, err
				}
				rooms, err := d.Rooms(ctx, tx, []id.RoomID{roomA})
				if err != nil {
					return nil, err
				}
				f := Frozen{UserID: alice, RoomID: roomA, Pos: pos, Place: unread[0].Place, Base: rooms[roomA].All,
					Counts: unread[0].Own.Plus(unread[0].ForAll)}
				frozen = append(frozen, f)
				return &Changes{Frozen: []Frozen{f}}, nil
			})
		}
		adds := func(word string) func(tx *sqlutil.Tx) {
			return func(tx *sqlutil.Tx) { AddReading(tx, 1, addTo(d, alice, word)) }
		}
		together(t, d, says(1), says(2), adds("one"), freezes, adds("two"), says(3), adds("three"))
		want := Frozen{UserID: alice, RoomID: roomA, Base: Counts{Notify: 2}, Counts: Counts{Notify: 2, Highlight: 2}}
		if len(frozen) != 1 {
			t.Fatalf("frozen %d times", len(frozen))
		}
		if got := frozen[0]; got.Base != want.Base || got.Counts != want.Counts {
			t.Errorf("frozen at %+v of %+v, want %+v of %+v", got.Counts, got.Base, want.Counts, want.Base)
		}
		err := d.Read(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			words, err := list(ctx, tx, d, alice)
			if !slices.Equal(words, []string{"one", "two", "three"}) {
				t.Errorf("the list is %v", words)
			}
			if err != nil {
				return err
			}
			unread, err := d.Unread(ctx, tx, alice, []id.RoomID{roomA})
			if err != nil {
				return err
			}
			u := &unread[0]
			if u.ForAll.Plus(u.Own).Plus(u.Frozen) != (Counts{Notify: 3, Highlight: 3}) {
				t.Errorf("unread: %+v, want 3 notifications and 3 highlights in all", u)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// What Place promises: whatever order concurrent writes get, each has seen all that come before it, and none is lost.
func TestOfConcurrentWritesThatReadEachHasSeenThoseBefore(t *testing.T) {
	seed := test.Seed(t)
	each(t, func(t *testing.T, processes []*Database) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
		const writers, rounds, users = 16, 12, 3
		var mu sync.Mutex
		type step struct {
			pos, saw int64 // the position of the write, and that of the one that it has seen last
		}
		steps := make(map[id.UserID][]step)
		var all sync.WaitGroup
		for w := range writers {
			d := processes[w%len(processes)]
			var plan [rounds]id.UserID
			for i := range plan {
				plan[i] = id.UserID(fmt.Sprintf("@%d:test", random.IntN(users)))
			}
			all.Go(func() {
				for _, user := range plan {
					var s step
					place := func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*Changes, error) {
						s = step{pos: pos}
						last, err := d.AccountDataOne(ctx, tx, user, "", "last")
						if err == nil && last != nil {
							s.saw, err = strconv.ParseInt(string(last), 10, 64)
						}
						now := strconv.AppendInt(nil, pos, 10)
						row := AccountData{UserID: user, Type: "last", Pos: pos, Content: now}
						return &Changes{AccountData: []AccountData{row}}, err
					}
					if err := d.Write(t.Context(), "test", 1, place); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					steps[user] = append(steps[user], s)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		for user, chain := range steps {
			slices.SortFunc(chain, func(a, b step) int { return int(a.pos - b.pos) })
			before := int64(0)
			for _, s := range chain {
				if s.saw != before {
					t.Fatalf("%s: the write at %d has seen the one at %d, want that at %d", user, s.pos, s.saw, before)
				}
				before = s.pos
			}
		}
	})
}

func TestAWriteThatFailsLeavesTheOthersOfItsGroupInOrder(t *testing.T) {
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		var group []*write
		for i := range 6 {
			group = append(group, member(strconv.Itoa(i), func(tx *sqlutil.Tx) {
				AddReading(tx, 1, func(ctx context.Context, tx *sqlutil.Tx, pos int64) (*Changes, error) {
					if i == 3 {
						return nil, errors.New("refused")
					}
					return addTo(d, alice, strconv.Itoa(i))(ctx, tx, pos)
				})
			}))
		}
		d.commitGroup(group)
		for i, w := range group {
			if failed := w.err != nil; failed != (i == 3) {
				t.Errorf("write %d: %v", i, w.err)
			}
		}
		err := d.Read(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			words, err := list(ctx, tx, d, alice)
			if !slices.Equal(words, []string{"0", "1", "2", "4", "5"}) {
				t.Errorf("the list is %v", words)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
