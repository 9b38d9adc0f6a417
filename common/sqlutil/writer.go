package sqlutil

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/matrix-org/dendrite/common/txguard"
)

// maxGroup limits how many closures one COMMIT of SQLite carries.
const maxGroup = 128

// writer is the one connection of a SQLite database that writes. Its goroutine takes all closures that wait and commits them as
// one transaction, so that they share the cost of making it durable; one that is alone waits for nothing.
type writer struct {
	db       *DB
	pool     *sql.DB
	conn     *sql.Conn
	prepared map[*Stmt]*sql.Stmt
	queue    chan *job
	stop     chan struct{}
	stopped  chan struct{}
	once     sync.Once

	path    string // of the file
	groups  int    // that were committed
	tooLong int64  // the length of SQLite's log at which it is cut
}

type job struct {
	ctx  context.Context
	fn   func(context.Context, *Tx) error
	tx   *Tx
	err  error
	done chan struct{}
}

var (
	errClosed = errors.New("the database is closed")
	// errUndone says that SQLite has undone the whole group by itself, as it does where the disk is full.
	errUndone = errors.New("SQLite has undone all that was written together")
)

func newWriter(db *DB, path string, pool *sql.DB, conn *sql.Conn) *writer {
	w := &writer{db: db, pool: pool, conn: conn, prepared: make(map[*Stmt]*sql.Stmt), queue: make(chan *job, maxGroup),
		stop: make(chan struct{}), stopped: make(chan struct{}), path: path, tooLong: walLimit}
	go w.loop()
	return w
}

// do runs fn with others that wait. It returns when the COMMIT has been made, or when ctx ends before fn has begun.
func (w *writer) do(ctx context.Context, name string, fn func(context.Context, *Tx) error) error {
	j := &job{ctx: txguard.Mark(ctx, name), fn: fn, done: make(chan struct{})}
	j.tx = &Tx{db: w.db, name: name, write: true, prepare: w.prepare, unprepared: w.conn, uninterrupted: true}
	select {
	case w.queue <- j:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case <-w.stop:
		return errClosed
	}
	select {
	case <-j.done:
		return j.err
	case <-w.stopped:
		select {
		case <-j.done:
			return j.err
		default:
			return errClosed
		}
	}
}

func (w *writer) loop() {
	defer close(w.stopped)
	for {
		select {
		case <-w.stop:
			return
		case first := <-w.queue:
			w.commit(w.gather(first))
			w.boundLog()
		}
	}
}

func (w *writer) gather(first *job) []*job {
	group := []*job{first}
	for len(group) < maxGroup {
		select {
		case j := <-w.queue:
			group = append(group, j)
		default:
			return group
		}
	}
	return group
}

// commit runs a group. A closure that fails is undone alone; a COMMIT that fails fails all.
func (w *writer) commit(group []*job) {
	ctx := context.Background()
	fail := func(err error) {
		for _, j := range group {
			if j.err == nil {
				j.err = err
			}
		}
	}
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		fail(fmt.Errorf("begin: %w", err))
	} else {
		w.db.counter.Transactions.Add(1)
		succeeded := 0
		for _, j := range group {
			if j.err = w.runOne(j, len(group) > 1); j.err == nil {
				succeeded++
			} else if errors.Is(j.err, errUndone) {
				fail(j.err)
				succeeded = 0
				break
			}
		}
		if succeeded == 0 {
			w.rollBack(ctx)
		} else if err := w.end(ctx); err != nil {
			fail(err)
		}
	}
	for _, j := range group {
		if j.err == nil {
			j.tx.committed()
		} else {
			j.tx.rolledBack()
		}
		close(j.done)
	}
}

func (w *writer) end(ctx context.Context) error {
	err := w.db.Failpoint("commit.before")
	if err == nil {
		_, err = w.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		w.rollBack(ctx)
		return fmt.Errorf("commit: %w", err)
	}
	w.db.counter.Commits.Add(1)
	if err := w.db.Failpoint("commit.after"); err != nil {
		return errors.Join(ErrCommitUnknown, err)
	}
	return nil
}

// rollBack ends the transaction, unless SQLite has done that already.
func (w *writer) rollBack(ctx context.Context) {
	if _, err := w.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		w.db.deps.Log.WithError(err).Debug("nothing to roll back")
	}
}

// runOne runs one closure, inside a savepoint if it is not alone.
func (w *writer) runOne(j *job, savepoint bool) (err error) {
	if err := j.ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", j.tx.name, err)
	}
	ctx := context.Background()
	if savepoint {
		if _, err := w.conn.ExecContext(ctx, "SAVEPOINT one"); err != nil {
			return fmt.Errorf("savepoint: %w", err)
		}
		defer func() {
			undo := "RELEASE one"
			if err != nil {
				undo = "ROLLBACK TO one; RELEASE one"
			}
			if _, failed := w.conn.ExecContext(ctx, undo); failed != nil {
				err = errors.Join(errUndone, err, failed)
			}
		}()
	}
	return j.tx.run(j.ctx, j.fn)
}

func (w *writer) prepare(_ context.Context, s *Stmt) (*sql.Stmt, error) {
	if p, has := w.prepared[s]; has {
		return p, nil
	}
	p, err := w.conn.PrepareContext(context.Background(), s.text)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", s.text, err)
	}
	w.prepared[s] = p
	return p, nil
}

// close ends the writer. Its statements are ended one by one: SQLite keeps a connection, and with it the log beside the
// file, as long as one of its statements is there, and database/sql does not end those that were prepared on a Conn.
func (w *writer) close() error {
	w.once.Do(func() { close(w.stop) })
	<-w.stopped
	var all []error
	for _, p := range w.prepared {
		all = append(all, p.Close())
	}
	if _, err := w.cutLog(0); err != nil {
		w.db.deps.Log.WithError(err).Warn("what was written last stays in the log beside the SQLite file")
	}
	return errors.Join(append(all, w.conn.Close(), w.pool.Close())...)
}

// sqliteRead runs fn on a reader with a snapshot.
func (db *DB) sqliteRead(ctx context.Context, name string, fn func(context.Context, *Tx) error) error {
	sqlTx, err := db.pool.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("begin %s: %w", name, err)
	}
	tx := &Tx{db: db, name: name, uninterrupted: true}
	tx.prepare = func(ctx context.Context, s *Stmt) (*sql.Stmt, error) { return s.inTx(ctx, tx, sqlTx) }
	defer tx.prepareFresh()
	defer sqlTx.Rollback() //nolint:errcheck // it changed nothing
	db.counter.Transactions.Add(1)
	return fn(txguard.Mark(ctx, name), tx)
}
