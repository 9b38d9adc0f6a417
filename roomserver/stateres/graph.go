package stateres

import (
	"context"
	"fmt"
	"slices"
)

// graph is the part of the auth event graph that some events and their auth chains make. Nodes are numbered from 0.
type graph struct {
	nids  []EventNID
	index map[EventNID]int32
	auth  [][]int32
}

// loadGraph walks the auth chains of events, a generation with each question.
func loadGraph(ctx context.Context, src Source, from []EventNID) (*graph, error) {
	g := &graph{index: map[EventNID]int32{}}
	for _, nid := range from {
		g.add(nid)
	}
	for done := 0; done < len(g.nids); {
		asked := g.nids[done:len(g.nids):len(g.nids)]
		edges, err := authOf(ctx, src, asked)
		if err != nil {
			return nil, err
		}
		for _, nids := range edges {
			to := make([]int32, len(nids))
			for i, nid := range nids {
				to[i] = g.add(nid)
			}
			g.auth = append(g.auth, to)
		}
		done += len(asked)
	}
	return g, nil
}

func authOf(ctx context.Context, src Source, nids []EventNID) ([][]EventNID, error) {
	edges, err := src.Auth(ctx, nids)
	if err == nil && len(edges) != len(nids) {
		err = fmt.Errorf("the auth events of %d of %d events are known: %w", len(edges), len(nids), ErrMissing)
	}
	return edges, err
}

func (g *graph) add(nid EventNID) int32 {
	at, known := g.index[nid]
	if !known {
		at = int32(len(g.nids))
		g.index[nid] = at
		g.nids = append(g.nids, nid)
	}
	return at
}

// reach visits what can be reached over edges, without the nodes that it begins from, unless they are reached again.
func reach(edges [][]int32, from []int32) []bool {
	reached := make([]bool, len(edges))
	stack := slices.Clone(from)
	begun := make([]bool, len(edges))
	for _, node := range from {
		begun[node] = true
	}
	for len(stack) > 0 {
		node := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, next := range edges[node] {
			if reached[next] {
				continue
			}
			reached[next] = true
			if !begun[next] {
				stack = append(stack, next)
			}
		}
	}
	return reached
}

// reversed are the edges from auth events to the events that they authorise.
func (g *graph) reversed() [][]int32 {
	count := make([]int32, len(g.auth))
	for _, to := range g.auth {
		for _, node := range to {
			count[node]++
		}
	}
	edges := make([][]int32, len(g.auth))
	for i, n := range count {
		edges[i] = make([]int32, 0, n)
	}
	for from, to := range g.auth {
		for _, node := range to {
			edges[node] = append(edges[node], int32(from))
		}
	}
	return edges
}

// Covers tells which of the candidates are in the auth chain of any entry. It loads auth events only, entries in the order
// given, in batches, and stops as soon as all candidates are found: newer entries should come first.
func Covers(ctx context.Context, entries, candidates []EventNID, src Source) (map[EventNID]bool, error) {
	const batch = 1000
	wanted := make(map[EventNID]bool, len(candidates))
	for _, nid := range candidates {
		wanted[nid] = true
	}
	covered := make(map[EventNID]bool, len(wanted))
	walked := make(map[EventNID]bool, len(entries))
	for chunk := range slices.Chunk(entries, batch) {
		for frontier := chunk; len(frontier) > 0 && len(covered) < len(wanted); {
			ask := make([]EventNID, 0, len(frontier))
			for _, nid := range frontier {
				if !walked[nid] {
					walked[nid] = true
					ask = append(ask, nid)
				}
			}
			if len(ask) == 0 {
				break
			}
			edges, err := authOf(ctx, src, ask)
			if err != nil {
				return nil, err
			}
			frontier = frontier[:0:0]
			for _, nids := range edges {
				for _, nid := range nids {
					if wanted[nid] {
						covered[nid] = true
					}
					if !walked[nid] {
						frontier = append(frontier, nid)
					}
				}
			}
		}
	}
	return covered, nil
}
