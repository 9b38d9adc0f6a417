package pace

import (
	"testing"
	"time"
)

func TestAStreamIsGatheredAfterItsFirstSteps(t *testing.T) {
	var p Pace
	now := time.UnixMilli(1_700_000_000_000)
	for i := range atOnce {
		if wait := p.Next(now); wait != 0 {
			t.Fatalf("step %d waits %v", i, wait)
		}
	}
	began := now
	for range 10 * perSecond {
		now = now.Add(p.Next(now))
	}
	if took := now.Sub(began); took < 9*time.Second || took > 11*time.Second {
		t.Errorf("%d further steps take %v, want 10 s", 10*perSecond, took)
	}
	now = now.Add(time.Minute)
	for i := range atOnce {
		if wait := p.Next(now); wait != 0 {
			t.Fatalf("after a rest, step %d waits %v", i, wait)
		}
	}
}
