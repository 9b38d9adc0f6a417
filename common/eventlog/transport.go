package eventlog

import (
	"context"
)

// Transport carries what logs append to those who follow them, in this process or in others. It may lose, double and reorder
// everything: a Consumer sees to it that nothing of this has an effect but delay.
type Transport interface {
	// Relay carries the records of a log's topics until ctx ends. Every process that appends to the log calls it.
	Relay(ctx context.Context, l *Log) error
	// Follow runs a consumer until ctx ends. Replicas share the partitions among them.
	Follow(ctx context.Context, c *Consumer) error
	// Publish sends an ephemeral message to all replicas of all who subscribe. It may be lost.
	Publish(ctx context.Context, topic, key string, value []byte) error
	// Subscribe hands ephemeral messages to handle, one at a time, until ctx ends. It calls listening, which may be nil, when
	// it begins to hear what is published, and again after each time that it did not hear.
	Subscribe(ctx context.Context, topic string, handle func(key string, value []byte), listening func()) error
	// Ready tells why nothing can be carried now.
	Ready(ctx context.Context) error
}
