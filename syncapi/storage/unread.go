package storage

import (
	"context"
	"database/sql"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
)

// Unread is what counts after the place up to which a user has read a room, or one thread of it, or what is in no thread.
type Unread struct {
	RoomID id.RoomID
	Thread id.EventID
	Place  int64
	// Total is what all events of the room count, read or not.
	Total Counts
	// ForAll is what counts for everybody by the default rules, Own what counts for this user beyond the class, and Frozen what
	// stood when the class changed.
	ForAll, Own, Frozen Counts

	threaded bool // the user has receipts of threads
}

// Of is what is unread for somebody with these rules.
func (u *Unread) Of(rules *pushrules.Document) Counts {
	counts := u.Own.Plus(u.Frozen)
	switch class, _ := rules.Classify(u.RoomID); class {
	case pushrules.ClassDefault:
		counts = counts.Plus(u.ForAll)
	case pushrules.ClassMentions:
		counts = counts.Plus(Counts{Notify: u.ForAll.Highlight, Highlight: u.ForAll.Highlight})
	}
	return Counts{Notify: max(counts.Notify, 0), Highlight: max(counts.Highlight, 0)}
}

// withPlaces begins a statement with x, a table of rooms with the place up to which user $1 has read: the last of their own events, or of
// their receipts as far as these are in threads that the condition selects. It is MATERIALIZED, since SQLite would find the place anew wherever it is used.
func withPlaces(db *sqlutil.DB, receipts string) string {
	own := `o.room_id = r.room_id AND o.sender = $1`
	if db.Dialect() == sqlutil.Postgres { // its index has a hash of both; as a CASE they do not look like something to look through the room for
		own = `hashtextextended(o.room_id || o.sender, 0) = hashtextextended(r.room_id || $1::text, 0)
			AND CASE WHEN o.room_id = r.room_id THEN o.sender = $1 END`
	}
	return `WITH x AS MATERIALIZED (SELECT r.room_id, r.n, r.h, r.mn, r.mh, GREATEST(
		COALESCE((SELECT MAX(o.pos) FROM syncapi_timeline o WHERE ` + own + ` AND o.flags >= 1024), 0),
		` + receiptPlace("r.room_id", receipts) + `) AS place FROM syncapi_rooms r WHERE r.room_id = ANY($2)) `
}

// receiptPlace is the last place that receipts of user $1 reach. A receipt for an event that came later, which has no order, finds
// it now; until then it reaches as far as the one before it. The comparison of rooms keeps SQLite from looking through the whole room.
func receiptPlace(room, condition string) string {
	return `COALESCE((SELECT MAX(CASE WHEN c.seg <> 0 OR c.idx <> 0 THEN c.place ELSE GREATEST(c.place, COALESCE(
		(SELECT MAX(e.pos) FROM syncapi_timeline e WHERE e.event_id = c.event_id AND e.room_id || '' = c.room_id), 0)) END)
		FROM syncapi_receipts c WHERE c.room_id = ` + room + ` AND c.user_id = $1 AND ` + condition + `), 0)`
}

func mentions(column, room, user, condition string) string {
	return `COALESCE((SELECT SUM(e.` + column + `) FROM syncapi_mentions e WHERE e.room_id = ` + room + ` AND e.user_id = ` + user + ` AND ` + condition + `), 0)::bigint`
}

