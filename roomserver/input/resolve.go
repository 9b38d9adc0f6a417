package input

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
	"github.com/matrix-org/dendrite/roomserver/statetrie"
	"github.com/matrix-org/dendrite/roomserver/storage"
)

// stateBefore is the state before an event with these parents.
func (in *Input) stateBefore(ctx context.Context, d *draft, parents []*storage.Event) (api.Root, error) {
	roots := make([]api.Root, len(parents))
	for i, p := range parents {
		var err error
		if roots[i], err = d.stateAfter(ctx, p); err != nil {
			return api.Root{}, err
		}
	}
	return d.resolve(ctx, roots)
}

// stateAfter is the state after an event. Rejected events do not change it.
func (d *draft) stateAfter(ctx context.Context, e *storage.Event) (api.Root, error) {
	if e.Outcome == storage.Rejected {
		return e.Root, nil
	}
	return d.stateWith(ctx, e.Root, e)
}

// resolve merges states by the room version's algorithm (Room Versions, § State resolution). It looks at what differs between them
// only.
func (d *draft) resolve(ctx context.Context, roots []api.Root) (api.Root, error) {
	roots = slices.Clone(roots)
	slices.SortFunc(roots, func(a, b api.Root) int { return slices.Compare(a[:], b[:]) })
	roots = slices.Compact(roots)
	switch len(roots) {
	case 0:
		return api.Root{}, nil
	case 1:
		return roots[0], nil
	}
	trie, err := d.trie()
	if err != nil {
		return api.Root{}, err
	}
	first := map[statetrie.KeyNID]stateres.EventNID{} // of the keys in conflict, what the first state has
	others := make([]map[statetrie.KeyNID]stateres.EventNID, len(roots)-1)
	for i, root := range roots[1:] {
		differences, err := trie.Diff(ctx, roots[0], root)
		if err != nil {
			return api.Root{}, fmt.Errorf("compare states: %w", err)
		}
		others[i] = map[statetrie.KeyNID]stateres.EventNID{}
		for _, x := range differences {
			first[x.Key], others[i][x.Key] = x.Old, x.New
		}
	}
	names, err := d.names(ctx, first)
	if err != nil {
		return api.Root{}, err
	}
	sets := make([]stateres.StateSet, len(roots))
	for i := range sets {
		sets[i] = stateres.StateSet{}
		for key, nid := range first {
			if i > 0 {
				if own, differs := others[i-1][key]; differs {
					nid = own
				}
			}
			if nid != 0 {
				sets[i][names[key]] = nid
			}
		}
	}
	merged, err := stateres.ResolveConflicted(ctx, d.room.Version, sets, &unconflicted{d, roots[0], first}, source{d})
	if err != nil {
		return api.Root{}, fmt.Errorf("state resolution: %w", err)
	}
	var changes []statetrie.Entry
	for key, nid := range first {
		if now := merged[names[key]]; now != nid {
			changes = append(changes, statetrie.Entry{Key: key, Event: now})
		}
	}
	return d.update(ctx, roots[0], changes)
}

// names finds what the numbers of keys stand for, those of the draft included.
func (d *draft) names(ctx context.Context, of map[statetrie.KeyNID]stateres.EventNID) (map[statetrie.KeyNID]auth.Key, error) {
	own := make(map[statetrie.KeyNID]auth.Key, len(d.keys.now))
	for k, nid := range d.keys.now {
		own[nid] = k
	}
	var missing []statetrie.KeyNID
	for nid := range of {
		if _, has := own[nid]; !has {
			missing = append(missing, nid)
		}
	}
	stored, err := d.in.Storage.Keys(ctx, missing)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	for nid, k := range stored {
		own[nid] = k
	}
	return own, nil
}

// byNID reads events, those of the draft included.
func (d *draft) byNID(ctx context.Context, nids []stateres.EventNID) (map[stateres.EventNID]*storage.Event, error) {
	own := make(map[stateres.EventNID]*storage.Event)
	for _, e := range d.byID.now {
		own[e.NID] = e
	}
	var missing []stateres.EventNID
	for _, nid := range nids {
		if own[nid] == nil {
			missing = append(missing, nid)
		}
	}
	found, err := d.in.Reader.Events(ctx, missing)
	if err != nil {
		return nil, err
	}
	for _, nid := range nids {
		if e := own[nid]; e != nil {
			found[nid] = e
		}
	}
	return found, nil
}

// numbers finds the numbers of keys, those of the draft included.
func (d *draft) numbers(ctx context.Context, keys []auth.Key) (map[auth.Key]statetrie.KeyNID, error) {
	found, err := d.in.Storage.KeyNIDs(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("state keys: %w", err)
	}
	for _, k := range keys {
		if nid, own := d.keys.now[k]; own {
			found[k] = nid
		}
	}
	return found, nil
}

