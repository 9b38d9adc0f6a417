package statetrie

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Update changes a state: an entry sets its key's event, or removes the key if its event is 0. Of several entries of a key the
// last one counts. It returns the new root and the nodes that the new state has and the old one has not; to read the new state
// later, these must be stored beside those of the old one. An update that changes nothing returns the same root and no nodes.
//
// The nodes are put into the cache. That they may never be stored does no harm there: whatever leads to the same state from
// one that is stored, returns them again.
func (t *Trie) Update(ctx context.Context, root Hash, changes []Entry) (Hash, []Node, error) {
	changes, err := normalised(changes)
	if err != nil {
		return Hash{}, nil, err
	}
	if len(changes) == 0 {
		return root, nil, nil
	}
	top, err := t.root(ctx, root)
	if err != nil {
		return Hash{}, nil, err
	}
	u := &updater{t: t, ctx: ctx, old: map[Hash]*node{root: top}, made: map[Hash]made{}}
	var others, members []Entry
	for _, c := range changes {
		if c.Key.IsMember() {
			members = append(members, c)
		} else {
			others = append(others, c)
		}
	}
	if err := u.loadPaths(map[Hash][]Entry{top.others: others}, map[Hash][]Entry{top.members: members}); err != nil {
		return Hash{}, nil, err
	}
	newOthers, err := u.rebuild(top.others, 0, others)
	if err != nil {
		return Hash{}, nil, err
	}
	newMembers, err := u.rebuild(top.members, 0, members)
	if err != nil {
		return Hash{}, nil, err
	}
	if newOthers == top.others && newMembers == top.members {
		return root, nil, nil
	}
	var newRoot Hash
	if !newOthers.IsZero() || !newMembers.IsZero() {
		newRoot = u.make(&node{kind: kindRoot, others: newOthers, members: newMembers})
	}
	return newRoot, u.collect(newRoot), nil
}

// normalised sorts changes by key, with the last one of each key.
func normalised(changes []Entry) ([]Entry, error) {
	for _, c := range changes {
		if c.Key <= 0 || c.Event < 0 {
			return nil, fmt.Errorf("updating a state: key number %d and event number %d are not valid", c.Key, c.Event)
		}
	}
	sorted := slices.Clone(changes)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	last := sorted[:0]
	for i, c := range sorted {
		if i+1 == len(sorted) || sorted[i+1].Key != c.Key {
			last = append(last, c)
		}
	}
	return last, nil
}

// updater is one update.
type updater struct {
	t    *Trie
	ctx  context.Context
	old  map[Hash]*node // nodes of the old trie that were looked at
	made map[Hash]made  // nodes that were made; some of them only for a while
}

type made struct {
	node *node
	data []byte
}

// loadPaths loads the nodes on the paths to the changes, level by level.
func (u *updater) loadPaths(sides ...map[Hash][]Entry) error {
	below := map[Hash][]Entry{}
	for _, side := range sides {
		for hash, changes := range side {
			if len(changes) > 0 && !hash.IsZero() {
				below[hash] = changes
			}
		}
	}
	for depth := 0; len(below) > 0; depth++ {
		hashes := make([]Hash, 0, len(below))
		for hash := range below {
			hashes = append(hashes, hash)
		}
		nodes, err := u.t.level(u.ctx, hashes, depth)
		if err != nil {
			return err
		}
		next := map[Hash][]Entry{}
		for hash, n := range nodes {
			u.old[hash] = n
			if n.kind == kindLeaf {
				continue
			}
			for _, c := range below[hash] {
				if hash := n.subtree(slot(c.Key, depth)); !hash.IsZero() {
					next[hash] = append(next[hash], c)
				}
			}
		}
		below = next
	}
	return nil
}

// rebuild applies changes to a subtree of the old trie, and returns the hash of the new one.
func (u *updater) rebuild(hash Hash, depth int, changes []Entry) (Hash, error) {
	if len(changes) == 0 {
		return hash, nil
	}
	old := u.old[hash]
	switch {
	case hash.IsZero():
		return u.build(merge(nil, changes), depth)
	case old.kind == kindLeaf:
		entries := merge(old.entries, changes)
		if slices.Equal(entries, old.entries) {
			return hash, nil
		}
		return u.build(entries, depth)
	}
	var subtrees [fanOut]Hash
	count, changed := old.count, false
	in := bySlot(changes, depth)
	for i := range subtrees {
		before := old.subtree(i)
		after, err := u.rebuild(before, depth+1, in[i])
		if err != nil {
			return Hash{}, err
		}
		if subtrees[i] = after; after != before {
			changed = true
			count += u.total(after) - u.total(before)
		}
	}
	if !changed {
		return hash, nil
	}
	if count > maxLeaf {
		return u.make(inner(subtrees, count)), nil
	}
	entries, err := u.gather(subtrees, depth+1)
	if err != nil {
		return Hash{}, err
	}
	if len(entries) != count {
		return Hash{}, fmt.Errorf("node %s counts %d entries too many: %w", hash, count-len(entries), ErrDamaged)
	}
	return u.build(entries, depth)
}

