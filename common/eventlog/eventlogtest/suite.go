package eventlogtest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/matrix-org/dendrite/common/sqlutil"
)

// Failpoints are the named steps between which anything may be killed, whatever the transport.
var failpoints = [...]string{"commit.before", "commit.after", "append.before", "append.after",
	"consumer.handled", "consumer.moved", "consumer.written", "consumer.committed"}

var errInjected = errors.New("this step fails for a test")

type test struct {
	name string
	body func(t *testing.T, w *world)
	// with is what the harness must be able to do; nil: nothing.
	with func(h Harness) func(t *testing.T)
}

var suite = [...]test{
	{name: "everything arrives in order", body: arrives},
	{name: "each step fails once", body: func(t *testing.T, w *world) { eachStep(t, w, 1) }},
	{name: "each step fails several times", body: func(t *testing.T, w *world) { eachStep(t, w, 3) }},
	{name: "any step fails now and then", body: nowAndThen},
	{name: "processes are replaced", body: replaced},
	{name: "two relays", body: twoRelays},
	{name: "two owners of a partition", body: twoOwners},
	{name: "replicas join and leave", body: replicas},
	{name: "other transactions fail beside", body: othersFail},
	{name: "a key is parked and tried again", body: parkedKey},
	{name: "what panics is parked", body: panics},
	{name: "who waits is one entry until the call ends", body: waits},
	{name: "the operator retries a parked key", body: retriedKey},
	{name: "the operator drops a parked key", body: droppedKey},
	{name: "pruning keeps what is needed", body: pruning},
	{name: "pruning while consumers come and go", body: pruningMeanwhile},
	{name: "a topic that nobody follows is pruned", body: pruningUnfollowed},
	{name: "another log stops the consumer", body: anotherLog},
	{name: "a consumer begins with the newest", body: newest},
	{name: "ephemeral messages", body: ephemeral},
	{name: "the broker restarts", body: restarts, with: func(h Harness) func(t *testing.T) { return h.Restart }},
	{name: "the broker is wiped", body: wiped, with: func(h Harness) func(t *testing.T) { return h.Wipe }},
}

// Run is the conformance suite. Its tests mostly wait, and have tables and topics of their own, so they run at the same time, after
// those in which what lies between the processes is restarted.
func Run(t *testing.T, h Harness) {
	Databases(t, func(t *testing.T, open func(*testing.T) *sqlutil.DB) {
		for _, test := range suite {
			if test.with == nil || test.with(h) != nil {
				t.Run(test.name, func(t *testing.T) {
					if test.with == nil {
						t.Parallel()
					}
					test.body(t, newWorld(t, h, open))
				})
			}
		}
	})
}

// Each makes one of something for each test. Whoever calls what it returns with the same test gets the same one.
func Each[T any](make func(t *testing.T) T) func(t *testing.T) T {
	var mu sync.Mutex
	of := map[string]T{}
	return func(t *testing.T) T {
		mu.Lock()
		defer mu.Unlock()
		one, has := of[t.Name()]
		if !has {
			one = make(t)
			of[t.Name()] = one
		}
		return one
	}
}

// RunOutages is the part of the suite in which what lies between the processes is restarted and wiped, on SQLite, for a broker that
// takes seconds to start.
func RunOutages(t *testing.T, h Harness) {
	for _, test := range suite {
		if test.with != nil && test.with(h) != nil {
			t.Run(test.name, func(t *testing.T) { test.body(t, newWorld(t, h, openSQLite)) })
		}
	}
}

func arrives(t *testing.T, w *world) {
	p := w.producer(w.h.New(t))
	p.sendAll(20, 0, 3) // before anybody follows
	f := w.follower(w.h.New(t))
	w.reached(f)
	w.exact()
	p.sendAll(20, 3, 20)
	w.reached(f)
	w.exact()
}

// steps counts how often each failpoint is passed, and makes one of them fail.
type steps struct {
	mu     sync.Mutex
	passed map[string]int
	armed  string
	left   int
}

func (s *steps) fail(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed[name]++
	if name == s.armed && s.left > 0 {
		s.left--
		return fmt.Errorf("%s: %w", name, errInjected)
	}
	return nil
}

func (s *steps) arm(name string, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.left = name, times
}

func (s *steps) unused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

func eachStep(t *testing.T, w *world, times int) {
	s := &steps{passed: make(map[string]int)}
	w.both(s.fail)
	transport := w.h.New(t)
	p := w.producer(transport)
	f := w.follower(transport)
	all := slices.Concat(failpoints[:], w.h.Failpoints)
	sent := int64(0)
	round := func() {
		p.sendAll(6, sent, sent+4)
		sent += 4
		w.reached(f)
		w.exact()
	}
	round()
	for _, name := range all {
		s.arm(name, times)
		round()
		for range 20 { // a batch may have been so large that a step was passed too seldom
			if s.unused() == 0 {
				break
			}
			round()
		}
		if s.unused() > 0 {
			t.Errorf("%s was not passed %d times", name, times)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.passed {
		if !slices.Contains(all, name) {
			t.Errorf("the step %s is not among those that the suite makes fail", name)
		}
	}
}

// seeded makes a source of chance that a failure can be repeated with.
func seeded(t *testing.T) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.Name()))
	seed := h.Sum64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// nowAndThen begins to follow while steps fail. The tables are there by then: a process that cannot make them does not start.
func nowAndThen(t *testing.T, w *world) {
	chance := seeded(t)
	var mu sync.Mutex
	p, consumer := w.producer(w.h.New(t)), w.consumer()
	w.both(func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		if chance.IntN(20) == 0 {
			return fmt.Errorf("%s: %w", name, errInjected)
		}
		return nil
	})
	f := w.follow(w.h.New(t), consumer)
	p.sendAll(10, 0, 15)
	w.both(nil)
	w.reached(f)
	w.exact()
}
