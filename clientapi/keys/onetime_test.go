package keys

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/common/id"
)

// Whatever sizes keys have, what is stored of them is not much more than they are.
func TestKeysAreStoredWithoutMuchRoomBetweenThem(t *testing.T) {
	for name, size := range map[string]func(i int) int{
		"one long one":        func(i int) int { return 50 + i/499*8000 },
		"every second":        func(i int) int { return 50 + i%2*8000 },
		"longer and longer":   func(i int) int { return 50 + i*16 },
		"shorter and shorter": func(i int) int { return 8050 - i*16 },
		"alike":               func(i int) int { return 200 + i%3 },
	} {
		var keys []*oneTimeKey
		var wanted []oneTimeKey
		want := make(map[string]string)
		total := 0
		for i := range MaxOneTimeKeys {
			k := oneTimeKey{id: fmt.Sprintf("x:%03d", i), json: `"` + strings.Repeat("k", size(i)) + `"`}
			keys, wanted = append(keys, &k), append(wanted, k)
			want[k.id] = k.json
			total += len(k.json)
		}
		pool := &storage.KeyPool{NID: 7, Given: 3, Uploaded: 10}
		all := batches(pool, keys)
		stored, next := 0, int64(11)
		for _, b := range all {
			if b.Pool != 7 || b.First != next || int64(len(b.Slots)) != b.Width*(b.Last-b.First+1) {
				t.Errorf("%s: keys %d to %d come after %d", name, b.First, b.Last, next-1)
			}
			next, stored = b.Last+1, stored+len(b.Slots)
		}
		if next != pool.Uploaded+1 || pool.Uploaded != 10+MaxOneTimeKeys {
			t.Errorf("%s: %d keys are counted", name, pool.Uploaded)
		}
		if stored > 3*total {
			t.Errorf("%s: %d bytes of keys take %d", name, total, stored)
		}
		if name == "alike" && len(all) != 1 {
			t.Errorf("keys of one size are %d rows", len(all))
		}
		if found := find(all, wanted); !maps.Equal(found, want) {
			t.Errorf("%s: %d keys are found", name, len(found))
		}
	}
}

func TestAServerSpeaksForItsOwnUsersOnly(t *testing.T) {
	found := map[id.UserID]int{"@a:here": 1}
	copyAsked(found, map[id.UserID]int{"@a:here": 2, "@b:there": 3, "@c:there": 4}, map[id.UserID]bool{"@b:there": true})
	if !maps.Equal(found, map[id.UserID]int{"@a:here": 1, "@b:there": 3}) {
		t.Errorf("what is taken: %v", found)
	}
}
