package stateres_test

import (
	"maps"
	"testing"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
)

// library is what github.com/matrix-org/gomatrixserverlib makes of the same states.
func (r *room) library(states []state) state {
	r.t.Helper()
	known := map[nid]gmsl.PDU{}
	parse := func(n nid) gmsl.PDU {
		if known[n] == nil {
			e, err := gmsl.MustGetRoomVersion(gmsl.RoomVersion(r.v)).NewEventFromTrustedJSONWithEventID(string(r.pdu(n).ID()), r.pdu(n).JSON(), false)
			if err != nil {
				r.t.Fatal(err)
			}
			known[n] = e
		}
		return known[n]
	}
	var sets [][]gmsl.PDU
	chains := set{}
	for _, s := range states {
		var events []gmsl.PDU
		for _, n := range s {
			events = append(events, parse(n))
			maps.Copy(chains, r.chain(n))
		}
		sets = append(sets, events)
	}
	var chain []gmsl.PDU
	for n := range chains {
		chain = append(chain, parse(n))
	}
	userID := func(_ spec.RoomID, sender spec.SenderID) (*spec.UserID, error) {
		return spec.NewUserID(string(sender), true)
	}
	var resolved []gmsl.PDU
	if r.props.StateResolution == roomversion.StateResV1 {
		conflicted, others := r.contested(states, parse)
		resolved = append(gmsl.ResolveStateConflicts(conflicted, others, userID), others...)
	} else {
		var err error
		resolved, err = gmsl.ResolveConflictsNew(gmsl.RoomVersion(r.v), sets, chain, userID, func(string) bool { return false })
		if err != nil {
			r.t.Fatal(err)
		}
	}
	byID := map[string]nid{}
	for n, e := range known {
		byID[e.EventID()] = n
	}
	result := state{}
	for _, e := range resolved {
		result[auth.Key{Type: e.Type(), StateKey: *e.StateKey()}] = byID[e.EventID()]
	}
	return result
}

// contested separates the events of keys for which states have different ones.
func (r *room) contested(states []state, parse func(nid) gmsl.PDU) (conflicted, others []gmsl.PDU) {
	candidates := map[auth.Key]set{}
	for _, s := range states {
		for key, n := range s {
			if candidates[key] == nil {
				candidates[key] = set{}
			}
			candidates[key][n] = true
		}
	}
	for _, of := range candidates {
		for n := range of {
			if len(of) > 1 {
				conflicted = append(conflicted, parse(n))
			} else {
				others = append(others, parse(n))
			}
		}
	}
	return conflicted, others
}

// The library allows a user who has left to leave again, which no room version does; otherwise its version 1 is right for the
// events of these histories.
func TestVersion1IsWhatTheLibrarySays(t *testing.T) {
	skipped := 0
	for seed := range uint64(150) {
		r, states := history(t, "1", seed)
		have, want := r.resolve(states...), r.library(states)
		switch {
		case maps.Equal(have, want):
		case r.leftTwice(states):
			skipped++
		default:
			t.Fatalf("seed %d: %s", seed, r.describe(have, want))
		}
	}
	if skipped > 40 {
		t.Errorf("%d of 150 histories were not compared", skipped)
	}
}

// leftTwice tells whether states have different events by which the same user left, one of them the user's own.
func (r *room) leftTwice(states []state) bool {
	left, own := map[auth.Key]set{}, map[auth.Key]bool{}
	for _, s := range states {
		for key, n := range s {
			if e := r.pdu(n); e.Membership() == "leave" {
				if left[key] == nil {
					left[key] = set{}
				}
				left[key][n] = true
				own[key] = own[key] || key.StateKey == string(e.Sender())
			}
		}
	}
	for key, events := range left {
		if own[key] && len(events) > 1 {
			return true
		}
	}
	return false
}

// Its version 2 is right where nothing that affects authorization conflicts: it gives an event itself as one of its auth events,
// orders power events otherwise than the specification, and panics in rooms of version 12. TestResolveIsWhatTheSpecificationSays
// has the rest.
func TestVersion2IsWhatTheLibrarySaysOfPlainConflicts(t *testing.T) {
	for _, v := range []id.RoomVersion{"2", "6", "11"} {
		for seed := range uint64(60) {
			r, base := newRoom(t, v, seed)
			for i := range 4 {
				r.join(&base, userN(i))
			}
			branches := []branch{base.fork(), base.fork(), base.fork()}
			for i := range 30 {
				r.must(&branches[i%3], "m.room.topic", string(rune('a'+r.rng.IntN(6))), userN(r.rng.IntN(4)), object{"n": i})
			}
			states := []state{branches[0].state, branches[1].state, branches[2].state}
			if have, want := r.resolve(states...), r.library(states); !maps.Equal(have, want) {
				t.Fatalf("version %s, seed %d: %s", v, seed, r.describe(have, want))
			}
		}
	}
}
