package httputil

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/mxerr"
)

// Nobody gets a full bucket by making up callers, and these take no more memory however many they are.
func TestMadeUpCallersDoNotEndALimit(t *testing.T) {
	l := NewLimits(config.RateLimits{ByName: map[string]config.RateLimit{"login": {PerSecond: 1e-6, Burst: 3}}})
	for range 3 {
		if err := l.Allow("login", "victim"); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{callersPerLimit, 10 * callersPerLimit} {
		for i := range n {
			if err := l.Allow("login", fmt.Sprint("made up ", i)); err != nil && i > callersPerLimit {
				t.Fatal(err) // who was never seen is let in
			}
		}
		if err := l.Allow("login", "victim"); !mxerr.Is(err, "M_LIMIT_EXCEEDED") {
			t.Errorf("after %d made up callers: %v", n, err)
		}
		limit := l.byName["login"]
		if len(limit.buckets) != callersPerLimit || len(limit.places) != callersPerLimit {
			t.Errorf("%d callers: %d buckets, %d places", n, len(limit.buckets), len(limit.places))
		}
	}
	l.Return("login", "victim")
	if err := l.Allow("login", "victim"); err != nil {
		t.Errorf("with what was given back: %v", err)
	}
	for range 10 {
		l.Return("login", "victim")
	}
	for range 3 {
		if err := l.Allow("login", "victim"); err != nil {
			t.Error(err)
		}
	}
	if err := l.Allow("login", "victim"); err == nil {
		t.Error("a bucket holds more than its burst")
	}
}
