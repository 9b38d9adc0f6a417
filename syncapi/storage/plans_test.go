package storage

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// small are parts of statements that have few rows: those of a user's own rooms, or of what has changed.
var small = []string{"read", "in_thread", "mine", "updated", "u", "few", "seen", "c"}

// What is read of a room must not take the longer the longer the room is: SQLite has no statistics, and orders joins by the text.
func TestNoReadLooksThroughAWholeRoom(t *testing.T) {
	d := open(t, func(Changes) {})
	for name, test := range map[string]struct {
		stmt *sqlutil.Stmt
		args int
	}{
		"newest": {d.timeline.newest, 4}, "newest up to": {d.timeline.newestUpTo, 4}, "at": {d.timeline.at, 2},
		"since": {d.timeline.since, 3}, "by event": {d.timeline.byEvent, 1},
		"device lists": {d.deviceLists.candidates, 5}, "people": {d.deviceLists.people, 1},
		"seen in": {d.deviceLists.visible, 2},
		"unread":  {d.unread.room, 2}, "unread main": {d.unread.main, 2}, "unread threads": {d.unread.threads, 2},
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
				wholeRoom := strings.HasSuffix(step, "sqlite_autoindex_syncapi_timeline_1 (room_id=?)") ||
					strings.HasSuffix(step, "(room_id=? AND pos<?)") && !strings.HasPrefix(step, "SEARCH last ") &&
						!strings.Contains(step, " syncapi_memberships_pos ") // of a room that somebody has entered or left
				scan, isScan := strings.CutPrefix(step, "SCAN ")
				known := strings.HasPrefix(scan, "json_each") || slices.Contains(small, scan)
				if wholeRoom || isScan && !known {
					t.Errorf("%s, in the plan\n%s", step, strings.Join(steps, "\n"))
				}
			}
		})
	}
}
