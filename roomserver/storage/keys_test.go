package storage

import (
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
)

// The cache of keys drops what was used least, both ways round, and never everything.
func TestTheCacheOfKeysDropsWhatWasUsedLeast(t *testing.T) {
	const max = 100_000
	c := newKeyCache(max)
	key := func(n int) auth.Key { return auth.Key{Type: "m.room.member", StateKey: fmt.Sprintf("@user%d:here", n)} }
	used := key(0)
	least := max
	for n := range 10_000 {
		c.put(map[auth.Key]statetrie.KeyNID{key(n): statetrie.KeyNID(n + 1)})
		if found, _ := c.names([]statetrie.KeyNID{1}); found[1] != used {
			t.Fatalf("after %d others, the key that is used all the time is %v", n, found)
		}
		if c.byKey.Bytes() > max || c.byKey.Len() != len(c.byNID) {
			t.Fatalf("%d bytes of %d; %d keys, %d numbers", c.byKey.Bytes(), max, c.byKey.Len(), len(c.byNID))
		}
		if n >= 1000 {
			least = min(least, c.byKey.Len())
		}
	}
	if least < max/1000 {
		t.Errorf("at times only %d keys were kept", least)
	}
	last := key(9_999)
	found, missing := c.numbers([]auth.Key{used, last, key(5)})
	if found[used] != 1 || found[last] != 10_000 || len(missing) != 1 {
		t.Errorf("found %v, missing %v", found, missing)
	}
}
