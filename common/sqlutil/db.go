// Package sqlutil is the one way to the databases: SQL is written once, for Postgres, and rewritten for SQLite when it is
// prepared; a transaction is a closure that only runs statements.
//
// What the closure of Write or Read needs from elsewhere is fetched, built and signed before. Its context is marked
// (common/txguard): an rpc, a request or another transaction inside it fails at once. Postgres transactions are READ COMMITTED,
// retried on serialization failures (so the closure may run again), and what makes a write correct is a conditional UPDATE,
// never a lock. SQLite has one writer, which commits the closures that wait together as one transaction, and many readers,
// each with a snapshot.
package sqlutil

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/txguard"
)

// Dialect is which database it is.
type Dialect int

// The dialects.
const (
	SQLite Dialect = iota
	Postgres
)

// DefaultTimeout ends a transaction that has no earlier deadline.
const DefaultTimeout = 60 * time.Second

// Options say which database, and how many connections.
type Options struct {
	// ConnectionString is postgresql://… or file:PATH.
	ConnectionString string
	// MaxOpenConns limits Postgres connections, and SQLite readers; 0 means a default.
	MaxOpenConns int
	// ConnectTimeout is how long Open tries to reach a Postgres; 0 means until its context ends.
	ConnectTimeout time.Duration
	// Look makes no tables, for who only looks at a database.
	Look bool
}

// Deps are what a DB reports to. Each may be left out.
type Deps struct {
	Log        *logrus.Entry
	Registerer prometheus.Registerer
	Tracer     opentracing.Tracer
}

// DB is a database.
type DB struct {
	dialect Dialect
	pool    *sql.DB // Postgres; or the readers of SQLite
	maxIdle int
	writer  *writer // SQLite only
	deps    Deps
	metrics *metrics
	counter Counter
	fail    atomic.Pointer[func(string) error]
	gate    atomic.Pointer[func() error]
	ids     idSequences
	// unwritable says that the last write failed because there was no room for it.
	unwritable atomic.Bool
}

// ErrCommitUnknown says that a connection broke during COMMIT: the transaction may have taken place. A caller whose
// transaction has a witness of its success (a request key, a conditional offset or version) runs it again.
var ErrCommitUnknown = errors.New("the database went away during COMMIT: whether it took place is unknown")

// ErrUnreachable says that a Postgres did not answer in the time that Open had.
var ErrUnreachable = errors.New("the database cannot be reached")

// Open opens a database and waits, with backoff, for a Postgres that cannot be reached yet.
func Open(ctx context.Context, o Options, deps Deps) (*DB, error) {
	if deps.Log == nil {
		silent := logrus.New()
		silent.SetLevel(logrus.PanicLevel)
		deps.Log = logrus.NewEntry(silent)
	}
	if deps.Tracer == nil {
		deps.Tracer = opentracing.NoopTracer{}
	}
	db := &DB{deps: deps, metrics: newMetrics(deps.Registerer)}
	switch {
	case strings.HasPrefix(o.ConnectionString, "postgres://"), strings.HasPrefix(o.ConnectionString, "postgresql://"):
		db.dialect = Postgres
		if err := db.openPostgres(ctx, o); err != nil {
			return nil, err
		}
	case strings.HasPrefix(o.ConnectionString, "file:"):
		if err := db.openSQLite(ctx, o); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("the connection string of the database must begin with postgresql:// or file")
	}
	if o.Look {
		return db, nil
	}
	if err := db.createIDs(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (db *DB) openPostgres(ctx context.Context, o Options) error {
	dsn, err := postgresDSN(o.ConnectionString)
	if err != nil {
		return err
	}
	if db.pool, err = sql.Open("postgres", dsn); err != nil {
		return fmt.Errorf("database connection string: %w", err)
	}
	conns := o.MaxOpenConns
	if conns == 0 {
		conns = 20
	}
	db.maxIdle = conns
	db.pool.SetMaxOpenConns(conns)
	db.pool.SetMaxIdleConns(conns)
	if o.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.ConnectTimeout)
		defer cancel()
	}
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := db.pool.PingContext(ctx)
		if err == nil {
			return nil
		}
		if refused := new(pq.Error); errors.As(err, &refused) && refused.Code.Class() != "57" && refused.Code.Class() != "53" {
			return fmt.Errorf("database: %w: check user, password and database name in the connection string", err)
		}
		db.deps.Log.WithError(err).WithField("again_in", wait).Warn("the database cannot be reached: is it running, and does database.connection_string name its host and port?")
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: %w: check that it runs "+
				"and that database.connection_string names its host and port", ErrUnreachable, err), db.pool.Close())
		case <-time.After(wait):
		}
	}
}

