package storage

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
)

func TestFiltersOfAUserAreBounded(t *testing.T) {
	d := open(t, nil)
	put := func(user id.UserID, i int) int64 {
		t.Helper()
		filterID, err := d.PutFilter(t.Context(), user, binary.BigEndian.AppendUint32(nil, uint32(i)), fmt.Appendf(nil, `{"n":%d}`, i))
		if err != nil {
			t.Fatal(err)
		}
		return filterID
	}
	other := put("@bob:test", 0)
	for _, n := range []int{MaxFilters, 10 * MaxFilters} {
		var all []int64
		for i := range n {
			all = append(all, put("@alice:test", i))
		}
		kept := 0
		for _, filterID := range all {
			if _, err := d.Filter(t.Context(), "@alice:test", filterID); err == nil {
				kept++
			} else if !mxerr.Is(err, "M_NOT_FOUND") {
				t.Fatal(err)
			}
		}
		if _, err := d.Filter(t.Context(), "@alice:test", all[n-1]); err != nil || kept != MaxFilters {
			t.Errorf("of %d filters %d are kept; the last one: %v", n, kept, err)
		}
		if again := put("@alice:test", n-1); again != all[n-1] {
			t.Errorf("the same filter has the numbers %d and %d", all[n-1], again)
		}
	}
	if _, err := d.Filter(t.Context(), "@bob:test", other); err != nil {
		t.Errorf("another user's filter: %v", err)
	}
}
