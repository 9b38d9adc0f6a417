package storage

import (
	"context"
	"database/sql"
	"math"
	"strings"

	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// searchKeys are the keys that can be searched, as the columns of the index have them.
var searchKeys = []string{"body", "name", "topic"}

type search struct {
	progress, begin, move *sqlutil.Stmt
	logged                *sqlutil.Stmt
	index, unindex        *sqlutil.Stmt
	byRank, byTime        *sqlutil.Stmt
	dialect               sqlutil.Dialect
}

func newSearch(db *sqlutil.DB) search {
	s := search{
		dialect:  db.Dialect(),
		progress: db.Stmt(`SELECT part, seq FROM roomserver_search_progress`),
		begin:    db.Stmt(`INSERT INTO roomserver_search_progress (part, seq) VALUES ($1, 0) ON CONFLICT (part) DO NOTHING`),
		move:     db.Stmt(`UPDATE roomserver_search_progress SET seq = $3 WHERE part = $1 AND seq = $2`),
		logged: db.Stmt(`SELECT e.seq, e.flags, ` + eventColumns + ` FROM roomserver_events e JOIN roomserver_rooms r ON r.nid = e.room_nid
			WHERE e.part = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3`),
	}
	// Ranks are made of the event's own words. bm25 would count those of all events of the server, and so tell
	// everybody of them.
	from := `SELECT e.nid, e.room_nid, e.seg, e.idx, e.sent, ts_rank(s.words, q)::float8 AS score
		FROM roomserver_search s, plainto_tsquery('simple', $1) q, roomserver_events e
		WHERE s.words @@ q AND e.nid = s.nid AND s.key = ANY($3)`
	key := `nid`
	if s.dialect == sqlutil.SQLite {
		// The words of a match are counted beside it: a join with their counts would look through all of them for
		// each match.
		from = `SELECT e.nid, e.room_nid, e.seg, e.idx, e.sent, CAST(m.words AS REAL) AS score FROM (
				SELECT nid, SUM(word) AS words FROM (
					SELECT rowid AS nid, 0 AS word FROM roomserver_search WHERE roomserver_search MATCH $1
					UNION ALL SELECT doc, 1 FROM roomserver_search_words WHERE term = ANY($3)
				) GROUP BY nid HAVING MIN(word) = 0
			) m JOIN roomserver_events e ON e.nid = m.nid WHERE TRUE`
		key = `rowid`
		s.index = db.Stmt(`INSERT INTO roomserver_search (rowid, body, name, topic) VALUES ($1, $2, $3, $4)`)
	} else {
		s.index = db.Stmt(`INSERT INTO roomserver_search (nid, key, words) VALUES ($1, $2, to_tsvector('simple', $3))`)
	}
	from += ` AND e.room_nid = ANY($2)`
	s.unindex = db.Stmt(`DELETE FROM roomserver_search WHERE ` + key + ` = ANY($1)`)
	from = `SELECT * FROM (` + from + `) found `
	// Of equal ranks the newest is first: numbers of events in different rooms have no order of their own.
	s.byRank = db.Stmt(from + `WHERE (score, sent, nid) < ($4, $5, $6)
		ORDER BY score DESC, sent DESC, nid DESC LIMIT $7`)
	s.byTime = db.Stmt(from + `WHERE (sent, nid) < ($4, $5) ORDER BY sent DESC, nid DESC LIMIT $6`)
	return s
}

// Logged is an event with its place in the log of a partition.
type Logged struct {
	*Event
	Seq     int64
	Redacts bool // it is a redaction that took effect
}

// LoggedEvents reads the log of a partition after a sequence.
func (s *Storage) LoggedEvents(ctx context.Context, partition int32, after int64, limit int) (all []Logged, err error) {
	err = s.DB.ReadOne(ctx, "logged events", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.logged.Query(ctx, tx, partition, after, limit)
		all, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (l Logged, err error) {
			var flags int64
			l.Event, err = scanEvent(prefixed{rows, []any{&l.Seq, &flags}})
			l.Redacts = flags&flagRedacts != 0
			return l, err
		})
		return err
	})
	return all, err
}

// SearchProgress is the sequence up to which each partition is indexed.
func (s *Storage) SearchProgress(ctx context.Context) (map[int32]int64, error) {
	progress := make(map[int32]int64)
	err := s.DB.ReadOne(ctx, "search progress", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := s.search.progress.Query(ctx, tx)
		_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
			var partition int32
			var seq int64
			err = rows.Scan(&partition, &seq)
			progress[partition] = seq
			return none, err
		})
		return err
	})
	return progress, err
}

// Document is what is indexed of an event.
type Document struct {
	NID   stateres.EventNID
	Key   string // body, name or topic
	Words string // separated by spaces
}

// Index adds documents and removes those of events, and notes that a partition is indexed from one sequence up to another. It is false,
// and nothing is done, where another process was quicker.
func (s *Storage) Index(ctx context.Context, partition int32, from, to int64, add []Document, remove []stateres.EventNID) (done bool, err error) {
	err = s.DB.Write(ctx, "index for search", func(ctx context.Context, tx *sqlutil.Tx) error {
		done = false
		if from == 0 {
			if _, err := s.search.begin.Exec(ctx, tx, partition); err != nil {
				return err
			}
		}
		if n, err := s.search.move.Exec(ctx, tx, partition, from, to); err != nil || n == 0 {
			return err
		}
		done = true
		for _, d := range add {
			args := []any{d.NID, d.Key, d.Words}
			if s.dialect == sqlutil.SQLite {
				args = []any{d.NID, "", "", ""}
				for i, key := range searchKeys {
					if key == d.Key {
						args[i+1] = d.Words
					}
				}
			}
			if _, err := s.search.index.Exec(ctx, tx, args...); err != nil {
				return err
			}
		}
		if len(remove) == 0 {
			return nil
		}
		_, err := s.search.unindex.Exec(ctx, tx, sqlutil.Array(remove))
		return err
	})
	return done, err
}

// Found is an event that matches a search, and how well. Its place in its room is what the viewer's access is
// compared with.
type Found struct {
	NID     stateres.EventNID
	RoomNID int64
	Order   api.OrderKey
	Sent    int64
	Rank    float64
}

// BeforeFound comes before all that is found.
func BeforeFound() Found {
	return Found{NID: math.MaxInt64, Sent: math.MaxInt64, Rank: math.MaxFloat64}
}

// Search finds events that have all words under one of the keys, in some rooms: the best, or the newest ones, first,
// those after one.
func (s *Storage) Search(ctx context.Context, words, keys []string, rooms []int64, newest bool, after Found,
	limit int) (page []Found, err error) {
	query, more := strings.Join(words, " "), keys
	if s.dialect == sqlutil.SQLite {
		query, more = `{`+strings.Join(keys, " ")+`} : ("`+strings.Join(words, `" "`)+`")`, words
	}
	stmt, args := s.byRank, []any{query, sqlutil.Array(rooms), sqlutil.Array(more)}
	if newest {
		stmt = s.byTime
	} else {
		args = append(args, after.Rank)
	}
	args = append(args, after.Sent, after.NID, limit)
	err = s.DB.ReadOne(ctx, "search", func(ctx context.Context, tx *sqlutil.Tx) error {
		rows, err := stmt.Query(ctx, tx, args...)
		page, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (f Found, err error) {
			return f, rows.Scan(&f.NID, &f.RoomNID, &f.Order.Segment, &f.Order.Index, &f.Sent, &f.Rank)
		})
		return err
	})
	return page, err
}
