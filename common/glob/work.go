package glob

const (
	// scanned is how many bytes are searched in a step.
	scanned = 8
	// searched is how long a part may be that is looked for as a whole.
	searched = 32
)

// Work is how many steps may still be taken. A step compares a byte, or does what takes about as long. nil is a Work
// without end.
type Work struct{ Left int }

// Spend takes steps. It tells whether there were as many: if not, nothing is left, and whatever is under way ends
// without a result.
func (w *Work) Spend(steps int) bool {
	if w == nil {
		return true
	}
	if steps > w.Left {
		w.Left = 0
		return false
	}
	w.Left -= steps
	return true
}

// Spent tells whether nothing is left.
func (w *Work) Spent() bool { return w != nil && w.Left == 0 }
