// Package periodic is how work is done that comes again and again.
package periodic

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"
)

// Run calls do after each period, until ctx ends. A call that fails is logged with what it means, and is not repeated before its time.
func Run(ctx context.Context, every time.Duration, log *logrus.Entry, what string, do func(ctx context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := do(ctx); err != nil && ctx.Err() == nil {
				log.WithError(err).Warn(what)
			}
		}
	}
}
