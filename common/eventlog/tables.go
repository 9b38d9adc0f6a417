package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// The tables of a component's database, as producer and as consumer. COMPONENT stands for its name.
const schema = `
CREATE TABLE IF NOT EXISTS COMPONENT_log_topics (topic TEXT PRIMARY KEY, log_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS COMPONENT_log_counters (topic TEXT NOT NULL, part BIGINT NOT NULL, head BIGINT NOT NULL, PRIMARY KEY (topic, part)) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS COMPONENT_log_rows (topic TEXT NOT NULL, part BIGINT NOT NULL, seq BIGINT NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL, ts BIGINT NOT NULL, value BYTEA NOT NULL, trace TEXT NOT NULL, PRIMARY KEY (topic, part, seq));
CREATE TABLE IF NOT EXISTS COMPONENT_log_leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch BIGINT NOT NULL, expires BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS COMPONENT_log_offsets (consumer TEXT NOT NULL, part BIGINT NOT NULL, log_id TEXT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (consumer, part)) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS COMPONENT_log_parked (consumer TEXT NOT NULL, part BIGINT NOT NULL, seq BIGINT NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL, ts BIGINT NOT NULL, value BYTEA NOT NULL, error TEXT NOT NULL, PRIMARY KEY (consumer, part, seq));
CREATE INDEX IF NOT EXISTS COMPONENT_log_parked_keys ON COMPONENT_log_parked (consumer, part, key, seq);
CREATE TABLE IF NOT EXISTS COMPONENT_log_retries (consumer TEXT NOT NULL, part BIGINT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (consumer, part, key));
CREATE TABLE IF NOT EXISTS COMPONENT_log_consumers (topic TEXT NOT NULL, component TEXT NOT NULL, consumer TEXT NOT NULL, part BIGINT NOT NULL, seq BIGINT NOT NULL, reported BIGINT NOT NULL, PRIMARY KEY (topic, component, consumer, part));
CREATE TABLE IF NOT EXISTS COMPONENT_log_pruned (topic TEXT NOT NULL, part BIGINT NOT NULL, seq BIGINT NOT NULL, due BIGINT NOT NULL, since BIGINT NOT NULL, PRIMARY KEY (topic, part));
`

type producerTables struct {
	logID       *sqlutil.Stmt
	insertLogID *sqlutil.Insert
	counters    *sqlutil.Insert
	take        *sqlutil.Stmt
	takeAll     *sqlutil.Insert
	heads       *sqlutil.Stmt
	head        *sqlutil.Stmt
	rows        *sqlutil.Insert
	read        *sqlutil.Stmt
	insertLease *sqlutil.Insert
	takeLease   *sqlutil.Stmt
	renewLease  *sqlutil.Stmt

	queue     *sqlutil.Stmt
	note      *sqlutil.Insert
	noted     *sqlutil.Stmt
	needed    *sqlutil.Stmt
	marks     *sqlutil.Stmt
	mark      *sqlutil.Insert
	prune     *sqlutil.Stmt
	followers *sqlutil.Stmt
	forget    *sqlutil.Stmt
}

type consumerTables struct {
	insertOffset *sqlutil.Insert
	one          *sqlutil.Stmt
	offsets      *sqlutil.Stmt
	move         *sqlutil.Stmt
	park         *sqlutil.Insert
	keys         *sqlutil.Stmt
	parked       *sqlutil.Stmt
	unpark       *sqlutil.Stmt
	logIDs       *sqlutil.Stmt
	askRetry     *sqlutil.Insert
	retries      *sqlutil.Stmt
	retried      *sqlutil.Stmt
	allOffsets   *sqlutil.Stmt
	dead         *sqlutil.Stmt
	drop         *sqlutil.Stmt
}

func named(component, text string) string { return strings.ReplaceAll(text, "COMPONENT", component) }

