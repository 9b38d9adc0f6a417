package statetrie

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

type fixed []Node

func (f fixed) Load(_ context.Context, hashes []Hash) ([]Node, error) { return f, nil }

func FuzzDecode(f *testing.F) {
	_, nodes, err := New(fixed(nil), NewCache(0)).Update(context.Background(), Hash{}, someEntries(300))
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range nodes {
		f.Add(n.Data)
	}
	for _, text := range []string{"", "R", "L\x01\x01\x01", "L\x00", "L\x01\x81\x00\x01", "I\x21\x00\x01", "X", "L\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decode(data)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("the error is %v", err)
			}
			return
		}
		again := n.encode()
		if !bytes.Equal(again.Data, data) {
			t.Fatalf("%x was read as %x", data, again.Data)
		}
		// A node that has another's place is refused or read, and never ends in a panic or a loop.
		trie := New(fixed{again}, NewCache(1<<16))
		ctx := context.Background()
		_, _ = trie.Entries(ctx, again.Hash, All)
		_, _ = trie.Get(ctx, again.Hash, []KeyNID{1, 2, 3})
		_, _, _ = trie.Update(ctx, again.Hash, someEntries(40))
		_, _ = trie.Diff(ctx, again.Hash, Hash{})
	})
}

func someEntries(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = Entry{KeyNID(i + 1), EventNID(1000 + i)}
	}
	return entries
}

func TestDecodeRefusesDamage(t *testing.T) {
	root := make([]byte, 33)
	root[0] = kindRoot
	for name, data := range map[string][]byte{
		"nothing":              nil,
		"unknown kind":         []byte("X"),
		"empty root":           root,
		"short root":           root[:20],
		"leaf of none":         []byte("L\x00"),
		"leaf with a tail":     []byte("L\x01\x01\x01\x01"),
		"leaf of too many":     append([]byte("L\x21"), bytes.Repeat([]byte{1, 1}, 33)...),
		"same key twice":       []byte("L\x02\x01\x01\x00\x01"),
		"event 0":              []byte("L\x01\x01\x00"),
		"long varint":          []byte("L\x01\x81\x00\x01"),
		"key overflow":         []byte("L\x02\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x01\x01"),
		"inner without bitmap": []byte("I\x21\x00\x00"),
		"inner of few":         append([]byte("I\x20\x00\x01"), bytes.Repeat([]byte{1}, 16)...),
		"inner of zero hash":   append([]byte("I\x21\x00\x01"), make([]byte, 16)...),
		"inner short":          append([]byte("I\x21\x00\x03"), bytes.Repeat([]byte{1}, 16)...),
	} {
		if _, err := decode(data); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoadedNodesAreVerified(t *testing.T) {
	ctx := context.Background()
	root, nodes, err := New(fixed(nil), NewCache(0)).Update(ctx, Hash{}, someEntries(100))
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(nodes)
	for i := range damaged {
		damaged[i].Data = slices.Clone(damaged[i].Data)
		damaged[i].Data[len(damaged[i].Data)-1] ^= 1
	}
	if _, err := New(fixed(damaged), NewCache(0)).Entries(ctx, root, All); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged nodes were read: %v", err)
	}
	if err := New(fixed(damaged), NewCache(0)).Include(damaged); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged nodes were taken: %v", err)
	}
	if _, err := New(fixed(nodes[:1]), NewCache(0)).Entries(ctx, root, All); !errors.Is(err, ErrMissing) {
		t.Errorf("missing nodes were not missed: %v", err)
	}
	for _, n := range nodes {
		if n.Hash != root {
			if _, err := New(fixed(nodes), NewCache(0)).Entries(ctx, n.Hash, All); !errors.Is(err, ErrDamaged) {
				t.Errorf("a node that is no root was read as one: %v", err)
			}
		}
	}
}

func BenchmarkUpdate100k(b *testing.B) {
	ctx := context.Background()
	all := map[Hash]Node{}
	root, nodes, _ := New(fixed(nil), NewCache(0)).Update(ctx, Hash{}, someEntries(100_000))
	for _, n := range nodes {
		all[n.Hash] = n
	}
	trie := New(byHash(all), NewCache(64<<20))
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	written := 0
	for b.Loop() {
		_, nodes, err := trie.Update(ctx, root, []Entry{{KeyNID(r.IntN(100_000) + 1), EventNID(r.Int64() + 1)}})
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range nodes {
			written += len(n.Data)
		}
	}
	b.ReportMetric(float64(written)/float64(b.N), "B-written/op")
}

func BenchmarkEntries100k(b *testing.B) {
	ctx := context.Background()
	trie := New(fixed(nil), NewCache(64<<20))
	root, _, _ := trie.Update(ctx, Hash{}, someEntries(100_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trie.Entries(ctx, root, All); err != nil {
			b.Fatal(err)
		}
	}
}

type byHash map[Hash]Node

func (m byHash) Load(_ context.Context, hashes []Hash) ([]Node, error) {
	nodes := make([]Node, len(hashes))
	for i, hash := range hashes {
		nodes[i] = m[hash]
	}
	return nodes, nil
}

// A leaf can stay as it is and change its depth. It is not new then.
func TestALeafThatMovesIsNotNew(t *testing.T) {
	ctx := context.Background()
	var entries []Entry
	for k := KeyNID(2); len(entries) < maxLeaf; k += 2 {
		if slot(k, 0) == 0 {
			entries = append(entries, Entry{k, 1})
		}
	}
	another := KeyNID(2)
	for slot(another, 0) != 1 {
		another += 2
	}
	trie := New(fixed(nil), NewCache(1<<20))
	low, _, err := trie.Update(ctx, Hash{}, entries)
	if err != nil {
		t.Fatal(err)
	}
	high, grown, err := trie.Update(ctx, low, []Entry{{another, 1}})
	if err != nil || len(grown) != 3 {
		t.Errorf("%d nodes are new, want root, inner node and the second leaf; %v", len(grown), err)
	}
	back, shrunk, err := trie.Update(ctx, high, []Entry{{another, 0}})
	if err != nil || back != low || len(shrunk) != 1 {
		t.Errorf("%d nodes are new, want the root; %v", len(shrunk), err)
	}
}
