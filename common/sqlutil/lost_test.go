package sqlutil

import (
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
				io.Copy(pair[0], pair[1]) //nolint:errcheck // it ends when a side is closed
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
