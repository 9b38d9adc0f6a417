package storage

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// What is read of a room must not take the longer the longer the room is: SQLite has no statistics, and orders joins by the text.
func TestNoReadLooksThroughAWholeRoom(t *testing.T) {
	d := open(t, func(Changes) {})
	r := &d.reads
	for name, test := range map[string]struct {
		stmt *sqlutil.Stmt
		args int
	}{
		"newest": {r.newest, 4}, "newestUpTo": {r.newestUpTo, 4}, "at": {r.at, 2}, "since": {r.since, 3}, "byEvent": {r.byEvent, 1},
		"unread": {r.unread, 2}, "mainUnread": {r.mainUnread, 2}, "threadUnread": {r.threadUnread, 2},
	} {
		t.Run(name, func(t *testing.T) {
			args := make([]any, test.args)
			for i := range args {
				args[i] = "[]"
			}
			plan := d.db.Stmt("EXPLAIN QUERY PLAN " + test.stmt.String())
			var steps []string
			err := d.db.ReadOne(t.Context(), "plan", func(ctx context.Context, tx *sqlutil.Tx) error {
				rows, err := plan.Query(ctx, tx, args...)
				steps, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (step string, err error) {
					var id, parent, unused int
					return step, rows.Scan(&id, &parent, &unused, &step)
				})
				return err
			})
			if err != nil || len(steps) == 0 {
				t.Fatalf("%v, %d steps", err, len(steps))
			}
			for _, step := range steps {
				if strings.HasSuffix(step, "sqlite_autoindex_syncapi_timeline_1 (room_id=?)") || strings.HasSuffix(step, "(room_id=? AND pos<?)") && strings.HasPrefix(step, "SEARCH t") ||
					strings.HasPrefix(step, "SCAN ") && !strings.HasPrefix(step, "SCAN json_each") && step != "SCAN x" && step != "SCAN y" {
					t.Errorf("%s, in the plan\n%s", step, strings.Join(steps, "\n"))
				}
			}
		})
	}
}
