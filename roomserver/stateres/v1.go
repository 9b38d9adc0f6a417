package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"slices"

	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

// resolveV1 is the algorithm of room version 1 (§ State resolution). A key conflicts only where states have different events
// for it, not where some have none.
func (r *resolver) resolveV1(sets []StateSet) error {
	candidates := map[auth.Key][]EventNID{}
	for _, set := range sets {
		for key, nid := range set {
			if !slices.Contains(candidates[key], nid) {
				candidates[key] = append(candidates[key], nid)
			}
		}
	}
	all := values(sets)
	if len(all) == 0 {
		return nil
	}
	if err := r.load(all); err != nil {
		return err
	}
	if err := r.loadForChecks(all, sets); err != nil {
		return err
	}
	passes := []string{pdu.TypePowerLevels, pdu.TypeJoinRules, pdu.TypeMember}
	blocks := make([][]auth.Key, len(passes)+1)
	for key, nids := range candidates {
		if len(nids) == 1 {
			r.state[key] = nids[0]
			continue
		}
		pass := slices.Index(passes, key.Type)
		if pass < 0 {
			pass = len(passes)
		}
		blocks[pass] = append(blocks[pass], key)
	}
	for pass, keys := range blocks {
		// The conflicts of a pass do not see each other's outcome, so their order does not matter.
		resolved := make(StateSet, len(keys))
		for _, key := range keys {
			nid, err := r.resolveKeyV1(key, candidates[key], pass < len(passes))
			if err != nil {
				return err
			}
			resolved[key] = nid
		}
		for key, nid := range resolved {
			r.state[key] = nid
		}
	}
	return nil
}

// resolveKeyV1 picks among the events of one key: of those that affect authorization, the last in order before the first that
// is not allowed; of others, the last one that is allowed. The specification does not say what to do if none is; the first
// in order is what other servers take.
func (r *resolver) resolveKeyV1(key auth.Key, nids []EventNID, affectsAuth bool) (EventNID, error) {
	type ordered struct {
		nid  EventNID
		e    *Event
		hash [sha1.Size]byte
	}
	list := make([]ordered, len(nids))
	for i, nid := range nids {
		e := r.events[nid]
		list[i] = ordered{nid, e, sha1.Sum([]byte(e.PDU.ID()))}
	}
	slices.SortFunc(list, func(a, b ordered) int {
		return cmp.Or(cmp.Compare(a.e.PDU.Depth(), b.e.PDU.Depth()), bytes.Compare(b.hash[:], a.hash[:]))
	})
	if affectsAuth {
		defer delete(r.state, key)
		for i := 1; i < len(list); i++ {
			r.state[key] = list[i-1].nid
			if allowed, err := r.allowed(list[i].e, stateV1{r}); err != nil || !allowed {
				return list[i-1].nid, err
			}
		}
		return list[len(list)-1].nid, nil
	}
	for i := len(list) - 1; i > 0; i-- {
		if allowed, err := r.allowed(list[i].e, stateV1{r}); err != nil || allowed {
			return list[i].nid, err
		}
	}
	return list[0].nid, nil
}

// stateV1 is the state resolved so far and nothing else.
type stateV1 struct{ r *resolver }

// Get implements auth.State.
func (s stateV1) Get(key auth.Key) (*pdu.Event, error) { return pduOf(s.r.current(key)), nil }
