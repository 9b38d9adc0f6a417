package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rpc"
)

// Limits of a connection. There is none on how long an answer takes: long polls and media take long. Who sends no body
// and reads no answer is cut off (httputil.Patience).
const (
	headerTimeout  = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// listener is one address that the process serves.
type listener struct {
	socket   net.Listener
	server   *http.Server
	handler  switchable
	internal bool
	// silent are the connections on which nothing was asked yet. A client opens some in advance; the end need not wait for them.
	silent sync.Map // of net.Conn
}

// watch has the form of http.Server.ConnState.
func (l *listener) watch(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		l.silent.Store(c, nil)
	} else {
		l.silent.Delete(c)
	}
}

func (l *listener) closeSilent() {
	l.silent.Range(func(c, _ any) bool {
		_ = c.(net.Conn).Close() // it may have gone by itself
		return true
	})
}

// switchable is a handler that is not known yet when its listener begins.
type switchable struct{ current atomic.Pointer[http.Handler] }

func (s *switchable) set(h http.Handler) { s.current.Store(&h) }

func (s *switchable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.current.Load()).ServeHTTP(w, r)
}

// listen opens the process's sockets, and says on all of them that it is starting. It returns the address of the public one.
func (p *process) listen() (public string, err error) {
	starting := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httputil.WriteError(w, mxerr.Unavailable("the server is starting: try again"))
	})
	key := "listen." + p.process + "."
	if p.addresses.Public != "" {
		l, err := p.newListener(key+"public", p.addresses.Public, starting, nil)
		if err != nil {
			return "", err
		}
		public = l.socket.Addr().String()
	}
	if p.addresses.Internal != "" {
		_, err := p.newListener(key+"internal", p.addresses.Internal, http.HandlerFunc(p.healthWhileStarting), nil)
		if err != nil {
			return "", err
		}
	}
	if p.tls.Certificate != "" {
		certificate, err := newCertificate(p.tls.Certificate, p.tls.Key, p.log)
		if err != nil {
			return "", fmt.Errorf("%stls: %w", key, err)
		}
		_, err = p.newListener(key+"tls", p.tls.Address, starting, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get})
		if err != nil {
			return "", err
		}
	}
	return public, nil
}

func (p *process) newListener(key, address string, starting http.Handler, secure *tls.Config) (*listener, error) {
	socket, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is taken by another process: stop that, or give another address", key, address)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: give an address of this machine", key, err)
	}
	l := &listener{socket: socket, internal: strings.HasSuffix(key, ".internal")}
	l.handler.set(starting)
	patience := httputil.DefaultPatience()
	accepting := patience.Listen(socket)
	if !l.internal { // other processes have as many connections as there are requests to pass on
		accepting = httputil.LimitConnections(accepting, p.config.MaxConnections, p.proxies)
	}
	l.server = &http.Server{Handler: patience.Serve(&l.handler), ReadHeaderTimeout: headerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, TLSConfig: secure,
		ErrorLog: stdlog.New(p.log.WithField("listener", key).WriterLevel(logrus.DebugLevel), "", 0)}
	l.server.ConnState = l.watch
	l.server.RegisterOnShutdown(l.closeSilent)
	serve := l.server.Serve
	if secure != nil {
		serve = func(s net.Listener) error { return l.server.ServeTLS(s, "", "") }
	}
	p.listeners = append(p.listeners, l)
	go func() {
		if err := serve(accepting); !errors.Is(err, http.ErrServerClosed) {
			p.failed <- fmt.Errorf("%s: %w", key, err)
		}
	}()
	return l, nil
}

// open puts the components behind the listeners.
func (p *process) open(deps component.Deps, client *rpc.Client) error {
	var routes []httputil.Route
	for _, c := range p.components {
		routes = append(routes, c.Routes...)
	}
	router, err := httputil.NewRouter(routes, httputil.RouterDeps{Auth: deps.Auth, Limits: deps.Limits, Services: deps.Registrations,
		Proxies: p.proxies, Log: p.log, Tracer: p.tracer, Metrics: p.metrics})
	if err != nil {
		return err
	}
	router.Otherwise(httputil.NewFrontDoor(httputil.FrontDoorDeps{Owners: owners(), Client: client, Secret: p.config.InternalSecret,
		Tracer: p.tracer, Log: p.log}))
	internal, err := p.internalHandler(router)
	if err != nil {
		return err
	}
	for _, l := range p.listeners {
		if l.internal {
			l.handler.set(internal)
		} else {
			l.handler.set(p.gated(router))
		}
	}
	return nil
}

// ready tells why the process cannot do its work now.
func (p *process) ready(ctx context.Context) error {
	select {
	case <-p.draining:
		return errors.New("the process is ending")
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	all := []error{p.gate()}
	for _, db := range p.databases {
		if err := db.Ping(ctx); err != nil {
			all = append(all, fmt.Errorf("database: %w", err))
		}
	}
	if err := p.transport.Ready(ctx); err != nil {
		all = append(all, fmt.Errorf("log: %w", err))
	}
	for _, c := range p.components {
		if c.Ready == nil {
			continue
		}
		if err := c.Ready(ctx); err != nil {
			all = append(all, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return errors.Join(all...)
}