func newProducerTables(db *sqlutil.DB, component string) producerTables {
	stmt := func(text string) *sqlutil.Stmt { return db.Stmt(named(component, text)) }
	return producerTables{
		logID:       stmt(`SELECT log_id FROM COMPONENT_log_topics WHERE topic = $1`),
		insertLogID: db.Insert(component+"_log_topics", []string{"topic", "log_id"}, "ON CONFLICT (topic) DO NOTHING"),
		counters:    db.Insert(component+"_log_counters", []string{"topic", "part", "head"}, "ON CONFLICT (topic, part) DO NOTHING"),
		take:        stmt(`UPDATE COMPONENT_log_counters SET head = head + $3 WHERE topic = $1 AND part = $2 RETURNING head`),
		// The rows are there: it takes their locks one after the other, in the order of its values.
		takeAll: db.Insert(component+"_log_counters", []string{"topic", "part", "head"}, named(component,
			`ON CONFLICT (topic, part) DO UPDATE SET head = COMPONENT_log_counters.head + excluded.head RETURNING part, head`)),
		heads: stmt(`SELECT part, head FROM COMPONENT_log_counters WHERE topic = $1`),
		head:  stmt(`SELECT head FROM COMPONENT_log_counters WHERE topic = $1 AND part = $2`),
		rows:  db.Insert(component+"_log_rows", []string{"topic", "part", "seq", "key", "type", "ts", "value", "trace"}, ""),
		read: stmt(`SELECT seq, key, type, ts, value, trace FROM COMPONENT_log_rows
			WHERE topic = $1 AND part = $2 AND seq >= $3 ORDER BY seq LIMIT $4`),
		insertLease: db.Insert(component+"_log_leases", []string{"name", "holder", "epoch", "expires"}, "ON CONFLICT (name) DO NOTHING"),
		takeLease: stmt(`UPDATE COMPONENT_log_leases SET holder = $2, epoch = epoch + 1, expires = NOW_MS() + $3
			WHERE name = $1 AND expires <= NOW_MS() RETURNING epoch`),
		renewLease: stmt(`UPDATE COMPONENT_log_leases SET expires = NOW_MS() + $4 WHERE name = $1 AND holder = $2 AND epoch = $3`),

		queue: stmt(`UPDATE COMPONENT_log_topics SET log_id = log_id WHERE topic = $1`),
		note: db.Insert(component+"_log_consumers", []string{"topic", "component", "consumer", "part", "seq", "reported"},
			"ON CONFLICT (topic, component, consumer, part) DO UPDATE SET seq = excluded.seq, reported = excluded.reported"),
		noted:  stmt(`SELECT part, seq FROM COMPONENT_log_consumers WHERE topic = $1 AND component = $2 AND consumer = $3`),
		needed: stmt(`SELECT part, MIN(seq) FROM COMPONENT_log_consumers WHERE topic = $1 GROUP BY part`),
		marks:  stmt(`SELECT part, seq, due, since FROM COMPONENT_log_pruned WHERE topic = $1`),
		mark: db.Insert(component+"_log_pruned", []string{"topic", "part", "seq", "due", "since"},
			"ON CONFLICT (topic, part) DO UPDATE SET seq = excluded.seq, due = excluded.due, since = excluded.since"),
		prune: stmt(`DELETE FROM COMPONENT_log_rows WHERE topic = $1 AND part = $2 AND seq <= $3`),
		followers: stmt(`SELECT f.topic, f.component, f.consumer, f.part, f.seq, f.reported, c.head FROM COMPONENT_log_consumers f
			JOIN COMPONENT_log_counters c ON c.topic = f.topic AND c.part = f.part`),
		forget: stmt(`DELETE FROM COMPONENT_log_consumers WHERE component = $1 AND consumer = $2`),
	}
}

