package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opentracing/opentracing-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/periodic"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
	"github.com/matrix-org/dendrite/common/tracing"
)

// How long a process takes to end, at most: requests that are under way have drainFor, what runs in the background stopFor.
const (
	drainFor = 6500 * time.Millisecond
	stopFor  = 2 * time.Second
	noteFor  = 500 * time.Millisecond
)

// options say what a process is.
type options struct {
	process    string   // monolith, or the component's name
	components []string // those that run in it
	config     *config.Config
	addresses  config.Addresses
	tls        config.TLS
	// started is called when the process serves; public is the address of its public listener.
	started func(public string)
}

// process is what all components of one process share.
type process struct {
	options
	log       *logrus.Entry
	tracer    opentracing.Tracer
	metrics   *prometheus.Registry
	transport eventlog.Transport
	proxies   httputil.Proxies
	databases map[string]*sqlutil.DB // by connection string
	closers   []io.Closer            // closed in reverse
	draining  chan struct{}
	failed    chan error // of a listener
	// confirmed tells whether the lease of a monolith is known to be held; nil where there is none.
	confirmed func() bool
	signer    pdu.Signer
	// registrations are those of the application services that are in force.
	registrations *registration.Holder
	hups          <-chan os.Signal // asks to read them again

	contracts  contracts
	components []*component.Component
	listeners  []*listener
}

// launch runs a process until ctx ends, which is how it is asked to end, or until something in it fails for good.
func launch(ctx context.Context, o options) (err error) {
	hups, release := hangups()
	defer release()
	p := &process{options: o, databases: make(map[string]*sqlutil.DB), draining: make(chan struct{}), failed: make(chan error, 4), hups: hups,
		metrics: prometheus.NewRegistry()}
	log, logFile, err := newLogger(o.config.Logging, o.process)
	if err != nil {
		return err
	}
	p.log, p.closers = log, append(p.closers, logFile)
	defer func() { err = errors.Join(err, p.close()) }()

	var spans io.Closer
	if p.tracer, spans, err = tracing.New(o.config.Tracing, o.process, log); err != nil {
		return err
	}
	p.closers = append(p.closers, spans)
	if p.signer, err = place.ReadKey(o.config.Matrix.PrivateKey, o.config.Matrix.ServerName); err != nil {
		return err
	}
	registered, err := registration.Read(o.config.ApplicationServices, o.config.Matrix.ServerName)
	if err != nil {
		return err
	}
	p.registrations = registration.NewHolder(registered)
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if p.proxies, err = config.Networks(o.config.TrustedProxies); err != nil {
		return fmt.Errorf("trusted_proxies: %w", err)
	}
	// Sockets first: a taken port is told at once, and who asks for health while the database is waited for gets an answer.
	public, err := p.listen()
	if err != nil {
		return err
	}
	if p.whole() {
		return p.alone(ctx, func(held context.Context) error { return p.serve(ctx, held, public) })
	}
	return p.serve(ctx, ctx, public)
}

// serve constructs the components and runs them until ctx ends, which is how the process is asked to end, or until it no longer holds
// what it must hold.
func (p *process) serve(ctx, held context.Context, public string) error {
	if err := p.construct(held); err != nil {
		if ctx.Err() != nil {
			return nil // asked to end before it was ready
		}
		return err
	}
	return p.run(ctx, held, public)
}

// run runs what the components do in the background, and ends everything in order.
func (p *process) run(ctx, held context.Context, public string) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, background := errgroup.WithContext(background)
	for _, c := range p.components {
		if c.Run == nil {
			continue
		}
		group.Go(func() error {
			if err := c.Run(background); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			return nil
		})
	}
	group.Go(func() error {
		periodic.Run(background, identity.KeyUseEvery, p.log, "the use of the signing key cannot be noted",
			p.noteKeyUse)
		return nil
	})
	group.Go(func() error {
		p.reload(background, p.hups)
		return nil
	})
	p.log.WithFields(logrus.Fields{"server": p.config.Matrix.ServerName, "public": public, "internal": p.addresses.Internal}).Info("started")
	if p.started != nil {
		p.started(public)
	}

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-p.failed:
	case <-background.Done(): // a component has failed: group.Wait tells
	case <-held.Done():
		if ctx.Err() == nil {
			return errNotAlone // at once: what is under way must not reach the database any more
		}
	}
	p.log.Info("ending: open requests are answered first")
	p.drain()
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- group.Wait() }()
	select {
	case err := <-stopped:
		failure = errors.Join(failure, err)
	case <-time.After(stopFor):
		p.log.Warn("something in the background did not stop in time")
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteFor)
	defer cancel()
	_, err := sqlutil.Within(last, func() (struct{}, error) { return struct{}{}, p.noteKeyUse(last) })
	if err != nil {
		p.log.WithError(err).Debug("the last use of the signing key is not noted")
	}
	p.log.Info("ended")
	return failure
}

// drain answers what is under way and accepts nothing new.
func (p *process) drain() {
	close(p.draining)
	ctx, cancel := context.WithTimeout(context.Background(), drainFor)
	defer cancel()
	var group errgroup.Group
	for _, l := range p.listeners {
		group.Go(func() error {
			if err := l.server.Shutdown(ctx); err != nil {
				p.log.WithError(err).WithField("address", l.socket.Addr()).Warn("requests were broken off")
				return l.server.Close()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		p.log.WithError(err).Warn("closing listeners")
	}
}

// close gives back what the process holds, the last first.
func (p *process) close() error {
	var all []error
	for _, l := range p.listeners {
		all = append(all, l.server.Close())
	}
	for i := len(p.closers) - 1; i >= 0; i-- {
		all = append(all, p.closers[i].Close())
	}
	return errors.Join(all...)
}
