package input

// undoable is a map that can go back to what it was at a mark, in the time that the changes since have taken. A copy of
// it is a mark.
type undoable[K comparable, V any] struct {
	now map[K]V
	log []replaced[K, V] // what was there before each change
}

type replaced[K comparable, V any] struct {
	key   K
	value V
	had   bool
}

func newUndoable[K comparable, V any]() undoable[K, V] { return undoable[K, V]{now: make(map[K]V)} }

// put changes an entry.
func (u *undoable[K, V]) put(k K, v V) {
	before, had := u.now[k]
	u.log = append(u.log, replaced[K, V]{k, before, had})
	u.now[k] = v
}

// undo goes back to a mark. Marks are gone back to in the reverse order of their making.
func (u *undoable[K, V]) undo(to undoable[K, V]) {
	for i := len(u.log) - 1; i >= len(to.log); i-- {
		if r := &u.log[i]; r.had {
			u.now[r.key] = r.value
		} else {
			delete(u.now, r.key)
		}
	}
	u.log = u.log[:len(to.log)]
}
