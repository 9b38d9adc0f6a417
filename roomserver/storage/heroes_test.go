package storage

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
)

func opened(t *testing.T, url string) *sqlutil.DB {
	t.Helper()
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: url}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// A database from before heroes had an order gets the order of the events by which its members are what they are.
func TestMembersOfAnOlderDatabaseHaveAnOrder(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "rooms.db") },
		"postgres": func(t *testing.T) string { return test.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			db := opened(t, url(t))
			fill(t, db)
			s, err := New(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			rooms, err := s.SummariesWithHeroes(t.Context(), []id.RoomID{"!room"}, "@a:here")
			if err != nil || len(rooms) != 1 {
				t.Fatalf("%v, %v", rooms, err)
			}
			if want := []id.UserID{"@d:here", "@b:here", "@c:here"}; !slices.Equal(rooms[0].Heroes, want) {
				t.Errorf("heroes %v, want %v", rooms[0].Heroes, want)
			}
		})
	}
}

// fill makes the tables as they were, and a room with four members, who came in the order a, d, b, c, and one who left.
func fill(t *testing.T, db *sqlutil.DB) {
	t.Helper()
	before := make(fstest.MapFS)
	files, err := migrations.ReadDir(".")
	for _, f := range files {
		if text, err := migrations.ReadFile(f.Name()); err == nil && f.Name() < "008" {
			before[f.Name()] = &fstest.MapFile{Data: text}
		}
	}
	if err == nil {
		err = db.Migrate(t.Context(), Component, before)
	}
	if err != nil {
		t.Fatal(err)
	}
	room := db.Stmt(`INSERT INTO roomserver_rooms VALUES (1, '!room', '11', 1, '', '[]', 0, 5, 4, 0, 1)`)
	summary := db.Stmt(`INSERT INTO roomserver_summaries VALUES (1, '', '', '', '', '', '', '', '', '', '')`)
	event := db.Stmt(`INSERT INTO roomserver_events (nid, room_nid, event_id, seg, idx, outcome, flags, root,
		visibility, joined, invited, auth, redacted_by, device_id, txn_id, logged, trace, json)
		VALUES ($1, 1, $2, 0, $3, 0, 0, '', 1, 0, 0, '', '', '', '', 0, '', '')`)
	membership := db.Stmt(`INSERT INTO roomserver_memberships VALUES (1, $1, $2, $3, FALSE)`)
	err = db.Write(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
		_, err := room.Exec(ctx, tx)
		if err == nil {
			_, err = summary.Exec(ctx, tx)
		}
		for i, name := range []string{"a", "d", "e", "b", "c"} {
			is := "join"
			if name == "e" {
				is = "leave"
			}
			if err == nil {
				_, err = event.Exec(ctx, tx, i+1, "$"+name, i+1)
			}
			if err == nil {
				_, err = membership.Exec(ctx, tx, "@"+name+":here", is, "$"+name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Heroes are read through indexes that have them in their order: neither are all members of a room looked at, nor
// sorted.
func TestHeroesAreReadInTheOrderOfAnIndex(t *testing.T) {
	db := opened(t, "file:"+filepath.Join(t.TempDir(), "rooms.db"))
	s, err := New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var plan []string
	err = db.ReadOne(t.Context(), "plan", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := db.Stmt("EXPLAIN QUERY PLAN "+s.heroes.String()).Query(ctx, tx, "[]", "")
		plan, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (step string, err error) {
			var id, parent, unused int
			return step, rows.Scan(&id, &parent, &unused, &step)
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	steps := strings.Join(plan, "\n")
	for _, index := range []string{"roomserver_memberships_present", "roomserver_memberships_gone"} {
		if !strings.Contains(steps, "SEARCH m USING INDEX "+index+" (room_nid=?)") {
			t.Errorf("the plan does not use %s:\n%s", index, steps)
		}
	}
	// What is sorted are the five that were found.
	if n := strings.Count(steps, "USE TEMP B-TREE"); n > 2 {
		t.Errorf("the plan sorts %d times:\n%s", n, steps)
	}
}
