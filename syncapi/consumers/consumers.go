// Package consumers follows the logs of other components, a file for each topic, and lets requests wait for what is in
// them.
package consumers

import (
	"context"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/syncapi/storage"
)

// log is what a component says of its log. Its calls are wired after its readers are made.
type log struct {
	name, topic string
	read        func(context.Context, eventlog.ReadRequest) (eventlog.ReadResponse, error)
	heads       func(context.Context, eventlog.HeadsRequest) (eventlog.HeadsResponse, error)
}

type handler = func(context.Context, []eventlog.Record) (eventlog.Apply, error)

// follow makes the consumer of a log, from its beginning.
func follow(
	ctx context.Context, deps component.Deps, db *storage.Database, l log, handle handler,
) (*eventlog.Consumer, error) {
	return eventlog.NewConsumer(ctx, eventlog.ConsumerConfig{
		Name: l.name, Topic: l.topic, Component: storage.Component, DB: deps.DB, Start: eventlog.Oldest,
		Source: eventlog.Source{Read: l.read, Heads: l.heads},
		Handle: handle, Commit: db.Commit, Log: deps.Log, Tracer: deps.Tracer, Metrics: deps.Metrics,
	})
}