// postgresDSN adds what every connection needs.
func postgresDSN(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("database connection string: %w", err)
	}
	q := u.Query()
	// One round trip for a statement that is not prepared.
	q.Set("binary_parameters", "yes")
	if !q.Has("sslmode") {
		q.Set("sslmode", "prefer")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Dialect tells which database it is.
func (db *DB) Dialect() Dialect { return db.dialect }

// Ping tells whether the database answers, and, where the last write failed because there was no room for it, whether
// one succeeds now.
func (db *DB) Ping(ctx context.Context) error {
	if _, err := Within(ctx, func() (struct{}, error) { return struct{}{}, db.pool.PingContext(ctx) }); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	if db.unwritable.Load() {
		if err := db.probe(ctx); err != nil {
			return fmt.Errorf("nothing can be written: make room on the disk of the database: %w", err)
		}
	}
	return nil
}

// closeFor is how long the end of the connections to a Postgres may take. They end with the process in any case.
const closeFor = 250 * time.Millisecond

// Close ends all connections, after the transactions of SQLite that are under way. The writer of SQLite is the last: it
// brings what is in the log beside the file into the file.
func (db *DB) Close() error {
	if db.writer != nil {
		return errors.Join(db.pool.Close(), db.writer.close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeFor)
	defer cancel()
	_, err := Within(ctx, func() (struct{}, error) { return struct{}{}, db.pool.Close() })
	if isConnectionLost(err) || ctx.Err() != nil {
		err = nil // they are closed then, or nobody is there who could be told
	}
	return err
}

// SetGate makes writes ask first whether they may take place, both when they begin and, on Postgres, before their
// COMMIT.
func (db *DB) SetGate(gate func() error) { db.gate.Store(&gate) }

func (db *DB) passGate() error {
	if gate := db.gate.Load(); gate != nil {
		return (*gate)()
	}
	return nil
}

// SetFailpoints makes named steps fail, for tests that crash between any two of them. nil ends it.
func (db *DB) SetFailpoints(fail func(name string) error) {
	if fail == nil {
		db.fail.Store(nil)
		return
	}
	db.fail.Store(&fail)
}

// Failpoint is passed at each named step.
func (db *DB) Failpoint(name string) error {
	if fail := db.fail.Load(); fail != nil {
		return (*fail)(name)
	}
	return nil
}

// Write runs fn in a transaction that may change things. fn only runs statements, and may run more than once.
func (db *DB) Write(ctx context.Context, name string, fn func(ctx context.Context, tx *Tx) error) error {
	if err := txguard.Check(ctx, "a transaction "+name); err != nil {
		return err
	}
	if err := db.passGate(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	ctx, done := db.begin(ctx, name)
	var err error
	if db.writer != nil {
		err = db.writer.do(ctx, name, fn)
	} else {
		err = db.retry(ctx, func() error { return db.postgresTx(ctx, name, nil, fn) })
	}
	done(err)
	db.noteRoom(err)
	return unavailable(err)
}

// Read runs fn in a transaction that changes nothing; all its statements see one snapshot.
func (db *DB) Read(ctx context.Context, name string, fn func(ctx context.Context, tx *Tx) error) error {
	if err := txguard.Check(ctx, "a transaction "+name); err != nil {
		return err
	}
	ctx, done := db.begin(ctx, name)
	var err error
	if db.dialect == SQLite {
		err = db.sqliteRead(ctx, name, fn)
	} else {
		snapshot := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
		err = db.retry(ctx, func() error { return db.postgresTx(ctx, name, snapshot, fn) })
	}
	done(err)
	return unavailable(err)
}

// ReadOne is Read for a single statement: it saves the round trips of BEGIN and COMMIT.
func (db *DB) ReadOne(ctx context.Context, name string, fn func(ctx context.Context, tx *Tx) error) error {
	if err := txguard.Check(ctx, "a query "+name); err != nil {
		return err
	}
	ctx, done := db.begin(ctx, name)
	err := db.retry(ctx, func() error {
		return fn(txguard.Mark(ctx, name), &Tx{db: db, name: name, prepare: func(_ context.Context, s *Stmt) (*sql.Stmt, error) { return s.onPool() }})
	})
	done(err)
	return unavailable(err)
}

// begin gives the transaction its deadline and its span. A wait for the network is the caller's; the statements of SQLite are not
// interruptible, so its transactions last as long as they last.
func (db *DB) begin(ctx context.Context, name string) (context.Context, func(error)) {
	started := time.Now()
	cancel := func() {}
	if _, has := ctx.Deadline(); !has {
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
	}
	var span opentracing.Span
	if parent := opentracing.SpanFromContext(ctx); parent != nil {
		span = db.deps.Tracer.StartSpan("sql "+name, opentracing.ChildOf(parent.Context()))
		ctx = opentracing.ContextWithSpan(ctx, span)
	}
	return ctx, func(err error) {
		cancel()
		if span != nil {
			span.SetTag("error", err != nil)
			span.Finish()
		}
		db.metrics.observe(name, time.Since(started), err)
	}
}

// How often a transaction is run again. Connections are lost while a Postgres is started anew: the waits for it add up to some 3 s.
const (
	retriesSerialization = 5
	retriesConnection    = 8
)

// retry runs a transaction again that failed only because of others that ran beside it, or because its connection was lost before its
// COMMIT was sent. SQLite has neither.
func (db *DB) retry(ctx context.Context, run func() error) error {
	for attempt := 0; ; attempt++ {
		err := run()
		wait := time.Duration(attempt+1) * 5 * time.Millisecond
		switch {
		case err == nil || db.dialect == SQLite || errors.Is(err, ErrCommitUnknown) || ctx.Err() != nil:
			return err
		case isSerializationFailure(err) && attempt < retriesSerialization:
		case isConnectionLost(err) && attempt < retriesConnection:
			// The others were probably lost with it.
			db.pool.SetMaxIdleConns(0)
			db.pool.SetMaxIdleConns(db.maxIdle)
			wait = 10 * time.Millisecond << attempt
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// unavailable adds mxerr.ErrUnavailable to the error of a database that is away or full. A request that fails by it may be repeated.
func unavailable(err error) error {
	if err != nil && (isConnectionLost(err) || hasNoRoom(err)) {
		return errors.Join(mxerr.ErrUnavailable, err)
	}
	return err
}

// sqliteCode is the extended result code of SQLite in an error's chain, or 0.
func sqliteCode(err error) int {
	if sqliteErr := new(sqlite.Error); errors.As(err, &sqliteErr) {
		return sqliteErr.Code()
	}
	return 0
}

// isConnectionLost tells whether err is of a connection that ended, or of a Postgres that takes none at the moment.
func isConnectionLost(err error) bool {
	if pgErr := new(pq.Error); errors.As(err, &pgErr) {
		return pgErr.Code.Class() == "08" || pgErr.Code.Class() == "57" && pgErr.Code != "57014" // that is a query which was cancelled
	}
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network) && !network.Timeout()
}

func (db *DB) postgresTx(ctx context.Context, name string, o *sql.TxOptions, fn func(context.Context, *Tx) error) error {
	sqlTx, err := db.pool.BeginTx(ctx, o)
	if err != nil {
		return fmt.Errorf("begin %s: %w", name, err)
	}
	db.counter.Transactions.Add(1)
	tx := &Tx{db: db, name: name, write: o == nil}
	tx.prepare = func(ctx context.Context, s *Stmt) (*sql.Stmt, error) { return s.inTx(ctx, tx, sqlTx) }
	defer tx.prepareFresh()
	tx.unprepared = sqlTx
	inside := txguard.Mark(ctx, name)
	err = tx.run(inside, fn)
	if err == nil {
		err = db.Failpoint("commit.before")
	}
	if err == nil && tx.write {
		err = db.passGate()
	}
	if err != nil {
		if rollback := sqlTx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("roll back %s: %w", name, rollback))
		}
		tx.rolledBack()
		return err
	}
	if err = sqlTx.Commit(); err != nil {
		tx.rolledBack()
		// A backend that is told to end may say so instead of what became of the COMMIT.
		if answered := new(pq.Error); !errors.As(err, &answered) || isConnectionLost(err) {
			err = errors.Join(ErrCommitUnknown, err)
		}
		return fmt.Errorf("commit %s: %w", name, err)
	}
	if o == nil {
		db.counter.Commits.Add(1)
	}
	if err = db.Failpoint("commit.after"); err != nil {
		tx.rolledBack()
		return errors.Join(ErrCommitUnknown, err)
	}
	tx.committed()
	return nil
}

func isSerializationFailure(err error) bool {
	pgErr := new(pq.Error)
	return errors.As(err, &pgErr) && (pgErr.Code == "40001" || pgErr.Code == "40P01")
}

// IsUniqueViolation tells whether err says that a row with this key is there already.
func IsUniqueViolation(err error) bool {
	if pgErr := new(pq.Error); errors.As(err, &pgErr) {
		return pgErr.Code == "23505"
	}
	code := sqliteCode(err)
	return code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// IsNoTable tells whether err says that there is no table of a name.
func IsNoTable(err error) bool {
	if pgErr := new(pq.Error); errors.As(err, &pgErr) {
		return pgErr.Code == "42P01"
	}
	return sqliteCode(err)&0xff == sqlite3.SQLITE_ERROR && strings.Contains(err.Error(), "no such table")
}