// entriesAt looks up entries of any state.
func (d *draft) entriesAt(ctx context.Context, root api.Root, keys []auth.Key) (map[auth.Key]stateres.EventNID, error) {
	numbers, err := d.numbers(ctx, keys)
	if err != nil {
		return nil, err
	}
	trie, err := d.trie()
	if err != nil {
		return nil, err
	}
	entries, err := trie.Get(ctx, root, slices.Collect(maps.Values(numbers)))
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", root, err)
	}
	found := make(map[auth.Key]stateres.EventNID, len(entries))
	for k, nid := range numbers {
		if e, has := entries[nid]; has {
			found[k] = e
		}
	}
	return found, nil
}

// stateAt is any state for checks.
func (d *draft) stateAt(ctx context.Context, root api.Root) auth.State {
	if root == d.room.Root {
		return d.current(ctx)
	}
	return authState(func(k auth.Key) (*storage.Event, error) {
		found, err := d.entriesAt(ctx, root, []auth.Key{k})
		if err != nil || found[k] == 0 {
			return nil, err
		}
		events, err := d.byNID(ctx, []stateres.EventNID{found[k]})
		return events[found[k]], err
	})
}

// diff lists what leads from one state to another, and the entries that are new.
func (d *draft) diff(ctx context.Context, from, to api.Root) ([]api.StateChange, map[auth.Key]*storage.Event, error) {
	trie, err := d.trie()
	if err != nil {
		return nil, nil, err
	}
	differences, err := trie.Diff(ctx, from, to)
	if err != nil {
		return nil, nil, fmt.Errorf("compare states: %w", err)
	}
	keys := make(map[statetrie.KeyNID]stateres.EventNID, len(differences))
	var nids []stateres.EventNID
	for _, x := range differences {
		keys[x.Key] = x.New
		for _, nid := range []stateres.EventNID{x.Old, x.New} {
			if nid != 0 {
				nids = append(nids, nid)
			}
		}
	}
	names, err := d.names(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	events, err := d.byNID(ctx, nids)
	if err != nil {
		return nil, nil, err
	}
	changes := make([]api.StateChange, len(differences))
	replacing := make(map[auth.Key]*storage.Event, len(differences))
	for i, x := range differences {
		changes[i] = change(names[x.Key], events[x.Old], events[x.New])
		replacing[names[x.Key]] = events[x.New]
	}
	return changes, replacing, nil
}

// unconflicted is what states have in common: the first of them, less the keys in conflict.
type unconflicted struct {
	d        *draft
	root     api.Root
	conflict map[statetrie.KeyNID]stateres.EventNID
}

func (u *unconflicted) Get(ctx context.Context, keys []auth.Key) (map[auth.Key]stateres.EventNID, error) {
	found, err := u.d.entriesAt(ctx, u.root, keys)
	if err != nil {
		return nil, err
	}
	numbers, err := u.d.numbers(ctx, keys)
	if err != nil {
		return nil, err
	}
	for k, nid := range numbers {
		if _, conflicted := u.conflict[nid]; conflicted {
			delete(found, k)
		}
	}
	return found, nil
}

func (u *unconflicted) Covers(ctx context.Context, candidates []stateres.EventNID) (map[stateres.EventNID]bool, error) {
	trie, err := u.d.trie()
	if err != nil {
		return nil, err
	}
	entries, err := trie.Entries(ctx, u.root, statetrie.All)
	if err != nil {
		return nil, err
	}
	var nids []stateres.EventNID
	for _, e := range entries {
		if _, conflicted := u.conflict[e.Key]; !conflicted {
			nids = append(nids, e.Event)
		}
	}
	slices.SortFunc(nids, func(a, b stateres.EventNID) int { return int(b - a) })
	return stateres.Covers(ctx, nids, candidates, source{u.d})
}

// source loads events for state resolution.
type source struct{ d *draft }

func (s source) Events(ctx context.Context, nids []stateres.EventNID) ([]stateres.Event, error) {
	found, err := s.d.byNID(ctx, nids)
	if err != nil {
		return nil, err
	}
	events := make([]stateres.Event, len(nids))
	for i, nid := range nids {
		e := found[nid]
		events[i] = stateres.Event{NID: nid, PDU: e.PDU, Auth: e.Auth, Rejected: e.Outcome == storage.Rejected || e.Outcome == storage.RejectedOutlier}
	}
	return events, nil
}

func (s source) Auth(ctx context.Context, nids []stateres.EventNID) ([][]stateres.EventNID, error) {
	found, err := s.d.byNID(ctx, nids)
	if err != nil {
		return nil, err
	}
	lists := make([][]stateres.EventNID, len(nids))
	for i, nid := range nids {
		lists[i] = found[nid].Auth
	}
	return lists, nil
}