func newConsumerTables(db *sqlutil.DB, component string) consumerTables {
	stmt := func(text string) *sqlutil.Stmt { return db.Stmt(named(component, text)) }
	return consumerTables{
		insertOffset: db.Insert(component+"_log_offsets", []string{"consumer", "part", "log_id", "seq"}, "ON CONFLICT (consumer, part) DO NOTHING"),
		one:          stmt(`SELECT log_id, seq FROM COMPONENT_log_offsets WHERE consumer = $1 AND part = $2`),
		offsets:      stmt(`SELECT part, seq FROM COMPONENT_log_offsets WHERE consumer = $1`),
		move:         stmt(`UPDATE COMPONENT_log_offsets SET seq = $4 WHERE consumer = $1 AND part = $2 AND seq = $3`),
		park: db.Insert(component+"_log_parked",
			[]string{"consumer", "part", "seq", "topic", "key", "type", "ts", "value", "error"}, "ON CONFLICT (consumer, part, seq) DO NOTHING"),
		keys: stmt(`SELECT DISTINCT key FROM COMPONENT_log_parked WHERE consumer = $1 AND part = $2`),
		parked: stmt(`SELECT seq, topic, type, ts, value FROM COMPONENT_log_parked
			WHERE consumer = $1 AND part = $2 AND key = $3 AND seq > $4 ORDER BY seq LIMIT $5`),
		unpark:     stmt(`DELETE FROM COMPONENT_log_parked WHERE consumer = $1 AND part = $2 AND seq = $3`),
		logIDs:     stmt(`SELECT DISTINCT log_id FROM COMPONENT_log_offsets WHERE consumer = $1`),
		askRetry:   db.Insert(component+"_log_retries", []string{"consumer", "part", "key"}, "ON CONFLICT (consumer, part, key) DO NOTHING"),
		retries:    stmt(`SELECT part, key FROM COMPONENT_log_retries WHERE consumer = $1`),
		retried:    stmt(`DELETE FROM COMPONENT_log_retries WHERE consumer = $1 AND part = $2 AND key = $3`),
		allOffsets: stmt(`SELECT consumer, part, seq FROM COMPONENT_log_offsets`),
		dead: stmt(`SELECT d.consumer, d.part, d.topic, d.key, d.n, p.error, p.ts FROM COMPONENT_log_parked p
			JOIN (SELECT consumer, part, topic, key, COUNT(*) AS n, MIN(seq) AS first FROM COMPONENT_log_parked GROUP BY consumer, part, topic, key) d
			ON p.consumer = d.consumer AND p.part = d.part AND p.seq = d.first ORDER BY d.consumer, d.part, d.first`),
		drop: stmt(`DELETE FROM COMPONENT_log_parked WHERE consumer = $1 AND part = $2 AND key = $3`),
	}
}

type offset struct {
	logID string
	seq   int64
}

func (t *consumerTables) offset(ctx context.Context, tx *sqlutil.Tx, consumer string, p int32) (o offset, err error) {
	return o, t.one.QueryRow(ctx, tx, consumer, p).Scan(&o.logID, &o.seq)
}

func (t *consumerTables) keysParked(ctx context.Context, tx *sqlutil.Tx, consumer string, p int32, into map[string]bool) error {
	rows, err := t.keys.Query(ctx, tx, consumer, p)
	keys, err := sqlutil.Collect(rows, err, func(rows *sql.Rows) (key string, err error) { return key, rows.Scan(&key) })
	for _, key := range keys {
		into[key] = true
	}
	return err
}

func (t *consumerTables) parkedRecords(ctx context.Context, tx *sqlutil.Tx, consumer string, p int32, key string,
	after int64) ([]Record, error) {
	rows, err := t.parked.Query(ctx, tx, consumer, p, key, after, parkedPage)
	return sqlutil.Collect(rows, err, func(rows *sql.Rows) (Record, error) {
		r := Record{Partition: p, Key: key}
		return r, rows.Scan(&r.Seq, &r.Topic, &r.Type, &r.Time, (*[]byte)(&r.Value))
	})
}

// createTables makes the tables of a component's log, if they are not there.
func createTables(ctx context.Context, db *sqlutil.DB, component string) error {
	if err := db.Script(ctx, named(component, schema)); err != nil {
		return fmt.Errorf("tables of the log of %s: %w", component, err)
	}
	return nil
}

func scanPairs(rows *sql.Rows, into []int64) error {
	defer rows.Close() //nolint:errcheck // rows.Err says what there is to say
	for rows.Next() {
		if err := scanPair(rows, into); err != nil {
			return err
		}
	}
	return rows.Err()
}

func scanPair(rows *sql.Rows, into []int64) error {
	var part, value int64
	if err := rows.Scan(&part, &value); err != nil {
		return err
	}
	if part >= 0 && part < int64(len(into)) {
		into[part] = value
	}
	return nil
}
