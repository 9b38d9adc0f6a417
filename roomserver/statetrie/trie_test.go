package statetrie_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

// store is Nodes in memory. It counts, and fails the test if it is asked for what was not stored.
type store struct {
	t     testing.TB
	nodes map[statetrie.Hash]statetrie.Node
	loads int
	read  int
}

func newStore(t testing.TB) *store { return &store{t: t, nodes: map[statetrie.Hash]statetrie.Node{}} }

func (s *store) Load(_ context.Context, hashes []statetrie.Hash) ([]statetrie.Node, error) {
	s.loads++
	var found []statetrie.Node
	for _, hash := range hashes {
		n, is := s.nodes[hash]
		if !is {
			s.t.Errorf("node %s was not stored", hash)
			return nil, errors.New("no such node")
		}
		s.read++
		found = append(found, n)
	}
	return found, nil
}

func (s *store) put(nodes []statetrie.Node) {
	for _, n := range nodes {
		s.nodes[n.Hash] = n
	}
}

// cold is a Trie that reads every node from the store.
func (s *store) cold() *statetrie.Trie { return statetrie.New(s, statetrie.NewCache(0)) }

// update changes a state and stores it. Every node must be new.
func (s *store) update(root statetrie.Hash, changes []statetrie.Entry) (statetrie.Hash, []statetrie.Node) {
	s.t.Helper()
	next, nodes, err := s.cold().Update(context.Background(), root, changes)
	if err != nil {
		s.t.Fatal(err)
	}
	s.put(nodes)
	return next, nodes
}

type model map[statetrie.KeyNID]statetrie.EventNID

func (m model) apply(changes []statetrie.Entry) model {
	m = maps.Clone(m)
	for _, c := range changes {
		if m[c.Key] = c.Event; c.Event == 0 {
			delete(m, c.Key)
		}
	}
	return m
}

func (m model) entries(wanted func(statetrie.KeyNID) bool) []statetrie.Entry {
	var entries []statetrie.Entry
	for k, e := range m {
		if wanted == nil || wanted(k) {
			entries = append(entries, statetrie.Entry{Key: k, Event: e})
		}
	}
	slices.SortFunc(entries, func(a, b statetrie.Entry) int { return cmp.Compare(a.Key, b.Key) })
	return entries
}

func (m model) diff(to model) []statetrie.Difference {
	var found []statetrie.Difference
	for k, e := range m {
		if to[k] != e {
			found = append(found, statetrie.Difference{Key: k, Old: e, New: to[k]})
		}
	}
	for k, e := range to {
		if _, had := m[k]; !had {
			found = append(found, statetrie.Difference{Key: k, New: e})
		}
	}
	slices.SortFunc(found, func(a, b statetrie.Difference) int { return cmp.Compare(a.Key, b.Key) })
	return found
}

func randomChanges(r *rand.Rand, keys int) []statetrie.Entry {
	changes := make([]statetrie.Entry, 1+r.IntN(1+r.IntN(60)))
	removing := r.IntN(3)
	for i := range changes {
		changes[i] = statetrie.Entry{Key: statetrie.KeyNID(1 + r.IntN(keys)), Event: statetrie.EventNID(r.Int64N(1<<40) + 1)}
		if r.IntN(3) < removing {
			changes[i].Event = 0
		}
	}
	return changes
}

func reachable(t testing.TB, s *store, root statetrie.Hash) map[statetrie.Hash]bool {
	t.Helper()
	before := s.read
	counting := &recorder{store: s, seen: map[statetrie.Hash]bool{}}
	if _, err := statetrie.New(counting, statetrie.NewCache(0)).Entries(context.Background(), root, statetrie.All); err != nil {
		t.Fatal(err)
	}
	s.read = before
	return counting.seen
}

type recorder struct {
	*store
	seen map[statetrie.Hash]bool
}

func (r *recorder) Load(ctx context.Context, hashes []statetrie.Hash) ([]statetrie.Node, error) {
	for _, hash := range hashes {
		r.seen[hash] = true
	}
	return r.store.Load(ctx, hashes)
}

