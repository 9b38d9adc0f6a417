package httputil

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hurry is a server's patience in tests.
func hurry() Patience {
	return Patience{Body: 200 * time.Millisecond, Unread: 50 * time.Millisecond, Write: 200 * time.Millisecond}
}

// patient serves a handler with little patience.
func patient(t *testing.T, h http.Handler, secure bool) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(hurry().Serve(h))
	server.Listener = hurry().Listen(server.Listener)
	if server.EnableHTTP2 = secure; secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

// dial connects. Whatever has not ended by itself ends the test.
func dial(t *testing.T, server *httptest.Server) net.Conn {
	t.Helper()
	address := server.Listener.Addr().String()
	c, err := net.Dial("tcp", address)
	if server.TLS != nil && err == nil {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is the test's own server
	}
	if err == nil {
		err = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func reads(_ context.Context, r *Request) (any, error) { return r.Object() }

func TestABodyThatDoesNotComeEndsItsConnection(t *testing.T) {
	r := router(t,
		Route{Method: "POST", Path: "/read", Name: "read", Handler: reads},
		Route{Method: "POST", Path: "/ignore", Name: "ignore", Handler: says("ignore")},
		Route{Method: "GET", Path: "/get", Name: "get", Handler: says("get")},
		Route{Method: "POST", Path: "/token", Name: "token", Auth: AuthUser, Handler: reads},
		Route{Method: "POST", Path: "/limited", Name: "limited", Limit: "slow", Handler: reads},
		Route{Method: "POST", Path: "/small", Name: "small", MaxBody: 10, Handler: reads},
	)
	const length, chunked = "Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
	requests := []string{
		"POST /read HTTP/1.1\r\n" + length, "POST /read HTTP/1.1\r\n" + chunked,
		"POST /ignore HTTP/1.1\r\n" + length, "POST /ignore HTTP/1.1\r\n" + chunked,
		"POST /nope HTTP/1.1\r\n" + length, "POST /nope HTTP/1.1\r\n" + chunked,
		"GET /get HTTP/1.1\r\n" + length, "GET /get HTTP/1.1\r\n" + chunked,
		"OPTIONS /read HTTP/1.1\r\n" + length, "OPTIONS /nope HTTP/1.1\r\n" + length,
		"PUT /read HTTP/1.1\r\n" + length,
		"POST /token HTTP/1.1\r\n" + length,
		"POST /token HTTP/1.1\r\nAuthorization: Bearer nobody's\r\n" + length,
		"POST /limited HTTP/1.1\r\n" + length,
		"POST /small HTTP/1.1\r\n" + length,
		"POST /nope HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n{",
		"POST /read HTTP/1.1\r\nExpect: 100-continue\r\n" + length,
		"HEAD /get HTTP/1.1\r\n" + length,
	}
	for _, secure := range []bool{false, true} {
		server := patient(t, r, secure)
		var all sync.WaitGroup
		for range 10 {
			for _, request := range requests {
				first, rest, _ := strings.Cut(request, "\r\n")
				c := dial(t, server)
				all.Go(func() {
					if _, err := fmt.Fprint(c, first, "\r\nHost: x\r\n", rest); err != nil {
						t.Error(err)
						return
					}
					answer, err := io.ReadAll(c)
					if err != nil && len(answer) == 0 || !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) {
						t.Errorf("%q is answered %q and ended by %v", request, answer, err)
					}
				})
			}
		}
		all.Wait()
	}
}

// A connection is used again where the body came, read or not, and a handler goes on for as long as it likes once it is
// there.
func TestABodyThatComesKeepsItsConnection(t *testing.T) {
	r := router(t, Route{Method: "POST", Path: "/read", Name: "read",
		Handler: func(ctx context.Context, r *Request) (any, error) {
			if _, err := r.Object(); err != nil {
				return nil, err
			}
			if r.Query("poll") != "" {
				<-time.After(3 * hurry().Body) // what is waited for is that nothing happens
			}
			return Empty, ctx.Err()
		}})
	server := patient(t, r, false)
	c := dial(t, server)
	for _, path := range []string{"/read", "/nope", "/read?poll=x", "/read"} {
		if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", path); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1000)
		n, err := c.Read(answer)
		want := "HTTP/1.1 200"
		if path == "/nope" {
			want = "HTTP/1.1 404"
		}
		if err != nil || !bytes.HasPrefix(answer[:n], []byte(want)) {
			t.Fatalf("%s: %q %v", path, answer[:n], err)
		}
	}
}

// pieces is a body that comes in pieces, each later than the last; the longest pause is shorter than a server's
// patience.
type pieces struct{ left int }

func (p *pieces) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	p.left--
	<-time.After(hurry().Body / 10)
	return copy(b, "  "), nil
}

