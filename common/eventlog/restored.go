package eventlog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// logPart names one partition of a log.
type logPart struct {
	logID string
	part  int64
}

// Ahead tells whether a consumer in one of several snapshots has followed a log further than the snapshot of the log's
// owner has it. Such snapshots are no backup: the consumer would refuse to go on.
func Ahead(ctx context.Context, snapshots []*sqlutil.Snapshot, dbs []*sqlutil.DB) (bool, error) {
	heads, followed := make(map[logPart]int64), make(map[logPart]int64)
	for i, s := range snapshots {
		names, err := Components(ctx, dbs[i])
		if err != nil {
			return false, err
		}
		for _, name := range names {
			err := s.Read(ctx, func(ctx context.Context, tx *sqlutil.Tx) error {
				err := furthest(ctx, tx, named(name, `SELECT t.log_id, c.part, c.head FROM COMPONENT_log_counters c
					JOIN COMPONENT_log_topics t ON t.topic = c.topic`), heads)
				if err != nil {
					return err
				}
				return furthest(ctx, tx, named(name, `SELECT log_id, part, MAX(seq) FROM COMPONENT_log_offsets
					GROUP BY log_id, part`), followed)
			})
			if err != nil {
				return false, fmt.Errorf("comparing the logs of %s: %w", name, err)
			}
		}
	}
	for p, seq := range followed {
		if head, is := heads[p]; is && seq > head {
			return true, nil
		}
	}
	return false, nil
}

func furthest(ctx context.Context, tx *sqlutil.Tx, query string, into map[logPart]int64) error {
	rows, err := tx.DB().Stmt(query).Query(ctx, tx)
	_, err = sqlutil.Collect(rows, err, func(rows *sql.Rows) (seq int64, err error) {
		var p logPart
		if err = rows.Scan(&p.logID, &p.part, &seq); err == nil {
			into[p] = max(into[p], seq)
		}
		return seq, err
	})
	return err
}

// Renew gives all logs in databases that were restored together ids of their own, and their consumers the same. What a
// broker still has of the logs from before, under their old ids, is then never taken for theirs, although new records
// get the same numbers.
func Renew(ctx context.Context, dbs []*sqlutil.DB) error {
	renewed := make(map[string]string) // log ids
	for _, db := range dbs {
		names, err := Components(ctx, db)
		if err != nil {
			return err
		}
		for _, name := range names {
			list := db.Stmt(named(name, `SELECT log_id FROM COMPONENT_log_topics
				UNION SELECT log_id FROM COMPONENT_log_offsets`))
			topics := db.Stmt(named(name, `UPDATE COMPONENT_log_topics SET log_id = $2 WHERE log_id = $1`))
			offsets := db.Stmt(named(name, `UPDATE COMPONENT_log_offsets SET log_id = $2 WHERE log_id = $1`))
			err := db.Write(ctx, "renew logs", func(ctx context.Context, tx *sqlutil.Tx) error {
				rows, err := list.Query(ctx, tx)
				ids, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (id string, err error) {
					return id, rows.Scan(&id)
				})
				for i := 0; i < len(ids) && err == nil; i++ {
					if renewed[ids[i]] == "" {
						renewed[ids[i]] = rand.Text()
					}
					for _, update := range []*sqlutil.Stmt{topics, offsets} {
						if _, err = update.Exec(ctx, tx, ids[i], renewed[ids[i]]); err != nil {
							break
						}
					}
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("renewing the logs of %s: %w", name, err)
			}
		}
	}
	return nil
}