func TestTrieIsAMapWhateverItsHistory(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		keys := []int{5, 40, 70, 300, 3000}[seed%5]
		s := newStore(t)
		state, root := model{}, statetrie.Hash{}
		for step := range 60 {
			changes := randomChanges(r, keys)
			oldNodes := reachable(t, s, root)
			nextState := state.apply(changes)
			next, nodes := s.update(root, changes)

			// Exactly the nodes that the new trie has and the old one has not are returned, once each.
			fresh := map[statetrie.Hash]bool{}
			for _, n := range nodes {
				if fresh[n.Hash] || oldNodes[n.Hash] {
					t.Fatalf("seed %d step %d: node %s is not new", seed, step, n.Hash)
				}
				fresh[n.Hash] = true
			}
			newNodes := reachable(t, s, next)
			for hash := range newNodes {
				if !oldNodes[hash] && !fresh[hash] {
					t.Fatalf("seed %d step %d: node %s is missing", seed, step, hash)
				}
			}
			for hash := range fresh {
				if !newNodes[hash] {
					t.Fatalf("seed %d step %d: node %s belongs to nothing", seed, step, hash)
				}
			}
			if (root == next) != maps.Equal(state, nextState) {
				t.Fatalf("seed %d step %d: same root %v, same state %v", seed, step, root == next, maps.Equal(state, nextState))
			}
			compare(t, s.cold(), next, nextState)
			compareDiff(t, s.cold(), root, next, state, nextState)
			state, root = nextState, next
		}

		// The same state from nothing, in another order and in other steps.
		entries := state.entries(nil)
		r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		other := statetrie.Hash{}
		for part := range slices.Chunk(entries, 1+r.IntN(50)) {
			other, _ = s.update(other, part)
		}
		if other != root {
			t.Fatalf("seed %d: the same state has two roots", seed)
		}
		for i := range entries {
			entries[i].Event = 0
		}
		if empty, nodes := s.update(root, entries); !empty.IsZero() || len(nodes) > 0 {
			t.Fatalf("seed %d: the empty state is %s with %d new nodes", seed, empty, len(nodes))
		}
	}
}

func compare(t *testing.T, trie *statetrie.Trie, root statetrie.Hash, want model) {
	t.Helper()
	ctx := context.Background()
	for part, wanted := range map[statetrie.Part]func(statetrie.KeyNID) bool{
		statetrie.All: nil, statetrie.Members: statetrie.KeyNID.IsMember,
		statetrie.Others: func(k statetrie.KeyNID) bool { return !k.IsMember() },
	} {
		got, err := trie.Entries(ctx, root, part)
		if err != nil || !slices.Equal(got, want.entries(wanted)) {
			t.Fatalf("part %d has %d entries, want %d; %v", part, len(got), len(want.entries(wanted)), err)
		}
	}
	ask := []statetrie.KeyNID{1, 2, 3, 4, 1 << 50, 1<<50 + 1}
	for k := range want {
		if ask = append(ask, k); len(ask) > 30 {
			break
		}
	}
	got, err := trie.Get(ctx, root, ask)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range ask {
		if e, is := got[k]; e != want[k] || is != (want[k] != 0) {
			t.Fatalf("key %d is %d, want %d", k, got[k], want[k])
		}
	}
}

func compareDiff(t *testing.T, trie *statetrie.Trie, a, b statetrie.Hash, was, is model) {
	t.Helper()
	for range 2 {
		got, err := trie.Diff(context.Background(), a, b)
		if err != nil || !slices.Equal(got, was.diff(is)) {
			t.Fatalf("the difference is %v, want %v; %v", got, was.diff(is), err)
		}
		a, b, was, is = b, a, is, was
	}
}

func TestDiffOfStatesWithNothingInCommon(t *testing.T) {
	s := newStore(t)
	for _, sizes := range [][2]int{{0, 1}, {1, 500}, {32, 33}, {33, 34}, {30, 20000}, {600, 700}} {
		var states [2]model
		var roots [2]statetrie.Hash
		for i, n := range sizes {
			states[i] = model{}
			for j := range n {
				states[i][statetrie.KeyNID(2*j+2-i)] = statetrie.EventNID(j + 1)
				states[i][statetrie.KeyNID(2*j+2)] = statetrie.EventNID(j + 1 + i)
			}
			roots[i], _ = s.update(statetrie.Hash{}, states[i].entries(nil))
		}
		compareDiff(t, s.cold(), roots[0], roots[1], states[0], states[1])
	}
}

