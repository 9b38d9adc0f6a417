package eventlog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// poll is how often is asked for what nobody tells of.
	poll = time.Second
	// pollHeads is how often a process that is alone compares heads although nothing was heard: a tool may append from another one.
	pollHeads = 5 * time.Second
)

// Embedded carries records within one process: consumers read the rows that producers have written, as soon as they are
// told of a commit, and every pollHeads. Commits wake no consumer that is idle.
type Embedded struct {
	mu          sync.Mutex
	followers   map[string]map[chan struct{}]*Consumer // by topic
	subscribers map[string]map[*subscriber]struct{}
}

type subscriber struct{ messages chan message }

type message struct {
	key   string
	value []byte
}

// ephemeralBacklog is how many ephemeral messages wait for a slow subscriber before the next ones are lost.
const ephemeralBacklog = 1024

// NewEmbedded makes a Transport for the components of one process.
func NewEmbedded() *Embedded {
	return &Embedded{followers: make(map[string]map[chan struct{}]*Consumer), subscribers: make(map[string]map[*subscriber]struct{})}
}

// Relay wakes the followers of a log's topics after each commit, and prunes the log.
func (e *Embedded) Relay(ctx context.Context, l *Log) error {
	var all sync.WaitGroup
	all.Go(func() { l.RunPruning(ctx) })
	for _, t := range l.Topics() {
		wake, cancel := t.Subscribe()
		defer cancel()
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-wake:
					e.wake(t.Name())
				}
			}
		})
	}
	all.Wait()
	return nil
}

func (e *Embedded) wake(topic string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for wake, c := range e.followers[topic] {
		if !c.unwanted() { // otherwise it looks by itself, now and then
			nudge(wake)
		}
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Follow runs all partitions of a consumer.
func (e *Embedded) Follow(ctx context.Context, c *Consumer) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	e.mu.Lock()
	put(e.followers, c.Topic, wake, c)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.followers[c.Topic], wake)
	}()

	group, ctx := errgroup.WithContext(ctx)
	var releases []func()
	var wakes [Partitions]chan struct{}
	for p := range wakes {
		wakes[p] = make(chan struct{}, 1)
	}
	group.Go(func() error {
		c.Tend(ctx, func(p int32) { nudge(wakes[p]) })
		return nil
	})
	group.Go(func() error {
		// Partitions are claimed one after the other: a database has few connections, and one writer.
		for p := range int32(Partitions) {
			release, err := c.Own(ctx, p)
			releases = append(releases, release)
			if err != nil || ctx.Err() != nil {
				return err
			}
			group.Go(func() error { return followPartition(ctx, c, p, wakes[p]) })
		}
		ticker := time.NewTicker(pollHeads)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-wake:
			case <-ticker.C:
			}
			if err := e.dispatch(ctx, c, &wakes); err != nil && ctx.Err() == nil {
				c.Log.WithError(err).Warn("the heads of a log cannot be read now")
			}
		}
	})
	defer func() {
		for _, release := range releases {
			release()
		}
	}()
	return group.Wait()
}

func followPartition(ctx context.Context, c *Consumer, p int32, wake <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			if err := c.Run(ctx, p, func(ctx context.Context) error { return c.CatchUp(ctx, p) }); err != nil {
				return err
			}
		}
	}
}

// dispatch wakes the partitions that are behind.
func (e *Embedded) dispatch(ctx context.Context, c *Consumer, wakes *[Partitions]chan struct{}) error {
	heads, err := c.Source.Heads(ctx, HeadsRequest{Topic: c.Topic})
	if err != nil {
		return err
	}
	if len(heads.Heads) != Partitions {
		return fmt.Errorf("%s has %d partitions, not %d", c.Topic, len(heads.Heads), Partitions)
	}
	for p, head := range heads.Heads {
		// One that is ahead of the head has another log: CatchUp says so.
		if head != c.Applied(int32(p)) {
			nudge(wakes[p])
		}
	}
	return nil
}

// Publish hands a message to the subscribers.
func (e *Embedded) Publish(_ context.Context, topic, key string, value []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subscribers[topic] {
		select {
		case s.messages <- message{key, value}:
		default: // it may be lost
		}
	}
	return nil
}

// Subscribe hands messages to a handler.
func (e *Embedded) Subscribe(ctx context.Context, topic string, handle func(key string, value []byte), listening func()) error {
	s := &subscriber{make(chan message, ephemeralBacklog)}
	e.mu.Lock()
	put(e.subscribers, topic, s, struct{}{})
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers[topic], s)
	}()
	if listening != nil {
		listening()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.messages:
			handle(m.key, m.value)
		}
	}
}

func put[K comparable, V any](sets map[string]map[K]V, topic string, k K, v V) {
	if sets[topic] == nil {
		sets[topic] = make(map[K]V)
	}
	sets[topic][k] = v
}

// Ready is always true: there is no broker.
func (e *Embedded) Ready(context.Context) error { return nil }
