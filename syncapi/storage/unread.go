package storage

import (
	"context"
	"database/sql"
	"strings"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/syncapi/pushrules"
)

// Unread is what counts after the place up to which a user has read a room, or one thread of it, or what is in no
// thread.
type Unread struct {
	RoomID id.RoomID
	Thread id.EventID
	Place  int64
	// Total is what all events of the room count, read or not.
	Total Counts
	// ForAll is what counts for everybody by the default rules, Own what counts for this user beyond the class, and
	// Frozen what stood when the class changed.
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

type unreadStatements struct{ room, main, threads *sqlutil.Stmt }

// The texts have these in common. {…} stands for what differs; $1 is the user, $2 the rooms.
const (
	// reachText is the last place that receipts of the user reach. A receipt for an event that came later, which has no
	// order, finds it now; until then it reaches as far as the one before it. The comparison of rooms keeps SQLite from
	// looking through the whole room.
	reachText = `COALESCE((
		SELECT MAX(CASE WHEN receipt.seg <> 0 OR receipt.idx <> 0 THEN receipt.place
		ELSE GREATEST(receipt.place, COALESCE((
			SELECT MAX(late.pos) FROM syncapi_timeline late
			WHERE late.event_id = receipt.event_id AND late.room_id || '' = receipt.room_id), 0)) END)
		FROM syncapi_receipts receipt
		WHERE receipt.room_id = {room} AND receipt.user_id = $1 AND {which receipts}), 0)`

	// readText begins a statement with the rooms, and the place up to which the user has read each: the last of their
	// own events, or of their receipts. It is MATERIALIZED, since SQLite would find the place anew wherever it is used.
	readText = `WITH read AS MATERIALIZED (
		SELECT room.room_id, room.n AS notify, room.h AS highlight, room.mn AS main_notify, room.mh AS main_highlight,
		GREATEST(
			COALESCE((SELECT MAX(own.pos) FROM syncapi_timeline own WHERE {own event} AND own.flags >= 1024), 0),
			` + reachText + `) AS place
		FROM syncapi_rooms room WHERE room.room_id = ANY($2))`

	ownText = `own.room_id = room.room_id AND own.sender = $1`
	// Postgres' index has a hash of both. As a CASE they do not look like something to look through the room for.
	ownPostgresText = `hashtextextended(own.room_id || own.sender, 0) = hashtextextended(room.room_id || $1::text, 0)
		AND CASE WHEN own.room_id = room.room_id THEN own.sender = $1 END`

	// roomText counts whole rooms. What stood when the user's rules changed (frozen) holds as long as nothing of it is
	// read: how much of it that is, nobody knows then. From there on, what counts is what has come since.
	roomText = readText + `
		SELECT read.room_id, '' AS thread, read.place,
		read.notify - COALESCE(frozen.bn, last_read.n, 0) + COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = '' AND mention.at > COALESCE(frozen.pos, read.place)), 0)::bigint AS all_notify,
		read.highlight - COALESCE(frozen.bh, last_read.h, 0) + COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = '' AND mention.at > COALESCE(frozen.pos, read.place)), 0)::bigint AS all_highlight,
		COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = $1 AND mention.at > COALESCE(frozen.pos, read.place)), 0)::bigint AS own_notify,
		COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = $1 AND mention.at > COALESCE(frozen.pos, read.place)), 0)::bigint AS own_highlight,
		COALESCE(frozen.n, 0) AS frozen_notify, COALESCE(frozen.h, 0) AS frozen_highlight,
		read.notify AS total_notify, read.highlight AS total_highlight,
		EXISTS (SELECT 1 FROM syncapi_receipts receipt
			WHERE receipt.room_id = read.room_id AND receipt.user_id = $1 AND receipt.thread <> '') AS threaded
		FROM read
		LEFT JOIN syncapi_timeline last_read ON last_read.room_id = read.room_id AND last_read.pos = read.place
		LEFT JOIN syncapi_frozen frozen ON frozen.room_id = read.room_id AND frozen.user_id = $1
			AND frozen.pos > read.place AND frozen.place = read.place`

	// mainText counts what is in no thread.
	mainText = readText + `
		SELECT read.room_id, '' AS thread, read.place,
		read.main_notify - COALESCE(last_read.mn, 0) + COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = '' AND mention.thread = '' AND mention.at > read.place), 0)::bigint AS all_notify,
		read.main_highlight - COALESCE(last_read.mh, 0) + COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = '' AND mention.thread = '' AND mention.at > read.place), 0)::bigint AS all_highlight,
		COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = $1 AND mention.thread = '' AND mention.at > read.place), 0)::bigint AS own_notify,
		COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = read.room_id
			AND mention.user_id = $1 AND mention.thread = '' AND mention.at > read.place), 0)::bigint AS own_highlight,
		0 AS frozen_notify, 0 AS frozen_highlight,
		read.notify AS total_notify, read.highlight AS total_highlight, FALSE AS threaded
		FROM read
		LEFT JOIN syncapi_timeline last_read ON last_read.room_id = read.room_id AND last_read.pos = read.place`

	// threadsText counts each thread that has something after the place of its room. Its own place is that of the room,
	// or where a receipt of the thread reaches further.
	threadsText = readText + `,
		in_thread AS MATERIALIZED (
			SELECT newest.room_id, newest.thread, newest.tn AS notify, newest.th AS highlight,
			GREATEST(read.place, {thread reach}) AS place
			FROM read JOIN syncapi_timeline newest
			ON newest.room_id = read.room_id AND newest.thread <> '' AND newest.pos > read.place
			AND newest.pos = (SELECT MAX(last.pos) FROM syncapi_timeline last
				WHERE last.room_id = newest.room_id AND last.thread = newest.thread AND last.thread <> ''))
		SELECT in_thread.room_id, in_thread.thread, in_thread.place,
		in_thread.notify - COALESCE((
			SELECT before.tn FROM syncapi_timeline before WHERE before.room_id = in_thread.room_id
			AND before.thread = in_thread.thread AND before.thread <> '' AND before.pos <= in_thread.place
			ORDER BY before.pos DESC LIMIT 1), 0) + COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = in_thread.room_id
			AND mention.user_id = '' AND mention.thread = in_thread.thread AND mention.at > in_thread.place), 0)::bigint
			AS all_notify,
		in_thread.highlight - COALESCE((
			SELECT before.th FROM syncapi_timeline before WHERE before.room_id = in_thread.room_id
			AND before.thread = in_thread.thread AND before.thread <> '' AND before.pos <= in_thread.place
			ORDER BY before.pos DESC LIMIT 1), 0) + COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = in_thread.room_id
			AND mention.user_id = '' AND mention.thread = in_thread.thread AND mention.at > in_thread.place), 0)::bigint
			AS all_highlight,
		COALESCE((
			SELECT SUM(mention.n) FROM syncapi_mentions mention WHERE mention.room_id = in_thread.room_id
			AND mention.user_id = $1 AND mention.thread = in_thread.thread AND mention.at > in_thread.place), 0)::bigint
			AS own_notify,
		COALESCE((
			SELECT SUM(mention.h) FROM syncapi_mentions mention WHERE mention.room_id = in_thread.room_id
			AND mention.user_id = $1 AND mention.thread = in_thread.thread AND mention.at > in_thread.place), 0)::bigint
			AS own_highlight,
		0 AS frozen_notify, 0 AS frozen_highlight, 0 AS total_notify, 0 AS total_highlight, FALSE AS threaded
		FROM in_thread`
)

func newUnreadStatements(db *sqlutil.DB) unreadStatements {
	own := ownText
	if db.Dialect() == sqlutil.Postgres {
		own = ownPostgresText
	}
	threadReach := strings.NewReplacer("{room}", "newest.room_id", "{which receipts}", "receipt.thread = newest.thread")
	text := func(text, receipts string) *sqlutil.Stmt {
		return db.Stmt(strings.NewReplacer("{own event}", own, "{room}", "room.room_id", "{which receipts}", receipts,
			"{thread reach}", threadReach.Replace(reachText)).Replace(text))
	}
	return unreadStatements{
		room:    text(roomText, "receipt.thread = ''"),
		main:    text(mainText, "receipt.thread IN ('', 'main')"),
		threads: text(threadsText, "receipt.thread = ''"),
	}
}

// Unread counts rooms, threads included. Where the user has read threads by themselves, it is the sum of what each
// counts.
func (d *Database) Unread(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	unread, err := d.countUnread(ctx, tx, d.unread.room, user, rooms)
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
	for _, parts := range []*sqlutil.Stmt{d.unread.main, d.unread.threads} {
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
	return d.countUnread(ctx, tx, d.unread.main, user, rooms)
}

// UnreadThreads counts each thread that has something after the place of the room.
func (d *Database) UnreadThreads(ctx context.Context, tx *sqlutil.Tx, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	return d.countUnread(ctx, tx, d.unread.threads, user, rooms)
}

func (d *Database) countUnread(ctx context.Context, tx *sqlutil.Tx, query *sqlutil.Stmt, user id.UserID, rooms []id.RoomID) ([]Unread, error) {
	rows, err := query.Query(ctx, tx, user, sqlutil.Array(rooms))
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Unread, error) {
		var u Unread
		return u, rows.Scan(&u.RoomID, &u.Thread, &u.Place, &u.ForAll.Notify, &u.ForAll.Highlight, &u.Own.Notify, &u.Own.Highlight,
			&u.Frozen.Notify, &u.Frozen.Highlight, &u.Total.Notify, &u.Total.Highlight, &u.threaded)
	})
}
