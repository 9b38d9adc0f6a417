package httputil

import (
	"math/bits"
	"sync"
)

// Large answers are made in room that the answers before have left: to allocate it each time, and to collect it, was half of the work of
// reading a room's state.
const (
	leastLent = 14 // 16 KiB, as a power of 2
	mostLent  = 22 // 4 MiB
)

var lent [mostLent + 1]sync.Pool // by the power of 2

// Lend gives an empty slice for an answer, or a part of one, of about so many bytes. Once the answer is written, it is another one's:
// nothing that is made in it may be kept.
func (r *Request) Lend(size int) []byte {
	power := max(bits.Len(uint(max(size, 1)-1)), 0)
	if power < leastLent || power > mostLent {
		return make([]byte, 0, size)
	}
	b, has := lent[power].Get().(*[]byte)
	if !has {
		room := make([]byte, 0, 1<<power)
		b = &room
	}
	r.lent = append(r.lent, b)
	return *b
}

// takeBack ends the loans of a request whose whole answer is written.
func (r *Request) takeBack() {
	for _, b := range r.lent {
		lent[bits.Len(uint(cap(*b)))-1].Put(b)
	}
	r.lent = nil
}
