package sqlutil

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/test"
)

// proxy stands between a DB and its Postgres, and can take all connections away.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	away  bool
	conns []net.Conn
	// still is held while nothing that is sent arrives.
	still sync.RWMutex
}

// slow is a connection that the proxy may hold up.
type slow struct {
	net.Conn
	p *proxy
}

func (s slow) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.p.still.RLock()
	defer s.p.still.RUnlock()
	return n, err
}

// through starts a proxy, and returns the connection string that leads through it.
func through(t *testing.T, connection string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: u.Host}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var copies sync.WaitGroup
	copies.Go(func() { p.serve(&copies) })
	t.Cleanup(func() {
		p.listener.Close()
		p.set(true)
		copies.Wait()
	})
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

func (p *proxy) serve(copies *sync.WaitGroup) {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to)
		p.mu.Lock()
		if err != nil || p.away {
			from.Close()
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, from, to)
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
			copies.Go(func() {
				io.Copy(pair[0], slow{pair[1], p}) //nolint:errcheck // it ends when a side is closed
				pair[0].Close()
			})
		}
	}
}

// set lets connections through, or ends all that there are and every new one.
func (p *proxy) set(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func TestConnectionsAreLost(t *testing.T) {
	p, connection := through(t, test.Postgres(t))
	db := open(t, connection)
	setup(t, db)

	p.set(true)
	back := time.AfterFunc(300*time.Millisecond, func() { p.set(false) })
	defer back.Stop()
	if err := db.Write(t.Context(), "while it is away", put(db, "a", 1)); err != nil {
		t.Errorf("a short absence: %v", err)
	}

	p.set(true)
	if err := db.Write(t.Context(), "while it stays away", put(db, "b", 1)); !errors.Is(err, mxerr.ErrUnavailable) {
		t.Errorf("a long absence of a writer: %v", err)
	}
	p.set(false)
	if got := names(t, db); len(got) != 1 || got[0] != "a" {
		t.Errorf("got %v", got)
	}
}

// A Postgres that has stopped answering is not waited for by who looks at it, or closes it.
func TestAPostgresThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	p, connection := through(t, test.Postgres(t))
	var dbs []*DB
	for range 2 { // a look keeps a connection busy, and that is not closed
		db, err := Open(t.Context(), Options{ConnectionString: connection}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		one := db.Stmt(`SELECT 1`)
		err = db.ReadOne(t.Context(), "one", func(ctx context.Context, tx *Tx) error {
			return one.QueryRow(ctx, tx).Scan(new(int))
		})
		if err != nil {
			t.Fatal(err)
		}
		dbs = append(dbs, db)
	}
	p.still.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	looked, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		looked <- dbs[0].Ping(ctx)
		closed <- errors.Join(dbs[1].Close(), dbs[0].Close())
	}()
	late := time.After(20 * time.Second)
	select {
	case err := <-looked:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who looks is told %v", err)
		}
	case <-late:
		t.Error("who looks waits")
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-late:
		t.Error("who closes waits")
	}
	p.still.Unlock()
}
