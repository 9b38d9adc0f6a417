package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// Publish sends an ephemeral message to all replicas of all who subscribe. It does not wait for the broker, and drops the message
// when too many wait.
func (t *Transport) Publish(_ context.Context, topic, key string, value []byte) error {
	waiting, err := t.publisher(topic)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	m := &sarama.ProducerMessage{Topic: t.topic(topic), Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ephemeral != waiting {
		return nil // closed in between: it is lost
	}
	select {
	case waiting <- m:
	default:
	}
	return nil
}

// ephemeralBacklog is how many ephemeral messages wait for the producer before the next ones are lost. The producer's own input holds
// none: whether it takes one at once depends on what its goroutine does just then.
const ephemeralBacklog = 1024

// publisher returns where ephemeral messages wait for their producer, and makes sure that the topic is there. When that has failed, it fails at
// once for a while: what is lost anyway should not be waited for.
func (t *Transport) publisher(topic string) (chan<- *sarama.ProducerMessage, error) {
	t.mu.Lock()
	waiting, known, away, again := t.ephemeral, t.ensured[topic], t.away, t.again
	t.mu.Unlock()
	switch {
	case waiting != nil && known:
		return waiting, nil
	case time.Now().Before(again):
		return nil, away
	}
	opened, err := t.openPublisher(topic)
	if err != nil {
		t.mu.Lock()
		t.away, t.again = err, time.Now().Add(time.Second)
		t.mu.Unlock()
	}
	return opened, err
}

func (t *Transport) openPublisher(topic string) (chan<- *sarama.ProducerMessage, error) {
	client, err := t.publishing()
	if err != nil {
		return nil, err
	}
	if err := t.ensureEphemeral(t.topic(topic)); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ensured[topic] = true
	if t.closed {
		return nil, errClosed
	}
	if t.ephemeral == nil {
		producer, err := sarama.NewAsyncProducerFromClient(client)
		if err != nil {
			return nil, fmt.Errorf("make a producer: %w", err)
		}
		waiting := make(chan *sarama.ProducerMessage, ephemeralBacklog)
		t.ephemeral = waiting
		t.producers.Go(func() {
			for m := range waiting {
				producer.Input() <- m
			}
			producer.AsyncClose()
		})
		t.producers.Go(func() { t.readErrors(producer) })
	}
	return t.ephemeral, nil
}

func (t *Transport) readErrors(producer sarama.AsyncProducer) {
	for lost := range producer.Errors() {
		t.o.Log.WithError(lost.Err).WithField("topic", lost.Msg.Topic).Debug("an ephemeral message is lost")
		if errors.Is(lost.Err, sarama.ErrUnknownTopicOrPartition) || errors.Is(lost.Err, sarama.ErrInvalidPartition) {
			// The broker was wiped: the topic is made anew.
			t.mu.Lock()
			clear(t.ensured)
			t.mu.Unlock()
		}
	}
}

// Subscribe hands ephemeral messages to handle, one at a time, until ctx ends.
func (t *Transport) Subscribe(
	ctx context.Context, topic string, handle func(key string, value []byte), listening func(),
) error {
	failing := outage{log: t.o.Log.WithField("topic", topic), what: "listening to ephemeral messages"}
	for {
		err := t.listen(ctx, topic, &failing, handle, listening)
		if ctx.Err() != nil {
			return nil
		}
		pause(ctx, failing.failed(err))
	}
}

// listen hears all partitions from their ends on, until one cannot be heard any more.
func (t *Transport) listen(
	ctx context.Context, topic string, failing *outage, handle func(key string, value []byte), listening func(),
) error {
	c := t.config()
	c.Consumer.MaxWaitTime = 250 * time.Millisecond
	c.Consumer.Retry.Backoff = 250 * time.Millisecond
	client, err := t.dial(c)
	if err != nil {
		return err
	}
	defer func() {
		if err := client.Close(); err != nil {
			failing.log.WithError(err).Debug("closing a connection to kafka")
		}
	}()
	name := t.topic(topic)
	if err := t.ensureEphemeral(name); err != nil {
		return err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	messages := make(chan *sarama.ConsumerMessage)
	all := true // partitions can be heard
	for p := range int32(ephemeralPartitions) {
		partition, err := consumer.ConsumePartition(name, p, sarama.OffsetNewest)
		if err != nil {
			all = false
			group.Go(func() error { return fmt.Errorf("listen to %s/%d: %w", name, p, err) })
			break
		}
		group.Go(func() error {
			defer partition.Close() //nolint:errcheck // what it could not hear is lost, as it may be
			for {
				select {
				case <-ctx.Done():
					return nil
				case m, open := <-partition.Messages():
					if !open {
						return fmt.Errorf("%s/%d cannot be read on", name, p)
					}
					select {
					case messages <- m:
					case <-ctx.Done():
						return nil
					}
				}
			}
		})
	}
	group.Go(func() error {
		if all && ctx.Err() == nil {
			failing.over()
			if listening != nil {
				listening()
			}
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-messages:
				handle(string(m.Key), m.Value)
			}
		}
	})
	err = group.Wait()
	return errors.Join(err, consumer.Close())
}
