package input

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
)

// A map that is gone back to a mark is what it was, whatever was put into it since, and other marks in between.
func TestAnUndoableGoesBackToItsMarks(t *testing.T) {
	chance := rand.New(rand.NewPCG(test.Seed(t), 0))
	type mark struct {
		at  undoable[int, int]
		was map[int]int
	}
	u := newUndoable[int, int]()
	var marks []mark
	for range 50_000 {
		switch n := len(marks); {
		case chance.IntN(20) == 0:
			marks = append(marks, mark{u, maps.Clone(u.now)})
		case n > 0 && chance.IntN(25) == 0:
			m := marks[n-1]
			marks = marks[:n-1]
			if chance.IntN(3) == 0 {
				continue // what came after it stays
			}
			if u.undo(m.at); !maps.Equal(u.now, m.was) {
				t.Fatalf("went back to %v, want %v", u.now, m.was)
			}
		default:
			u.put(chance.IntN(50), chance.Int())
		}
	}
}
