package statetrie

import "github.com/matrix-org/dendrite/common/lru"

// Cache has the nodes that were used last, of all rooms of a process. A node is its content, so nothing in the cache is ever
// out of date, nor wrong because a transaction failed.
type Cache struct{ nodes *lru.Cache[Hash, *node] }

// NewCache makes a Cache of about this size.
func NewCache(maxBytes int) *Cache {
	return &Cache{lru.New(maxBytes, func(_ Hash, n *node) int { return n.size() })}
}

func (c *Cache) get(hash Hash) *node {
	n, _ := c.nodes.Get(hash)
	return n
}

func (c *Cache) put(hash Hash, n *node) { c.nodes.AddMissing(hash, n) }