func TestASlowBodyIsReadWhileItComes(t *testing.T) {
	server := patient(t, router(t, Route{Method: "POST", Path: "/read", Name: "read", Handler: reads}), false)
	answer, err := http.Post(server.URL+"/read", "application/json", &pieces{20})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only its status counts
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a body that took twice the pause of one piece: %s", answer.Status)
	}
}

func TestAnAnswerThatIsNotReadEnds(t *testing.T) {
	done := make(chan error, 100)
	large := bytes.Repeat([]byte("x"), 16<<20) // more than sockets hold
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(large)
		done <- err
	})
	for _, secure := range []bool{false, true} {
		server := patient(t, h, secure)
		const clients = 10
		for range clients {
			if _, err := fmt.Fprint(dial(t, server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		for range clients {
			if err := <-done; err == nil {
				t.Error("an answer that nobody reads was written to its end")
			}
		}
	}
	// Over HTTP/2 a client holds back a stream, not the connection.
	server := patient(t, h, true)
	for range 10 {
		answer, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close() //nolint:errcheck // it is cut off
		if answer.ProtoMajor != 2 {
			t.Fatalf("the test speaks %s", answer.Proto)
		}
	}
	for range 10 {
		if err := <-done; err == nil {
			t.Error("a stream that nobody reads was written to its end")
		}
	}
}

// A client that takes a little now and then gets all, however long that takes.
func TestAnAnswerThatIsReadSlowlyArrives(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 16<<20)
	server := patient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(large)))
		if _, err := w.Write(large); err != nil {
			t.Error(err)
		}
	}), false)
	answer, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is read to its end
	piece, total := make([]byte, 1<<20), 0
	for err == nil {
		var n int
		n, err = io.ReadFull(answer.Body, piece)
		total += n
		<-time.After(hurry().Write / 2)
	}
	if total != len(large) {
		t.Errorf("%d of %d bytes: %v", total, len(large), err)
	}
}

func TestOneAddressHasSoManyConnections(t *testing.T) {
	for name, test := range map[string]struct {
		proxies Proxies
		served  int
	}{"of a client": {nil, 5}, "of a proxy": {proxies(t, "127.0.0.1"), 50}} {
		t.Run(name, func(t *testing.T) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := LimitConnections(inner, 5, test.proxies)
			accepted := make(chan net.Conn, 100)
			go func() {
				defer close(accepted)
				for {
					c, err := l.Accept()
					if err != nil {
						return // the listener is closed
					}
					if _, err := c.Write([]byte("x")); err != nil {
						t.Error(err)
					}
					accepted <- c
				}
			}()
			isServed := func() bool {
				c, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() }) // the test is over
				n, _ := c.Read(make([]byte, 1))
				return n == 1
			}
			served := 0
			for range 50 {
				if isServed() {
					served++
				}
			}
			if served != test.served {
				t.Errorf("%d of 50 connections of one address are served", served)
			}
			for range served {
				_ = (<-accepted).Close()
			}
			if !isServed() {
				t.Error("connections that have ended are counted")
			}
			if err := inner.Close(); err != nil {
				t.Error(err)
			}
			for c := range accepted {
				_ = c.Close()
			}
			if limited, is := l.(*limitedListener); !is || len(limited.open) != 0 {
				t.Errorf("all connections of the listener, a %T, have ended, and some are counted", l)
			}
		})
	}
}