// total is the number of entries of a subtree that was looked at or made.
func (u *updater) total(hash Hash) int {
	if hash.IsZero() {
		return 0
	}
	if m, is := u.made[hash]; is {
		return m.node.total()
	}
	return u.old[hash].total()
}

// gather returns the entries of subtrees that become a leaf together, by key.
func (u *updater) gather(subtrees [fanOut]Hash, depth int) ([]Entry, error) {
	var entries []Entry
	var load []Hash
	for _, hash := range subtrees {
		if hash.IsZero() {
			continue
		}
		n := u.made[hash].node
		if n == nil {
			n = u.old[hash]
		}
		switch {
		case n == nil:
			load = append(load, hash)
		case n.kind != kindLeaf:
			// A subtree of more than 32 entries, in a node that counts fewer.
			return nil, fmt.Errorf("node %s has more entries than the one above it: %w", hash, ErrDamaged)
		default:
			entries = append(entries, n.entries...)
		}
	}
	nodes, err := u.t.level(u.ctx, load, depth)
	if err != nil {
		return nil, err
	}
	for hash, n := range nodes {
		if n.kind != kindLeaf {
			return nil, fmt.Errorf("node %s has more entries than the one above it: %w", hash, ErrDamaged)
		}
		u.old[hash] = n
		entries = append(entries, n.entries...)
	}
	sortByKey(entries)
	return entries, nil
}

// build makes the subtree of these entries, which are sorted by key.
func (u *updater) build(entries []Entry, depth int) (Hash, error) {
	switch {
	case len(entries) == 0:
		return Hash{}, nil
	case len(entries) <= maxLeaf:
		return u.make(&node{kind: kindLeaf, entries: slices.Clone(entries)}), nil // the cache keeps it: not a part of a large array
	case depth >= maxDepth:
		return Hash{}, fmt.Errorf("%d keys are in the place of one: %w", len(entries), ErrDamaged)
	}
	var subtrees [fanOut]Hash
	for i, part := range bySlot(entries, depth) {
		hash, err := u.build(part, depth+1)
		if err != nil {
			return Hash{}, err
		}
		subtrees[i] = hash
	}
	return u.make(inner(subtrees, len(entries))), nil
}

func inner(subtrees [fanOut]Hash, count int) *node {
	n := &node{kind: kindInner, count: count}
	for i, hash := range subtrees {
		if !hash.IsZero() {
			n.bitmap |= 1 << i
			n.subtrees = append(n.subtrees, hash)
		}
	}
	return n
}

func bySlot(entries []Entry, depth int) (parts [fanOut][]Entry) {
	for _, e := range entries {
		i := slot(e.Key, depth)
		parts[i] = append(parts[i], e)
	}
	return parts
}

// merge applies changes to entries; both are sorted by key.
func merge(entries, changes []Entry) []Entry {
	merged := make([]Entry, 0, len(entries)+len(changes))
	for len(changes) > 0 {
		c := changes[0]
		at, had := find(entries, c.Key)
		merged = append(merged, entries[:at]...)
		entries = entries[at:]
		if had {
			entries = entries[1:]
		}
		if c.Event != 0 {
			merged = append(merged, c)
		}
		changes = changes[1:]
	}
	return append(merged, entries...)
}

// make adds a node to those that were made.
func (u *updater) make(n *node) Hash {
	encoded := n.encode()
	u.made[encoded.Hash] = made{n, encoded.Data}
	return encoded.Hash
}

// collect returns the nodes of the new trie that were made and are not known to be in the old one, and puts them into the
// cache.
func (u *updater) collect(root Hash) []Node {
	var nodes []Node
	seen := map[Hash]bool{}
	for below := []Hash{root}; len(below) > 0; {
		hash := below[len(below)-1]
		below = below[:len(below)-1]
		m, is := u.made[hash]
		if _, old := u.old[hash]; !is || old || seen[hash] {
			continue
		}
		seen[hash] = true
		nodes = append(nodes, Node{hash, m.data})
		u.t.cache.put(hash, m.node)
		below = append(below, m.node.others, m.node.members)
		below = append(below, m.node.subtrees...)
	}
	return nodes
}
