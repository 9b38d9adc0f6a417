package storage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
)

// history is rows of memberships and of changes of keys, as a test makes them.
type history struct {
	users, rooms []string
	memberships  []Membership
	lists        []DeviceList // the last of each user and viewer
	last         int64
}

func (h *history) is(user id.UserID, room id.RoomID, pos int64) (membership string) {
	for _, m := range h.memberships { // in their order
		if m.UserID == user && m.RoomID == room && m.Pos <= pos {
			membership = m.Membership
		}
	}
	return membership
}

func (h *history) sees(viewer, user id.UserID, pos int64) bool {
	return viewer == user || slices.ContainsFunc(h.rooms, func(name string) bool {
		is := h.is(user, id.RoomID(name), pos)
		return h.is(viewer, id.RoomID(name), pos) == "join" && (is == "join" || is == "invite")
	})
}

func (h *history) candidates(viewer id.UserID, s devicelists.Span, updatesUpTo int64) (all []devicelists.Candidate) {
	for _, name := range h.users {
		user := id.UserID(name)
		all = append(all, devicelists.Candidate{UserID: user, Then: h.sees(viewer, user, s.Since),
			Now: h.sees(viewer, user, s.UpTo),
			Updated: slices.ContainsFunc(h.lists, func(l DeviceList) bool {
				return l.UserID == user && (l.Viewer == "" || l.Viewer == viewer) && l.Pos > s.Since && l.Pos <= updatesUpTo
			})})
	}
	return all
}

func newHistory(random *rand.Rand) *history {
	h := new(history)
	for i := range 8 {
		h.users = append(h.users, fmt.Sprintf("@%d:test", i))
	}
	for i := range 5 {
		h.rooms = append(h.rooms, fmt.Sprintf("!%d:test", i))
	}
	for h.last = 1; h.last < 150; h.last++ {
		user := id.UserID(h.users[random.IntN(len(h.users))])
		if random.IntN(3) > 0 {
			h.memberships = append(h.memberships, Membership{UserID: user, Pos: h.last, EventID: "$event",
				RoomID:     id.RoomID(h.rooms[random.IntN(len(h.rooms))]),
				Membership: []string{"join", "join", "invite", "leave", "leave", "ban", "knock"}[random.IntN(7)]})
			continue
		}
		l := DeviceList{UserID: user, Pos: h.last}
		if random.IntN(3) == 0 {
			l.Viewer = id.UserID(h.users[random.IntN(len(h.users))])
		}
		h.lists = slices.DeleteFunc(h.lists, func(old DeviceList) bool {
			return old.UserID == l.UserID && old.Viewer == l.Viewer
		})
		h.lists = append(h.lists, l)
	}
	return h
}

func TestTheStatementOfDeviceListsIsRightForEverySpan(t *testing.T) {
	seed := test.Seed(t)
	each(t, func(t *testing.T, processes []*Database) {
		d := processes[0]
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
		h := newHistory(random)
		err := d.db.Write(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			return d.insert(ctx, tx, &Changes{Memberships: h.memberships, DeviceLists: h.lists})
		})
		if err != nil {
			t.Fatal(err)
		}
		err = d.Read(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
			for range test.Soak(300, 20_000) {
				viewer := id.UserID(h.users[random.IntN(len(h.users))])
				s := devicelists.Span{Since: random.Int64N(h.last)}
				s.UpTo = s.Since + random.Int64N(h.last-s.Since+1)
				updatesUpTo := []int64{s.UpTo, AllUpdates}[random.IntN(2)]
				want := devicelists.Of(h.candidates(viewer, s, updatesUpTo))
				for _, many := range []int{1, manyUpdated} {
					found, err := d.deviceListsOf(ctx, tx, viewer, s, updatesUpTo, many)
					if err != nil {
						return err
					}
					if got := devicelists.Of(found); fmt.Sprint(got) != fmt.Sprint(want) {
						return fmt.Errorf("%s, %+v, many are %d: got %v, want %v", viewer, s, many, got, want)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// A database of the release before has memberships, from which lists are made for tokens of that release.
func TestDeviceListsOfADatabaseOfTheReleaseBefore(t *testing.T) {
	for name, at := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "sync.db") },
		"postgres": func(t *testing.T) string { return test.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: at(t)}, sqlutil.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := db.Migrate(t.Context(), Component, before(t, "008")); err != nil {
				t.Fatal(err)
			}
			const bob, carol = id.UserID("@bob:test"), id.UserID("@carol:test")
			memberships := newMembershipTable(db)
			err = db.Write(t.Context(), "old release", func(ctx context.Context, tx *sqlutil.Tx) error {
				return memberships.put(ctx, tx, []Membership{
					{UserID: alice, RoomID: roomA, Pos: 1, Membership: "join"},
					{UserID: bob, RoomID: roomA, Pos: 2, Membership: "join"},
					{UserID: carol, RoomID: roomA, Pos: 3, Membership: "invite"},
					{UserID: bob, RoomID: roomA, Pos: 4, Membership: "leave"},
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			d, err := New(t.Context(), db, func(Changes) {})
			if err != nil {
				t.Fatal(err)
			}
			found, err := d.DeviceLists(t.Context(), alice, devicelists.Span{Since: 2, UpTo: 5}, 5)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(devicelists.Of(found)); got != "{[@carol:test] [@bob:test]}" {
				t.Errorf("lists: %s, want carol and, left, bob", got)
			}
		})
	}
}
