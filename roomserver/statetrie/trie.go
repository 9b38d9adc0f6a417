// Package statetrie is the form in which the roomserver keeps room state: a persistent hash trie from the number of a state
// key to the number of the event that the state has for it.
//
// A trie is named by the hash of its root node, and a node by the hash of its content. The same state always has the same
// root, whatever changes led to it, so comparing two states begins with comparing two hashes, and states that differ in a few
// entries share all their other nodes. A change writes the nodes on the path to it, about five in a room with 100,000 members;
// what changed between two states is found without reading what is the same.
//
// The root node holds two subtrees, m.room.member entries and all others: clients that load members lazily need the second
// one, which stays small. Within a subtree, entries are placed by a mixed form of their key's number. A subtree of at most 32
// entries is a single leaf; a larger one is an inner node with up to 16 subtrees. Since the shape depends on the entries alone,
// so do the hashes.
//
// The package is for the roomserver. It stores nothing: it reads nodes through Nodes, and Update returns the nodes to store.
package statetrie

import (
	"context"
	"errors"
	"fmt"

	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

var (
	// ErrDamaged says that what was loaded is not a node of a trie.
	ErrDamaged = errors.New("a node of the state trie is damaged")
	// ErrMissing says that a node that another one refers to could not be loaded.
	ErrMissing = errors.New("a node of the state trie is missing")
)

// KeyNID is the number of a state key (a type with a state_key). It is positive, odd for m.room.member and even for all other
// types.
type KeyNID int64

// IsMember tells whether the key is one of m.room.member.
func (k KeyNID) IsMember() bool { return k&1 == 1 }

// EventNID is the number of an event. It is positive; where a key may have no event, that is 0.
type EventNID = stateres.EventNID

// Hash names a node, and by its root node a trie. The zero Hash is the empty state.
type Hash = api.Root

// Entry is the event of a key.
type Entry struct {
	Key   KeyNID
	Event EventNID
}

// Node is a node in the form in which it is stored. Hash is that of Data.
type Node struct {
	Hash Hash
	Data []byte
}

// Nodes loads nodes of a room, in any order. That one of them is missing is an error.
type Nodes interface {
	Load(ctx context.Context, hashes []Hash) ([]Node, error)
}

// Part is a part of a state.
type Part int

const (
	// All is the whole state.
	All Part = iota
	// Members is the m.room.member entries.
	Members
	// Others is all entries except those of Members. Reading it loads no node that only Members needs.
	Others
)

// Trie reads and changes the states of a room. It has no state of its own except for the nodes given to Include, and is
// safe for concurrent use, but for Include, if its Nodes are.
type Trie struct {
	nodes   Nodes
	cache   *Cache
	overlay map[Hash]*node
}

// New makes a Trie. All rooms of a process can share a Cache.
func New(nodes Nodes, cache *Cache) *Trie { return &Trie{nodes: nodes, cache: cache} }

// Include makes a Trie read these nodes too: those of an Update that are not stored yet. Without it they can be read
// for as long as they stay in the cache. Nobody may use the Trie meanwhile.
func (t *Trie) Include(nodes []Node) error {
	if t.overlay == nil {
		t.overlay = make(map[Hash]*node, len(nodes))
	}
	for _, n := range nodes {
		decoded, err := decodeVerified(n)
		if err != nil {
			return err
		}
		t.overlay[n.Hash] = decoded
	}
	return nil
}

// load returns decoded nodes, loading those that are not in memory with one question.
func (t *Trie) load(ctx context.Context, hashes []Hash) (map[Hash]*node, error) {
	found := make(map[Hash]*node, len(hashes))
	var wanted []Hash
	for _, hash := range hashes {
		if _, asked := found[hash]; asked {
			continue
		}
		n := t.overlay[hash]
		if n == nil {
			n = t.cache.get(hash)
		}
		if n == nil {
			wanted = append(wanted, hash)
		}
		found[hash] = n
	}
	if len(wanted) == 0 {
		return found, nil
	}
	loaded, err := t.nodes.Load(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("loading %d nodes of the state trie: %w", len(wanted), err)
	}
	for _, l := range loaded {
		if n, asked := found[l.Hash]; !asked || n != nil {
			continue
		}
		n, err := decodeVerified(l)
		if err != nil {
			return nil, err
		}
		found[l.Hash] = n
		t.cache.put(l.Hash, n)
	}
	for _, hash := range wanted {
		if found[hash] == nil {
			return nil, fmt.Errorf("node %s: %w", hash, ErrMissing)
		}
	}
	return found, nil
}

// root loads a root node; that of the empty state is not stored.
func (t *Trie) root(ctx context.Context, hash Hash) (*node, error) {
	if hash.IsZero() {
		return &node{kind: kindRoot}, nil
	}
	tops, err := t.roots(ctx, []Hash{hash})
	return tops[hash], err
}

// roots loads root nodes of states that are not empty.
func (t *Trie) roots(ctx context.Context, hashes []Hash) (map[Hash]*node, error) {
	loaded, err := t.load(ctx, hashes)
	if err != nil {
		return nil, err
	}
	for hash, n := range loaded {
		if n.kind != kindRoot {
			return nil, fmt.Errorf("node %s is no root: %w", hash, ErrDamaged)
		}
	}
	return loaded, nil
}

// level loads the nodes of one level of subtrees.
func (t *Trie) level(ctx context.Context, hashes []Hash, depth int) (map[Hash]*node, error) {
	loaded, err := t.load(ctx, hashes)
	if err != nil {
		return nil, err
	}
	for hash, n := range loaded {
		if n.kind == kindRoot || n.kind == kindInner && depth >= maxDepth {
			return nil, fmt.Errorf("node %s is not of depth %d: %w", hash, depth, ErrDamaged)
		}
	}
	return loaded, nil
}

// side is the subtree of a root node that a key is in.
func (n *node) side(k KeyNID) Hash {
	if k.IsMember() {
		return n.members
	}
	return n.others
}
