package statetrie

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache has the nodes that were used last, of all rooms of a process. A node is its content, so nothing in the cache is ever
// out of date, nor wrong because a transaction failed.
type Cache struct {
	mu    sync.Mutex
	nodes *simplelru.LRU[Hash, *node]
	bytes int
	max   int
}

// nodeOverhead is what the cache itself takes for a node, about.
const nodeOverhead = 128

// NewCache makes a Cache of about this size.
func NewCache(maxBytes int) *Cache {
	c := &Cache{max: maxBytes}
	c.nodes, _ = simplelru.NewLRU(math.MaxInt, func(_ Hash, n *node) { c.bytes -= n.size() + nodeOverhead }) // fails for size 0 only
	return c
}

func (c *Cache) get(hash Hash) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, _ := c.nodes.Get(hash)
	return n
}

func (c *Cache) put(hash Hash, n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes.Contains(hash) {
		return
	}
	c.nodes.Add(hash, n)
	for c.bytes += n.size() + nodeOverhead; c.bytes > c.max && c.nodes.Len() > 0; {
		c.nodes.RemoveOldest()
	}
}
