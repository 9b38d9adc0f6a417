package netpolicy

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/config"
)

// A host that is gone without a word keeps nobody on its connections.
func TestAConnectionThatFallsSilentIsLeft(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()

	// What comes in between forgets the connections that it has when it is told to, and lets new ones through.
	between, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var epoch atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		var ends []net.Conn
		defer func() {
			for _, end := range ends {
				_ = end.Close()
			}
		}()
		for {
			in, err := between.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			ends = append(ends, in, out)
			born := epoch.Load()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					buffer := make([]byte, 4096)
					for {
						n, err := pair[0].Read(buffer)
						if err != nil {
							return
						}
						if epoch.Load() == born {
							_, _ = pair[1].Write(buffer[:n])
						}
					}
				})
			}
		}
	})

	p := policy(t, config.Network{AllowPrivate: config.AllowPrivate{ApplicationServices: []string{"127.0.0.0/8"}}})
	p.roots = x509.NewCertPool()
	p.roots.AddCert(server.Certificate())
	transport := p.Transport(ApplicationServices, p.TLS())
	if transport.HTTP2 == nil || transport.HTTP2.SendPingTimeout <= 0 || transport.HTTP2.PingTimeout <= 0 {
		t.Fatalf("connections are not pinged: %+v", transport.HTTP2)
	}
	transport.HTTP2.SendPingTimeout, transport.HTTP2.PingTimeout = 20*time.Millisecond, 200*time.Millisecond
	ask := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+between.Addr().String(), nil)
		if err != nil {
			return "", err
		}
		answer, err := transport.RoundTrip(r)
		if err != nil {
			return "", err
		}
		defer func() { _ = answer.Body.Close() }()
		proto, err := io.ReadAll(answer.Body)
		return string(proto), err
	}
	if proto, err := ask(); err != nil || proto != "HTTP/2.0" {
		t.Fatalf("%q, %v", proto, err)
	}
	epoch.Add(1)
	began := time.Now()
	_, first := ask() // it may end with its connection
	proto, err := ask()
	if took := time.Since(began); err != nil || proto != "HTTP/2.0" || took > 15*time.Second {
		t.Errorf("after the connection fell silent: %q, %v, then %v, after %s", proto, first, err, took)
	}
	transport.CloseIdleConnections()
	_ = between.Close()
	all.Wait()
}