func TestUpdateTakesTheLastChangeOfAKey(t *testing.T) {
	s := newStore(t)
	root, _ := s.update(statetrie.Hash{}, []statetrie.Entry{{2, 7}, {4, 1}, {2, 0}, {2, 9}, {4, 0}})
	compare(t, s.cold(), root, model{2: 9})
	if same, nodes := s.update(root, []statetrie.Entry{{6, 0}, {1, 0}, {2, 9}, {2, 1}, {2, 9}}); same != root || nodes != nil {
		t.Fatalf("changing nothing gives %s with %d nodes", same, len(nodes))
	}
	for _, bad := range []statetrie.Entry{{0, 1}, {-1, 1}, {1, -1}} {
		if _, _, err := s.cold().Update(context.Background(), root, []statetrie.Entry{bad}); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// room is a state of n entries, one in ten of them no member.
func room(s *store, n int) (statetrie.Hash, model) {
	state := model{}
	for i := range n {
		k := statetrie.KeyNID(2*i + 1)
		if i%10 == 0 {
			k++
		}
		state[k] = statetrie.EventNID(i + 1)
	}
	root, _ := s.update(statetrie.Hash{}, state.entries(nil))
	return root, state
}

// A new key that splits a full leaf writes up to 16 more nodes. The bounds of single changes allow for it, that of the average
// does not.
func TestOneChangeWritesAndReadsFewNodes(t *testing.T) {
	for n, most := range map[int]int{30: 2, 1000: 4, 100_000: 6} {
		s := newStore(t)
		root, state := room(s, n)
		r := rand.New(rand.NewPCG(1, 2))
		sum := 0
		for i := range 200 {
			k := statetrie.KeyNID(r.IntN(2*n) + 1)
			s.loads, s.read = 0, 0
			change := []statetrie.Entry{{k, statetrie.EventNID(n + i + 1)}}
			next, nodes := s.update(root, change)
			sum += len(nodes)
			if s.loads > most || s.read > most || len(nodes) > most && state[k] != 0 || len(nodes) > most+17 {
				t.Fatalf("%d entries: setting key %d made %d loads of %d nodes and %d new nodes", n, k, s.loads, s.read, len(nodes))
			}
			s.loads, s.read = 0, 0
			diff, err := s.cold().Diff(context.Background(), root, next)
			if err != nil || len(diff) != 1 || s.loads > most+1 || s.read > 2*most+17 {
				t.Fatalf("%d entries: a difference of %d in %d loads of %d nodes; %v", n, len(diff), s.loads, s.read, err)
			}
			s.loads, s.read = 0, 0
			if _, err = s.cold().Get(context.Background(), next, []statetrie.KeyNID{k, 2, 3, 5, 7}); err != nil || s.loads > most {
				t.Fatalf("%d entries: getting five keys made %d loads; %v", n, s.loads, err)
			}
		}
		if sum > 200*most {
			t.Errorf("%d entries: a change wrote %.1f nodes on average, want at most %d", n, float64(sum)/200, most)
		}
		s.loads, s.read = 0, 0
		others, err := s.cold().Entries(context.Background(), root, statetrie.Others)
		if err != nil || s.loads > most || s.read > len(others)/2+4 {
			t.Errorf("%d entries: reading %d others made %d loads of %d nodes; %v", n, len(others), s.loads, s.read, err)
		}
	}
}

func TestNewNodesAreReadableBeforeTheyAreStored(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	root, state := room(s, 500)
	changes := []statetrie.Entry{{1, 0}, {3, 10_000}, {5000, 10_001}}
	cached := statetrie.New(s, statetrie.NewCache(1<<20))
	next, nodes, err := cached.Update(ctx, root, changes)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, cached, next, state.apply(changes))

	// A cache that forgets: the Trie remembers.
	with := s.cold()
	if err := with.Include(nodes); err != nil {
		t.Fatal(err)
	}
	compare(t, with, next, state.apply(changes))
	last, more, err := with.Update(ctx, next, []statetrie.Entry{{7, 10_002}})
	if err != nil {
		t.Fatal(err)
	}
	if err := with.Include(more); err != nil {
		t.Fatal(err)
	}
	compare(t, with, last, state.apply(changes).apply([]statetrie.Entry{{7, 10_002}}))

	// The transaction failed: the next attempt returns the nodes again, although the cache has them.
	again, nodesAgain, err := cached.Update(ctx, root, changes)
	if err != nil || again != next || len(nodesAgain) != len(nodes) {
		t.Fatalf("the second attempt returns %d nodes, the first %d; %v", len(nodesAgain), len(nodes), err)
	}
}

func TestCacheKeepsItsSizeAndSavesLoads(t *testing.T) {
	s := newStore(t)
	root, state := room(s, 3000)
	trie := statetrie.New(s, statetrie.NewCache(1<<20))
	compare(t, trie, root, state)
	s.loads = 0
	compare(t, trie, root, state)
	if s.loads != 0 {
		t.Errorf("what is in the cache was loaded %d times", s.loads)
	}
	small := statetrie.New(s, statetrie.NewCache(10_000))
	compare(t, small, root, state)
	compare(t, small, root, state)
	if s.loads == 0 {
		t.Error("a cache of 10 kB has a state of 3,000 entries")
	}
}
