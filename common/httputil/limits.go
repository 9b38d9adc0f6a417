package httputil

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/mxerr"
)

const (
	// callersPerLimit bounds the memory of a limit.
	callersPerLimit = 20_000
	// candidates is among how many buckets, drawn at random, the fullest makes room for another caller. To be forgotten
	// gives back what is missing in a bucket. Who makes up callers makes full buckets, and so cannot have one forgotten
	// that is empty.
	candidates = 8
)

// Limits are the rate limits of a process: for each name, a token bucket for each caller.
type Limits struct {
	byName map[string]*limit
}

type limit struct {
	config.RateLimit
	mu      sync.Mutex
	places  map[string]int // of callers in buckets
	buckets []bucket
}

type bucket struct {
	caller string
	tokens float64
	at     time.Time // when it had them
}

// NewLimits makes the limits that a configuration names; none if they are disabled.
func NewLimits(c config.RateLimits) *Limits {
	l := &Limits{byName: make(map[string]*limit)}
	if c.Disabled {
		return l
	}
	for name, r := range c.ByName {
		l.byName[name] = &limit{RateLimit: r, places: make(map[string]int)}
	}
	return l
}

// Allow takes one token of a caller's bucket, or says with M_LIMIT_EXCEEDED when there will be one. A name without a limit allows
// everything.
func (l *Limits) Allow(name, caller string) error {
	limit := l.byName[name]
	if limit == nil {
		return nil
	}
	if wait := limit.take(caller, time.Now()); wait > 0 {
		return mxerr.LimitExceeded(wait)
	}
	return nil
}

// Return gives back a token that Allow took.
func (l *Limits) Return(name, caller string) {
	if limit := l.byName[name]; limit != nil {
		limit.giveBack(caller)
	}
}

// take takes a token, or tells how long it is until there is one.
func (l *limit) take(caller string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(caller, now)
	b.tokens, b.at = l.tokens(b, now), now
	if b.tokens < 1 {
		return max(time.Duration((1-b.tokens)/l.PerSecond*float64(time.Second)), 1)
	}
	b.tokens--
	return 0
}

func (l *limit) giveBack(caller string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, has := l.places[caller]; has {
		b := &l.buckets[at]
		b.tokens = min(b.tokens+1, float64(l.Burst))
	}
}

func (l *limit) tokens(b *bucket, now time.Time) float64 {
	return min(b.tokens+max(now.Sub(b.at), 0).Seconds()*l.PerSecond, float64(l.Burst))
}

// bucket is that of a caller: a full one, for who has none.
func (l *limit) bucket(caller string, now time.Time) *bucket {
	at, has := l.places[caller]
	if has {
		return &l.buckets[at]
	}
	if at = len(l.buckets); at < callersPerLimit {
		l.buckets = append(l.buckets, bucket{})
	} else {
		at = l.fullest(now)
		delete(l.places, l.buckets[at].caller)
	}
	l.places[caller] = at
	l.buckets[at] = bucket{caller, float64(l.Burst), now}
	return &l.buckets[at]
}

// fullest is the place of a bucket that few tokens are missing in.
func (l *limit) fullest(now time.Time) int {
	best := rand.IntN(len(l.buckets))
	for range candidates - 1 {
		if at := rand.IntN(len(l.buckets)); l.tokens(&l.buckets[at], now) > l.tokens(&l.buckets[best], now) {
			best = at
		}
	}
	return best
}
