package statetrie

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unsafe"
)

const (
	maxLeaf  = 32 // entries of a leaf
	fanOut   = 16
	maxDepth = 16 // of inner nodes: each takes 4 of 64 bits
	hashSize = len(Hash{})
)

// Kinds of nodes, by their first byte:
//
//	R  the subtree hashes of others and of members, zero where empty
//	L  the number of entries, and the entries by key: the key's distance from the one before, and the event
//	I  the number of entries below, a bitmap of the subtrees that are not empty, and their hashes
//
// Numbers are varints of the shortest form; the bitmap is two bytes, the first subtree's bit the lowest, big-endian.
const (
	kindRoot  = 'R'
	kindLeaf  = 'L'
	kindInner = 'I'
)

// node is a decoded node. It is never changed once it is made.
type node struct {
	kind            byte
	others, members Hash    // of a root
	entries         []Entry // of a leaf, by key
	count           int     // of an inner node: the entries below it
	bitmap          uint16
	subtrees        []Hash
}

// size is the memory that a node takes, about.
func (n *node) size() int {
	return int(unsafe.Sizeof(*n)) + len(n.entries)*int(unsafe.Sizeof(Entry{})) + len(n.subtrees)*hashSize
}

// total is the number of entries in the subtree.
func (n *node) total() int {
	if n.kind == kindLeaf {
		return len(n.entries)
	}
	return n.count
}

// subtree is the i-th of 16 subtrees of an inner node; the zero Hash if it is empty.
func (n *node) subtree(i int) Hash {
	if n.bitmap&(1<<i) == 0 {
		return Hash{}
	}
	return n.subtrees[bits.OnesCount16(n.bitmap&(1<<i-1))]
}

// slot is the subtree of an inner node of this depth that a key is in. The numbers of keys are dense; mixing (the finisher of
// SplitMix64, which is a bijection) spreads them evenly and keeps two keys apart at some depth.
func slot(k KeyNID, depth int) int {
	x := uint64(k)
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return int(x >> (60 - 4*depth) & 15)
}

func hashOf(data []byte) (h Hash) {
	sum := sha256.Sum256(data)
	copy(h[:], sum[:])
	return h
}

func (n *node) encode() Node {
	data := []byte{n.kind}
	switch n.kind {
	case kindRoot:
		data = append(append(data, n.others[:]...), n.members[:]...)
	case kindLeaf:
		data = slices.Grow(data, 1+7*len(n.entries))
		data = binary.AppendUvarint(data, uint64(len(n.entries)))
		before := KeyNID(0)
		for _, e := range n.entries {
			data = binary.AppendUvarint(data, uint64(e.Key-before))
			data = binary.AppendUvarint(data, uint64(e.Event))
			before = e.Key
		}
	case kindInner:
		data = slices.Grow(data, 8+hashSize*len(n.subtrees))
		data = binary.AppendUvarint(data, uint64(n.count))
		data = binary.BigEndian.AppendUint16(data, n.bitmap)
		for _, hash := range n.subtrees {
			data = append(data, hash[:]...)
		}
	}
	return Node{hashOf(data), data}
}

func decodeVerified(n Node) (*node, error) {
	if hashOf(n.Data) != n.Hash {
		return nil, fmt.Errorf("node %s has other content than it had: %w", n.Hash, ErrDamaged)
	}
	decoded, err := decode(n.Data)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Hash, err)
	}
	return decoded, nil
}

// decode reads what encode wrote, and nothing else: a node has one form.
func decode(data []byte) (*node, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("it is empty: %w", ErrDamaged)
	}
	n := &node{kind: data[0]}
	r := reader{data: data[1:]}
	switch n.kind {
	case kindRoot:
		n.others, n.members = r.hash(), r.hash()
		r.check(n.others != n.members || !n.others.IsZero())
	case kindLeaf:
		r.leaf(n)
	case kindInner:
		count := r.number()
		r.check(count > maxLeaf && count <= math.MaxInt32)
		n.count, n.bitmap = int(count), r.uint16()
		r.check(n.bitmap != 0 && len(r.data) == bits.OnesCount16(n.bitmap)*hashSize)
		for !r.bad && len(r.data) > 0 {
			hash := r.hash()
			r.check(!hash.IsZero())
			n.subtrees = append(n.subtrees, hash)
		}
	default:
		r.bad = true
	}
	if r.bad || len(r.data) > 0 {
		return nil, fmt.Errorf("it is no node of kind %q: %w", data[0], ErrDamaged)
	}
	return n, nil
}

// reader takes a node apart. When something is wrong, it gives zeros from there on.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) check(ok bool) { r.bad = r.bad || !ok }

func (r *reader) take(n int) []byte {
	if r.check(len(r.data) >= n); r.bad {
		return make([]byte, n)
	}
	taken := r.data[:n]
	r.data = r.data[n:]
	return taken
}

func (r *reader) hash() (h Hash) {
	copy(h[:], r.take(hashSize))
	return h
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

// number reads a varint of the shortest form.
func (r *reader) number() uint64 {
	x, n := binary.Uvarint(r.data)
	if r.check(n > 0 && (n == 1 || r.data[n-1] != 0)); r.bad {
		return 0
	}
	r.data = r.data[n:]
	return x
}

func (r *reader) leaf(n *node) {
	count := r.number()
	if r.check(count > 0 && count <= maxLeaf); r.bad {
		return
	}
	n.entries = make([]Entry, count)
	before := uint64(0)
	for i := range n.entries {
		distance, event := r.number(), r.number()
		r.check(distance > 0 && distance <= math.MaxInt64-before && event > 0 && event <= math.MaxInt64)
		if r.bad {
			return
		}
		before += distance
		n.entries[i] = Entry{KeyNID(before), EventNID(event)}
	}
}
