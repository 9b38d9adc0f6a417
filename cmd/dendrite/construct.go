package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/cmd/dendrite/place"
	"github.com/matrix-org/dendrite/common/authn"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/eventlog/kafka"
	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/rpc"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/sqlutil/identity"
)

// tokensFor is how long another process may go on taking a token that clientapi has revoked.
const tokensFor = time.Second

// construct builds the components, connects them, and opens the listeners to them.
func (p *process) construct(ctx context.Context) error {
	shared, err := p.sharedDeps()
	if err != nil {
		return err
	}
	client, err := p.rpcClient()
	if err != nil {
		return err
	}
	for _, r := range topology() {
		var own *component.Component
		if slices.Contains(p.options.components, r.name) {
			deps := shared
			if deps.DB, err = p.database(ctx, r.name); err != nil {
				return err
			}
			deps.Log = p.log.WithField("component", r.name)
			deps.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"component": r.name}, p.metrics)
			if own, err = r.construct(ctx, deps, &p.contracts); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			p.components = append(p.components, own)
		}
		if err := p.connect(r, own, client); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return p.open(shared, client)
}

// connect fills the contract of a component for those who call it: with its functions if it runs in this process, else with calls.
func (p *process) connect(r row, own *component.Component, client *rpc.Client) error {
	switch {
	case r.contract == nil:
		return nil
	case own == nil:
		return rpc.Dial(client, r.name, r.contract(&p.contracts))
	}
	return rpc.Local(r.name, p.tracer, own.API, r.contract(&p.contracts))
}

// sharedDeps are those that all components of the process have in common.
func (p *process) sharedDeps() (component.Deps, error) {
	policy, err := netpolicy.New(p.config.Network)
	if err != nil {
		return component.Deps{}, err
	}
	limits := httputil.NewLimits(p.config.Matrix.RateLimits)
	tokens := authn.New(func(ctx context.Context, token string, user id.UserID, device id.DeviceID) (httputil.Caller, error) {
		answer, err := p.contracts.client.QueryToken(ctx, clientapi.QueryTokenRequest{Token: token, UserID: user, DeviceID: device,
			Address: authn.ClientAddress(ctx)})
		return answer.Caller, err
	}, tokensFor, p.registrations)
	if p.transport, err = p.newTransport(); err != nil {
		return component.Deps{}, err
	}
	return component.Deps{Config: p.config, Tracer: p.tracer, Signer: p.signer, Auth: tokens, Limits: limits,
		Outgoing: policy.Client, Registrations: p.registrations, Transport: p.transport, Sole: p.whole(), Draining: p.draining}, nil
}

// whole tells whether all components run in this process.
func (p *process) whole() bool { return len(p.options.components) == len(config.Components()) }

// newTransport carries logs within the process, or through the broker where the components are processes of their own.
func (p *process) newTransport() (eventlog.Transport, error) {
	if p.whole() {
		return eventlog.NewEmbedded(), nil
	}
	t, err := kafka.New(kafka.Options{Config: p.config.Kafka, Log: p.log, Metrics: p.metrics, Tracer: p.tracer})
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	p.closers = append(p.closers, t)
	return t, nil
}

// rpcClient calls the components that run elsewhere.
func (p *process) rpcClient() (*rpc.Client, error) {
	peers := maps.Clone(p.config.Peers)
	maps.DeleteFunc(peers, func(name string, _ []string) bool { return slices.Contains(p.options.components, name) })
	return rpc.NewClient(rpc.ClientOptions{Secret: p.config.InternalSecret, Peers: peers, Tracer: p.tracer, Registerer: p.metrics,
		Log: p.log})
}

// database opens the database of a component; components with the same connection string share one.
func (p *process) database(ctx context.Context, name string) (db *sqlutil.DB, err error) {
	connection := p.config.Database.For(name)
	if db := p.databases[connection]; db != nil {
		return db, nil
	}
	path, is := sqlutil.SQLitePath(connection)
	if is {
		lock, err := place.Lock(path + place.LockSuffix)
		if err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
		p.closers = append(p.closers, lock)
	}
	db, err = place.OpenDatabase(ctx, p.config, name, 0, sqlutil.Deps{Log: p.log, Registerer: p.metrics, Tracer: p.tracer})
	if err != nil {
		return nil, err
	}
	if is {
		if err := place.MarkLock(path, p.config.Matrix.ServerName); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	p.databases[connection] = db
	p.closers = append(p.closers, db)
	db.SetGate(p.gate)
	public, _ := p.signer.PrivateKey.Public().(ed25519.PublicKey)
	return db, identity.UseKey(ctx, db, string(p.signer.KeyID), public)
}

// noteKeyUse notes in all databases that this process signs with its key.
func (p *process) noteKeyUse(ctx context.Context) error {
	var all []error
	for _, db := range p.databases {
		all = append(all, identity.NoteKeyUse(ctx, db, string(p.signer.KeyID)))
	}
	return errors.Join(all...)
}
