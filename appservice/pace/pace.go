// Package pace keeps streams from becoming as many commits and requests as they have events: the first go at once, and
// those that come faster than a rate are gathered.
package pace

import (
	"context"
	"time"
)

// perSecond is how many steps there are in a second, after atOnce that did not have to wait.
const (
	perSecond = 50
	atOnce    = 100
)

// Pace is how fast steps follow each other. Its zero value has not begun. It is for one goroutine.
type Pace struct {
	spent float64 // steps that were made ahead of the rate
	at    time.Time
}

// Next counts a step, and tells how long to wait for it.
func (p *Pace) Next(now time.Time) time.Duration {
	p.spent = max(0, p.spent-perSecond*max(0, now.Sub(p.at).Seconds())) + 1
	p.at = now
	if p.spent <= atOnce {
		return 0
	}
	return time.Duration((p.spent - atOnce) / perSecond * float64(time.Second))
}

// Wait counts a step, and waits until it may be made, or ctx ends.
func (p *Pace) Wait(ctx context.Context) {
	wait := p.Next(time.Now())
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
