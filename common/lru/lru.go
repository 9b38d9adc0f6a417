// Package lru keeps in memory what was used last, as long as all of it together is no more than so many bytes. Whoever
// can make entries large can therefore drive out what others have used, but never makes the process grow.
package lru

import (
	"math"
	"sync"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// overhead is what the cache itself takes for an entry besides its key and its value, about.
const overhead = 160

// Cache is entries by key. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	size func(K, V) int
	gone func(K, V)
	max  int

	mu      sync.Mutex
	entries *simplelru.LRU[K, entry[V]]
	bytes   int
}

type entry[V any] struct {
	value V
	size  int
}

// New makes a Cache of at most so many bytes. size tells how many an entry takes beyond the fixed parts of its key and
// value: those of strings, slices and what is pointed to. It must be the same for as long as the entry is in the cache,
// or Add must be called again.
func New[K comparable, V any](maxBytes int, size func(K, V) int) *Cache[K, V] {
	return NewWithEvict(maxBytes, size, nil)
}

// NewWithEvict makes a Cache that calls gone for each entry that leaves it, within the call that makes it leave. It
// must not call the Cache.
func NewWithEvict[K comparable, V any](maxBytes int, size func(K, V) int, gone func(K, V)) *Cache[K, V] {
	c := &Cache[K, V]{size: size, gone: gone, max: maxBytes}
	c.entries, _ = simplelru.NewLRU(math.MaxInt, c.left) // fails for a size of 0 only
	return c
}

func (c *Cache[K, V]) left(k K, e entry[V]) {
	c.bytes -= e.size
	if c.gone != nil {
		c.gone(k, e.value)
	}
}

// Get finds a value, which counts as a use.
func (c *Cache[K, V]) Get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, has := c.entries.Get(k)
	return e.value, has
}

// Add puts a value in, in place of the one that the key had. A value that is larger than the whole Cache is not kept.
func (c *Cache[K, V]) Add(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(k)
	c.add(k, v)
}

// AddMissing puts a value in, unless the key has one.
func (c *Cache[K, V]) AddMissing(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.entries.Contains(k) {
		c.add(k, v)
	}
}

func (c *Cache[K, V]) add(k K, v V) {
	e := entry[V]{value: v, size: overhead + int(unsafe.Sizeof(k)) + int(unsafe.Sizeof(v)) + c.size(k, v)}
	if e.size > c.max {
		if c.gone != nil {
			c.gone(k, v)
		}
		return
	}
	c.entries.Add(k, e)
	for c.bytes += e.size; c.bytes > c.max; {
		c.entries.RemoveOldest()
	}
}

// Remove takes an entry out.
func (c *Cache[K, V]) Remove(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(k)
}

// Purge takes all entries out.
func (c *Cache[K, V]) Purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Purge()
}

// Len is the number of entries.
func (c *Cache[K, V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries.Len()
}

// Bytes is what the entries take.
func (c *Cache[K, V]) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
