package lru_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/lru"
	"github.com/matrix-org/dendrite/common/test"
)

func lengths(k int, v string) int { return len(v) }

// The entries and what left are those of a list that is kept by hand, whatever is done in which order.
func TestTheCacheKeepsWhatWasUsedLastWithinItsBound(t *testing.T) {
	const bound = 20_000
	chance := rand.New(rand.NewPCG(test.Seed(t), 0))
	left := map[int]int{}
	c := lru.NewWithEvict(bound, lengths, func(k int, _ string) { left[k]++ })
	put := map[int]int{}
	var used []int // the last one used first
	use := func(k int) { used = slices.Insert(slices.DeleteFunc(used, func(u int) bool { return u == k }), 0, k) }
	for range 20_000 {
		k := chance.IntN(60)
		switch chance.IntN(4) {
		case 0, 1:
			put[k]++
			use(k)
			c.Add(k, strings.Repeat("x", chance.IntN(2000)))
		case 2:
			if _, has := c.Get(k); has {
				use(k)
			}
		case 3:
			if chance.IntN(10) == 0 {
				c.Remove(k)
			}
		}
		if c.Bytes() > bound {
			t.Fatalf("%d bytes of %d", c.Bytes(), bound)
		}
		used = slices.DeleteFunc(used, func(k int) bool { return put[k] == left[k] })
		if c.Len() != len(used) {
			t.Fatalf("%d entries, %d were put in and did not leave", c.Len(), len(used))
		}
	}
	// The oldest leave first.
	before := slices.Clone(used)
	for i := range 40 {
		c.Add(1000+i, strings.Repeat("x", 900))
		used = slices.DeleteFunc(used, func(k int) bool { return put[k] == left[k] })
		if !slices.Equal(used, before[:len(used)]) {
			t.Fatalf("kept %v of %v", used, before)
		}
	}
	if len(used) > 0 {
		t.Errorf("%v are kept, although so much was used later", used)
	}
}

func TestWhatIsLargerThanTheCacheIsNotKept(t *testing.T) {
	c := lru.New(1000, lengths)
	c.Add(1, "small")
	c.Add(2, strings.Repeat("x", 1000))
	if _, has := c.Get(2); has || c.Len() != 1 {
		t.Errorf("%d entries, among them the large one: %v", c.Len(), has)
	}
	c.Add(1, strings.Repeat("x", 1000))
	if _, has := c.Get(1); has || c.Bytes() != 0 {
		t.Errorf("an entry that became too large is still there: %v, %d bytes", has, c.Bytes())
	}
}

func TestAddMissingKeepsWhatIsThere(t *testing.T) {
	c := lru.New(10_000, lengths)
	c.Add(1, "first")
	c.AddMissing(1, "second")
	c.AddMissing(2, "other")
	one, _ := c.Get(1)
	two, _ := c.Get(2)
	if one != "first" || two != "other" {
		t.Errorf("got %q and %q", one, two)
	}
	c.Purge()
	if c.Len() != 0 || c.Bytes() != 0 {
		t.Errorf("after Purge %d entries of %d bytes", c.Len(), c.Bytes())
	}
}
