package input

import (
	"encoding/json"
	"slices"
)

// maxStripped is how many bytes of stripped state are kept of an invite or a knock, which each sync of the user may
// show. A room can have more than half a megabyte, for each of hundreds of users whom somebody invites.
const maxStripped = 64 << 10

// smallest leaves out the largest events, as far as they are too much together.
func smallest(state []json.RawMessage) (kept []json.RawMessage) {
	bySize := make([]int, len(state))
	for i := range bySize {
		bySize[i] = i
	}
	slices.SortStableFunc(bySize, func(a, b int) int { return len(state[a]) - len(state[b]) })
	number, size := 0, 0
	for number < len(state) && size+len(state[bySize[number]]) <= maxStripped {
		size += len(state[bySize[number]])
		number++
	}
	bySize = bySize[:number]
	slices.Sort(bySize) // in the order in which they came
	for _, i := range bySize {
		kept = append(kept, state[i])
	}
	return kept
}
