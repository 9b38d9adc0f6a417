// Package consumers follows the logs of other components, a file for each topic. Several parts of appservice take
// from one log: they share its offset and its transactions. Where no application service is registered, nothing is
// handled or written.
package consumers

import (
	"context"
	"fmt"

	"github.com/matrix-org/dendrite/appservice/storage"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Taker handles those records of a log that it knows, as the Handle of an eventlog.ConsumerConfig, and leaves the
// others.
type Taker func(context.Context, []eventlog.Record) (eventlog.Apply, error)

func follow(
	ctx context.Context, deps component.Deps, name, topic string, start eventlog.Start, source eventlog.Source,
	idle func() bool, takers []Taker,
) (*eventlog.Consumer, error) {
	consumer, err := eventlog.NewConsumer(ctx, eventlog.ConsumerConfig{
		Name: name, Topic: topic, Component: storage.Component, DB: deps.DB, Start: start, Source: source,
		Handle: func(ctx context.Context, records []eventlog.Record) (eventlog.Apply, error) {
			return takeAll(ctx, records, takers)
		},
		Idle: idle, Log: deps.Log, Tracer: deps.Tracer, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of the log %s: %w", topic, err)
	}
	return consumer, nil
}

// unregistered tells whether no application service is registered.
func unregistered(deps component.Deps) func() bool {
	return func() bool { return deps.Registrations.Load().Empty() }
}

// takeAll lets all takers handle records, and applies what they have found in one transaction.
func takeAll(ctx context.Context, records []eventlog.Record, takers []Taker) (eventlog.Apply, error) {
	var all []eventlog.Apply
	for _, take := range takers {
		apply, err := take(ctx, records)
		if err != nil {
			return nil, err
		}
		if apply != nil {
			all = append(all, apply)
		}
	}
	if all == nil {
		return nil, nil
	}
	return func(ctx context.Context, tx *sqlutil.Tx) error {
		for _, apply := range all {
			if err := apply(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
