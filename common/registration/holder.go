package registration

import (
	"sync"
	"sync/atomic"
)

// Holder has the registrations that are in force. A nil Holder has none. It is safe for concurrent use.
type Holder struct {
	current atomic.Pointer[Set]

	mu      sync.Mutex
	changed chan struct{}
}

// NewHolder makes a Holder of a Set.
func NewHolder(s *Set) *Holder {
	h := &Holder{changed: make(chan struct{})}
	h.current.Store(s)
	return h
}

// none is the Set of a server without application services.
var none = &Set{users: newMatcher(), aliases: newMatcher(), rooms: newMatcher()}

// Load returns the registrations that are in force now.
func (h *Holder) Load() *Set {
	if h == nil {
		return none
	}
	return h.current.Load()
}

// Replace puts a Set in force and wakes who waits for a change.
func (h *Holder) Replace(s *Set) {
	h.current.Store(s)
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
}

// Changed is closed when the next Set is in force. Take it before Load, so that no change is missed. It is nil, and so
// never ready, for a nil Holder.
func (h *Holder) Changed() <-chan struct{} {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}
