package storage

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Heroes are read through indexes that have them in their order: neither are all members of a room looked at, nor sorted.
func TestHeroesAreReadInTheOrderOfAnIndex(t *testing.T) {
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "rooms.db")}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
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
	t.Log(steps)
}
