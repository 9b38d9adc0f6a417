package statetrie

import (
	"cmp"
	"context"
	"slices"
)

// Difference is a key whose event is not the same in two states. An event is 0 where the state does not have the key.
type Difference struct {
	Key      KeyNID
	Old, New EventNID
}

// Diff compares state a, the old one, with state b. The result is sorted by key. Nodes are loaded level by level, and only
// those that are not the same in both states.
func (t *Trie) Diff(ctx context.Context, a, b Hash) ([]Difference, error) {
	if a == b {
		return nil, nil
	}
	topA, err := t.root(ctx, a)
	if err != nil {
		return nil, err
	}
	topB, err := t.root(ctx, b)
	if err != nil {
		return nil, err
	}
	d := differ{}
	d.add(section{hash: topA.others}, section{hash: topB.others})
	d.add(section{hash: topA.members}, section{hash: topB.members})
	for depth := 0; len(d.pairs) > 0; depth++ {
		nodes, err := t.level(ctx, d.hashes(), depth)
		if err != nil {
			return nil, err
		}
		pairs := d.pairs
		d.pairs = nil
		for _, pair := range pairs {
			d.compare(pair[0].read(nodes), pair[1].read(nodes), depth)
		}
	}
	slices.SortFunc(d.found, func(x, y Difference) int { return cmp.Compare(x.Key, y.Key) })
	return d.found, nil
}

// section is the same section of the key space in one of the states: a subtree that is to be loaded, or where that state's
// leaf covers a larger section, the leaf's entries of this one.
type section struct {
	hash    Hash
	entries []Entry
}

// read is the section as a node.
func (s section) read(nodes map[Hash]*node) *node {
	if s.hash.IsZero() {
		return &node{kind: kindLeaf, entries: s.entries}
	}
	return nodes[s.hash]
}

type differ struct {
	pairs [][2]section
	found []Difference
}

func (d *differ) add(a, b section) {
	if a.hash != b.hash || a.hash.IsZero() && len(a.entries)+len(b.entries) > 0 {
		d.pairs = append(d.pairs, [2]section{a, b})
	}
}

func (d *differ) hashes() []Hash {
	var hashes []Hash
	for _, pair := range d.pairs {
		for _, s := range pair {
			if !s.hash.IsZero() {
				hashes = append(hashes, s.hash)
			}
		}
	}
	return hashes
}

func (d *differ) compare(a, b *node, depth int) {
	if a.kind == kindLeaf && b.kind == kindLeaf {
		d.compareLeaves(a.entries, b.entries)
		return
	}
	inA, inB := sections(a, depth), sections(b, depth)
	for i := range inA {
		d.add(inA[i], inB[i])
	}
}

func sections(n *node, depth int) (s [fanOut]section) {
	for _, e := range n.entries {
		i := slot(e.Key, depth)
		s[i].entries = append(s[i].entries, e)
	}
	for i := range s {
		s[i].hash = n.subtree(i)
	}
	return s
}

func (d *differ) compareLeaves(a, b []Entry) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Key < b[0].Key:
			d.found = append(d.found, Difference{a[0].Key, a[0].Event, 0})
			a = a[1:]
		case len(a) == 0 || b[0].Key < a[0].Key:
			d.found = append(d.found, Difference{b[0].Key, 0, b[0].Event})
			b = b[1:]
		default:
			if a[0].Event != b[0].Event {
				d.found = append(d.found, Difference{a[0].Key, a[0].Event, b[0].Event})
			}
			a, b = a[1:], b[1:]
		}
	}
}
