package statetrie

import (
	"cmp"
	"context"
	"slices"
)

// Get returns the events of these keys, without those that the state does not have. Nodes are loaded level by level, for all
// keys together.
func (t *Trie) Get(ctx context.Context, root Hash, keys []KeyNID) (map[KeyNID]EventNID, error) {
	found, err := t.GetEach(ctx, map[Hash][]KeyNID{root: keys})
	return found[root], err
}

// GetEach is Get for several states. Nodes are loaded level by level, for all states together.
func (t *Trie) GetEach(ctx context.Context, wanted map[Hash][]KeyNID) (map[Hash]map[KeyNID]EventNID, error) {
	type place struct {
		root Hash
		key  KeyNID
	}
	found := make(map[Hash]map[KeyNID]EventNID, len(wanted))
	roots := make([]Hash, 0, len(wanted))
	for root, keys := range wanted {
		found[root] = make(map[KeyNID]EventNID, len(keys))
		if !root.IsZero() && len(keys) > 0 {
			roots = append(roots, root)
		}
	}
	tops, err := t.roots(ctx, roots)
	if err != nil {
		return nil, err
	}
	below := map[Hash][]place{}
	for root, top := range tops {
		for _, k := range wanted[root] {
			if hash := top.side(k); !hash.IsZero() {
				below[hash] = append(below[hash], place{root, k})
			}
		}
	}
	for depth := 0; len(below) > 0; depth++ {
		hashes := make([]Hash, 0, len(below))
		for hash := range below {
			hashes = append(hashes, hash)
		}
		nodes, err := t.level(ctx, hashes, depth)
		if err != nil {
			return nil, err
		}
		next := map[Hash][]place{}
		for hash, places := range below {
			n := nodes[hash]
			for _, p := range places {
				if n.kind == kindLeaf {
					if at, is := find(n.entries, p.key); is {
						found[p.root][p.key] = n.entries[at].Event
					}
				} else if hash := n.subtree(slot(p.key, depth)); !hash.IsZero() {
					next[hash] = append(next[hash], p)
				}
			}
		}
		below = next
	}
	return found, nil
}

func find(entries []Entry, k KeyNID) (int, bool) {
	return slices.BinarySearchFunc(entries, k, func(e Entry, k KeyNID) int { return cmp.Compare(e.Key, k) })
}

func sortByKey(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
}

// Entries returns a part of a state, by key.
func (t *Trie) Entries(ctx context.Context, root Hash, part Part) ([]Entry, error) {
	top, err := t.root(ctx, root)
	if err != nil {
		return nil, err
	}
	var hashes []Hash
	if part != Members && !top.others.IsZero() {
		hashes = append(hashes, top.others)
	}
	if part != Others && !top.members.IsZero() {
		hashes = append(hashes, top.members)
	}
	entries, err := t.entriesBelow(ctx, hashes, 0)
	if err != nil {
		return nil, err
	}
	sortByKey(entries)
	return entries, nil
}

// entriesBelow returns the entries of subtrees of one depth, in no order.
func (t *Trie) entriesBelow(ctx context.Context, hashes []Hash, depth int) ([]Entry, error) {
	var entries []Entry
	for ; len(hashes) > 0; depth++ {
		nodes, err := t.level(ctx, hashes, depth)
		if err != nil {
			return nil, err
		}
		var next []Hash
		for _, n := range nodes {
			entries = append(entries, n.entries...)
			next = append(next, n.subtrees...)
		}
		hashes = next
	}
	return entries, nil
}
