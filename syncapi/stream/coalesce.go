package stream

import (
	"context"
	"sync"
	"time"
)

// Coalesced asks a question once for all who want an answer at the same time. Each gets an answer to a question that was asked
// after they came.
type Coalesced[T any] struct {
	Ask func(ctx context.Context) (T, error)

	mu      sync.Mutex
	next    *asked[T]
	running bool
}

type asked[T any] struct {
	answer T
	err    error
	done   chan struct{}
}

// askTimeout ends a question that nobody answers.
const askTimeout = 10 * time.Second

// Get asks, together with others.
func (c *Coalesced[T]) Get(ctx context.Context) (T, error) {
	c.mu.Lock()
	if c.next == nil {
		c.next = &asked[T]{done: make(chan struct{})}
	}
	q := c.next
	if !c.running {
		c.running = true
		go c.run()
	}
	c.mu.Unlock()
	select {
	case <-q.done:
		return q.answer, q.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// run asks until nobody wants an answer. It ends by itself soon after those who wait have gone.
func (c *Coalesced[T]) run() {
	for {
		c.mu.Lock()
		q := c.next
		c.next = nil
		if q == nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		q.answer, q.err = c.Ask(ctx)
		cancel()
		close(q.done)
	}
}
