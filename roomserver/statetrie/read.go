package statetrie

import (
	"cmp"
	"context"
	"slices"
)

// Get returns the events of these keys, without those that the state does not have. Nodes are loaded level by level, for all
// keys together.
func (t *Trie) Get(ctx context.Context, root Hash, keys []KeyNID) (map[KeyNID]EventNID, error) {
	found := make(map[KeyNID]EventNID, len(keys))
	if len(keys) == 0 {
		return found, nil
	}
	top, err := t.root(ctx, root)
	if err != nil {
		return nil, err
	}
	below := map[Hash][]KeyNID{}
	for _, k := range keys {
		if hash := top.side(k); !hash.IsZero() {
			below[hash] = append(below[hash], k)
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
		next := map[Hash][]KeyNID{}
		for hash, wanted := range below {
			n := nodes[hash]
			for _, k := range wanted {
				if n.kind == kindLeaf {
					if at, is := find(n.entries, k); is {
						found[k] = n.entries[at].Event
					}
				} else if hash := n.subtree(slot(k, depth)); !hash.IsZero() {
					next[hash] = append(next[hash], k)
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
