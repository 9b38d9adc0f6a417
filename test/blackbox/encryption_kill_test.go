package blackbox

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/common/test/parts"
	"github.com/matrix-org/dendrite/test/deploy"
)

// Processes of a polylith with two of each component are killed again and again. No message to a device, no one-time
// key and no change of a device list is lost, and none is given twice.
func TestKillsLoseNothingOfEncryption(t *testing.T) {
	t.Parallel()
	deploy.Chosen(t, polylith)
	d := deployed(deploy.Own(t, polylith, deploy.Options{Replicas: config.Components()}))
	seed := test.Seed(t)
	t.Run("messages to devices", func(t *testing.T) { killMail(t, d, seed) })
	t.Run("one-time keys", func(t *testing.T) { killClaims(t, d, seed) })
	t.Run("device lists", func(t *testing.T) { killDeviceLists(t, d, seed) })
}

// toil is work that goes on while processes are killed: workers take one unit of it after the other.
type toil struct {
	t       *testing.T
	ctx     context.Context
	units   chan int
	failed  chan error
	workers sync.WaitGroup // they end when there are no more units
	others  sync.WaitGroup // they end by themselves
	failing atomic.Int64   // requests that were not answered, or by a server that was not whole
}

// newToil makes work. Whoever works ends with the test at the latest.
func newToil(t *testing.T) *toil {
	ctx, cancel := context.WithCancel(t.Context())
	w := &toil{t: t, ctx: ctx, units: make(chan int, 20), failed: make(chan error, 1)}
	t.Cleanup(func() {
		cancel()
		w.workers.Wait()
		w.others.Wait()
	})
	return w
}

// work starts a worker, who does one unit after the other.
func (w *toil) work(do func(ctx context.Context, unit int) error) {
	w.run(&w.workers, func(ctx context.Context) error {
		for unit := range w.units {
			if err := do(ctx, unit); err != nil {
				return err
			}
		}
		return nil
	})
}

// beside starts something that ends by itself.
func (w *toil) beside(do func(ctx context.Context) error) { w.run(&w.others, do) }

func (w *toil) run(group *sync.WaitGroup, do func(ctx context.Context) error) {
	group.Go(func() {
		if err := do(w.ctx); err != nil && w.ctx.Err() == nil {
			select {
			case w.failed <- err:
			default: // the first says enough
			}
		}
	})
}

// insist is a client's insist that counts what failed.
func (w *toil) insist(ctx context.Context, c *client, method, path string, body any) (gjson.Result, error) {
	answer, failures, err := c.insist(ctx, method, path, body)
	w.failing.Add(int64(failures))
	return answer, err
}

// under gives out so many units, and kills so many processes at even distances meanwhile, most often those of the
// components that are named. It returns when all is given out.
func (w *toil) under(d *deployment, random *rand.Rand, units, kills int, components ...string) {
	w.t.Helper()
	defer close(w.units)
	for unit := range units {
		select {
		case w.units <- unit:
		case err := <-w.failed:
			w.t.Fatal(err)
		case <-time.After(recoverWithin):
			w.t.Fatalf("nobody has taken work for %v", recoverWithin)
		}
		if (unit+1)*kills/units == unit*kills/units {
			continue
		}
		victim := victimOf(w.t, d, random, components)
		before, began := w.failing.Load(), time.Now()
		if err := victim.Kill(); err != nil {
			w.t.Fatal(err)
		}
		if err := victim.Start(w.t.Context()); err != nil {
			w.t.Fatalf("%s does not come back: %v", victim.Name, err)
		}
		w.t.Logf("%-16s killed at unit %5d, healthy after %4d ms; %3d requests were repeated", victim.Name, unit,
			time.Since(began).Milliseconds(), w.failing.Load()-before)
	}
}

// await waits for the end of a group.
func (w *toil) await(what string, group *sync.WaitGroup) {
	w.t.Helper()
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		select {
		case err := <-w.failed:
			w.t.Fatal(err)
		default:
		}
	case err := <-w.failed:
		w.t.Fatal(err)
	case <-time.After(2 * recoverWithin):
		w.t.Fatalf("not within %v: %s", 2*recoverWithin, what)
	}
}

// victimOf chooses a process, most often one of these components.
func victimOf(t *testing.T, d *deployment, random *rand.Rand, components []string) *parts.Server {
	t.Helper()
	if random.IntN(5) == 0 {
		components = config.Components()
	}
	return d.process(t, pick(random, components)+pick(random, []string{"", "-2"}))
}