func unreadTexts(db *sqlutil.DB, r *readStatements) {
	// What stood when the user's rules changed holds as long as nothing of it is read: how much of it that is, nobody knows then.
	after := `e.at > COALESCE(f.pos, x.place)`
	r.unread = db.Stmt(withPlaces(db, "c.thread = ''") + `SELECT x.room_id, '', x.place,
		x.n - COALESCE(f.bn, p.n, 0) + ` + mentions("n", "x.room_id", "''", after) + `,
		x.h - COALESCE(f.bh, p.h, 0) + ` + mentions("h", "x.room_id", "''", after) + `,
		` + mentions("n", "x.room_id", "$1", after) + `, ` + mentions("h", "x.room_id", "$1", after) + `,
		COALESCE(f.n, 0), COALESCE(f.h, 0), x.n, x.h,
		EXISTS (SELECT 1 FROM syncapi_receipts c WHERE c.room_id = x.room_id AND c.user_id = $1 AND c.thread <> '')
		FROM x
		LEFT JOIN syncapi_timeline p ON p.room_id = x.room_id AND p.pos = x.place
		LEFT JOIN syncapi_frozen f ON f.room_id = x.room_id AND f.user_id = $1 AND f.pos > x.place AND f.place = x.place`)

	main := `e.thread = '' AND e.at > x.place`
	r.mainUnread = db.Stmt(withPlaces(db, "c.thread IN ('', 'main')") + `SELECT x.room_id, '', x.place, x.mn - COALESCE(p.mn, 0) + ` + mentions("n", "x.room_id", "''", main) + `,
		x.mh - COALESCE(p.mh, 0) + ` + mentions("h", "x.room_id", "''", main) + `,
		` + mentions("n", "x.room_id", "$1", main) + `, ` + mentions("h", "x.room_id", "$1", main) + `, 0, 0, x.n, x.h, FALSE
		FROM x
		LEFT JOIN syncapi_timeline p ON p.room_id = x.room_id AND p.pos = x.place`)

	thread := `e.thread = y.thread AND e.at > y.place`
	before := func(column string) string {
		return `COALESCE((SELECT b.` + column + ` FROM syncapi_timeline b WHERE b.room_id = y.room_id AND b.thread = y.thread
			AND b.thread <> '' AND b.pos <= y.place ORDER BY b.pos DESC LIMIT 1), 0)`
	}
	r.threadUnread = db.Stmt(withPlaces(db, "c.thread = ''") + `, y AS MATERIALIZED (
			SELECT t.room_id, t.thread, t.tn, t.th, GREATEST(x.place, ` + receiptPlace("t.room_id", "c.thread = t.thread") + `) AS place
			FROM x JOIN syncapi_timeline t ON t.room_id = x.room_id AND t.thread <> '' AND t.pos > x.place
			AND t.pos = (SELECT MAX(l.pos) FROM syncapi_timeline l WHERE l.room_id = t.room_id AND l.thread = t.thread AND l.thread <> ''))
		SELECT y.room_id, y.thread, y.place, y.tn - ` + before("tn") + ` + ` + mentions("n", "y.room_id", "''", thread) + `,
		y.th - ` + before("th") + ` + ` + mentions("h", "y.room_id", "''", thread) + `,
		` + mentions("n", "y.room_id", "$1", thread) + `, ` + mentions("h", "y.room_id", "$1", thread) + `, 0, 0, 0, 0, FALSE
		FROM y`)
}

// Unread counts rooms, threads included. Where the user has read threads by themselves, it is the sum of what each counts.
func (d *Database) Unread(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	unread, err := d.countUnread(ctx, tx, d.reads.unread, user, rooms)
	if err != nil {
		return nil, err
	}
	var threaded []id.RoomID
	sums := make(map[id.RoomID]*Unread)
	for i := range unread {
		if u := &unread[i]; u.threaded {
			threaded = append(threaded, u.RoomID)
			sums[u.RoomID] = u
			u.ForAll, u.Own, u.Frozen = Counts{}, Counts{}, Counts{}
		}
	}
	if len(threaded) == 0 {
		return unread, nil
	}
	for _, parts := range []*sqlutil.Stmt{d.reads.mainUnread, d.reads.threadUnread} {
		counts, err := d.countUnread(ctx, tx, parts, user, threaded)
		if err != nil {
			return nil, err
		}
		for i := range counts {
			u := sums[counts[i].RoomID]
			u.ForAll, u.Own = u.ForAll.Plus(counts[i].ForAll), u.Own.Plus(counts[i].Own)
		}
	}
	return unread, nil
}

// UnreadMain counts what is in no thread.
func (d *Database) UnreadMain(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	return d.countUnread(ctx, tx, d.reads.mainUnread, user, rooms)
}

// UnreadThreads counts each thread that has something after the place of the room.
func (d *Database) UnreadThreads(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	return d.countUnread(ctx, tx, d.reads.threadUnread, user, rooms)
}

func (d *Database) countUnread(ctx context.Context, tx *sqlutil.Tx, query *sqlutil.Stmt, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	rows, err := query.Query(ctx, tx, user, sqlutil.Array(rooms))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Unread, error) {
		var u Unread
		return u, rows.Scan(&u.RoomID, &u.Thread, &u.Place, &u.ForAll.Notify, &u.ForAll.Highlight, &u.Own.Notify, &u.Own.Highlight,
			&u.Frozen.Notify, &u.Frozen.Highlight, &u.Total.Notify, &u.Total.Highlight, &u.threaded)
	})
}
