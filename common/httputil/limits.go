package httputil

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// callersPerLimit bounds the memory of a limit. The caller who was seen longest ago is forgotten, which gives it a full bucket.
const callersPerLimit = 20_000

// Limits are the rate limits of a process: for each name, a token bucket for each caller.
type Limits struct {
	byName map[string]*limit
}

type limit struct {
	rate    rate.Limit
	burst   int
	callers *lru.Cache[string, *rate.Limiter]
}

// NewLimits makes the limits that a configuration names; none if they are disabled.
func NewLimits(c config.RateLimits) (*Limits, error) {
	l := &Limits{byName: make(map[string]*limit)}
	if c.Disabled {
		return l, nil
	}
	for name, r := range c.ByName {
		callers, err := lru.New[string, *rate.Limiter](callersPerLimit)
		if err != nil {
			return nil, err
		}
		l.byName[name] = &limit{rate: rate.Limit(r.PerSecond), burst: r.Burst, callers: callers}
	}
	return l, nil
}

// Allow takes one token of a caller's bucket, or says with M_LIMIT_EXCEEDED when there will be one. A name without a limit allows
// everything.
func (l *Limits) Allow(name, caller string) error {
	limit := l.byName[name]
	if limit == nil {
		return nil
	}
	bucket, has := limit.callers.Get(caller)
	if !has {
		bucket = rate.NewLimiter(limit.rate, limit.burst)
		if earlier, lost, _ := limit.callers.PeekOrAdd(caller, bucket); lost {
			bucket = earlier
		}
	}
	now := time.Now()
	reservation := bucket.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return mxerr.LimitExceeded(wait)
	}
	return nil
}
