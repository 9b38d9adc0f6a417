package stateres_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/common/roomversion"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// versions are those whose state resolution is worth its own histories.
var versions = []id.RoomVersion{"1", "2", "6", "11", "12"}

const seeds = 40

func forEachHistory(t *testing.T, test func(t *testing.T, r *room, states []state)) {
	t.Helper()
	for _, v := range versions {
		t.Run("v"+string(v), func(t *testing.T) {
			for seed := range uint64(seeds) {
				r, states := history(t, v, seed)
				if test(t, r, states); t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

func (r *room) resolve(states ...state) state {
	r.t.Helper()
	result, err := stateres.Resolve(context.Background(), r.v, states, r)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

func TestResolveIsWhatTheSpecificationSays(t *testing.T) {
	dropped, fromChain := 0, 0
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		if r.props.StateResolution == roomversion.StateResV1 {
			return
		}
		want := r.reference(states)
		have := r.resolve(states...)
		if !maps.Equal(have, want) {
			t.Error(r.describe(have, want))
		}
		for _, s := range states {
			for key := range s {
				if have[key] == 0 {
					dropped++
				}
			}
		}
		for key, n := range have {
			if !slices.ContainsFunc(states, func(s state) bool { return s[key] == n }) {
				fromChain++
			}
		}
		// Rejected events are in states and chains, but authorise nothing.
		for i := range r.events[1:] {
			r.events[i+1].Rejected = r.rng.IntN(3) == 0
		}
		if have, want := r.resolve(states...), r.reference(states); !maps.Equal(have, want) {
			t.Error("with rejected events: " + r.describe(have, want))
		}
	})
	if dropped == 0 || fromChain == 0 {
		t.Errorf("the histories are too tame: %d entries were dropped, %d came from auth chains", dropped, fromChain)
	}
}

func TestResolveIsTheSameInAnyOrder(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		want := r.resolve(states...)
		for range 3 {
			r.rng.Shuffle(len(states), func(i, j int) { states[i], states[j] = states[j], states[i] })
			if have := r.resolve(states...); !maps.Equal(have, want) {
				t.Fatal("another order of states: " + r.describe(have, want))
			}
			other, renamed, back := r.renumbered(states)
			if have := back(other.resolve(renamed...)); !maps.Equal(have, want) {
				t.Fatal("another order of arrival: " + r.describe(have, want))
			}
		}
		if have := r.resolve(append(slices.Clone(states), states[0])...); !maps.Equal(have, want) {
			t.Error("a state twice: " + r.describe(have, want))
		}
	})
}

func TestResolveIsIdempotent(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		result := r.resolve(states...)
		for _, same := range append(states, result) {
			r.reset()
			if have := r.resolve(same); !maps.Equal(have, same) {
				t.Error("one state: " + r.describe(have, same))
			}
			if have := r.resolve(same, maps.Clone(same), same); !maps.Equal(have, same) {
				t.Error("the same states: " + r.describe(have, same))
			}
			if r.loaded > 3 {
				t.Errorf("%d events were loaded to resolve no conflict", r.loaded)
			}
		}
	})
}

func TestResolveKeepsWhatNobodyContests(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		result := r.resolve(states...)
		candidates := map[auth.Key]set{}
		in := map[auth.Key]int{}
		for _, s := range states {
			for key, n := range s {
				if candidates[key] == nil {
					candidates[key] = set{}
				}
				candidates[key][n] = true
				in[key]++
			}
		}
		known := set{}
		for _, s := range states {
			for _, n := range s {
				known[n] = true
				maps.Copy(known, r.chain(n))
			}
		}
		for key, of := range candidates {
			if len(of) == 1 && in[key] == len(states) && !of[result[key]] {
				t.Errorf("the unconflicted entry of %v became %d", key, result[key])
			}
			// In version 1 a key that only some states have does not conflict.
			if len(of) == 1 && r.props.StateResolution == roomversion.StateResV1 && !of[result[key]] {
				t.Errorf("the uncontested entry of %v became %d", key, result[key])
			}
		}
		for key, n := range result {
			stateKey, isState := r.pdu(n).StateKey()
			if !known[n] || !isState || key != (auth.Key{Type: r.pdu(n).Type(), StateKey: stateKey}) {
				t.Errorf("the entry of %v is %d, which has no business there", key, n)
			}
		}
	})
}

// A key that only some states have, and whose event the merged room allows, stays in all versions.
func TestResolveKeepsAdditionsThatAreAllowed(t *testing.T) {
	for _, v := range roomversion.All() {
		r, base := newRoom(t, v, 1)
		r.join(&base, userN(1))
		a, b := base.fork(), base.fork()
		topic := r.must(&a, "m.room.topic", "", userN(1), object{"topic": "a"})
		r.join(&a, userN(5))
		r.join(&b, userN(6))
		name := r.must(&b, "m.room.name", "", creator, object{"name": "b"})
		result := r.resolve(a.state, b.state)
		if result[auth.Key{Type: "m.room.topic"}] != topic || result[auth.Key{Type: "m.room.name"}] != name || len(result) != len(base.state)+4 {
			t.Errorf("version %s: %v", v, result)
		}
	}
}

func TestResolveOfABanAndWhatTheBannedDid(t *testing.T) {
	for _, v := range roomversion.All() {
		r, base := newRoom(t, v, 2)
		for i := range 4 {
			r.join(&base, userN(i))
		}
		a, b := base.fork(), base.fork()
		ban := r.must(&a, pdu.TypeMember, string(userN(2)), userN(1), object{"membership": "ban"})
		r.must(&b, "m.room.topic", "", userN(2), object{"topic": "spite"})
		r.must(&b, pdu.TypeMember, string(userN(2)), userN(2), object{"membership": "join", "displayname": "not banned"})
		result := r.resolve(a.state, b.state)
		if r.props.StateResolution == roomversion.StateResV1 {
			continue // is known to lose such contests
		}
		if topic, is := result[auth.Key{Type: "m.room.topic"}]; is || result[auth.Key{Type: pdu.TypeMember, StateKey: string(userN(2))}] != ban {
			t.Errorf("version %s: the ban is %d, the topic %d", v, result[auth.Key{Type: pdu.TypeMember, StateKey: string(userN(2))}], topic)
		}
	}
}

func TestAMissingEventIsAnError(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		r.resolve(states...)
		asked, askedAuth := r.asked, r.askedAuth
		for n := range asked {
			r.gone = n
			if _, err := stateres.Resolve(context.Background(), r.v, states, r); !errors.Is(err, stateres.ErrMissing) {
				t.Errorf("without event %d: %v", n, err)
			}
		}
		r.gone = 0
		for n := range askedAuth {
			r.goneAuth = n
			if _, err := stateres.Resolve(context.Background(), r.v, states, r); !errors.Is(err, stateres.ErrMissing) {
				t.Errorf("without the auth events of %d: %v", n, err)
			}
		}
	})
}

func TestARoomWithoutACreateEventIsAnError(t *testing.T) {
	for _, v := range versions {
		r, base := newRoom(t, v, 3)
		a, b := base.fork(), base.fork()
		r.must(&a, "m.room.topic", "", creator, object{})
		r.must(&b, "m.room.name", "", creator, object{})
		r.must(&b, "m.room.topic", "", creator, object{})
		delete(a.state, auth.Key{Type: pdu.TypeCreate})
		delete(b.state, auth.Key{Type: pdu.TypeCreate})
		if _, err := stateres.Resolve(context.Background(), v, []state{a.state, b.state}, r); !errors.Is(err, stateres.ErrMissing) {
			t.Errorf("version %s: %v", v, err)
		}
	}
}

func TestCyclesAreErrors(t *testing.T) {
	levels := auth.Key{Type: pdu.TypePowerLevels}
	for _, v := range versions[1:] {
		build := func() (*room, branch, branch) {
			r, base := newRoom(t, v, 4)
			a, b := base.fork(), base.fork()
			r.must(&a, pdu.TypePowerLevels, "", creator, r.levels(40))
			r.must(&b, pdu.TypePowerLevels, "", creator, r.levels(30))
			return r, a, b
		}
		expect := func(what string, r *room, states ...state) {
			t.Helper()
			if _, err := stateres.Resolve(context.Background(), v, states, r); !errors.Is(err, stateres.ErrCycle) {
				t.Errorf("version %s, %s: %v", v, what, err)
			}
		}
		cite := func(r *room, n, cited nid) { r.events[n-1].Auth = append(slices.Clone(r.events[n-1].Auth), cited) }

		r, a, b := build()
		cite(r, a.state[levels], a.state[levels])
		expect("an event that cites itself", r, a.state, b.state)

		r, a, b = build()
		cite(r, a.state[levels], b.state[levels])
		cite(r, b.state[levels], a.state[levels])
		expect("two conflicted power levels", r, a.state, b.state)

		// In the chain of the power levels that topics cite, which all states have.
		r, a, _ = build()
		c, d := a.fork(), a.fork()
		r.must(&c, "m.room.topic", "", creator, object{"n": 1})
		r.must(&d, "m.room.topic", "", creator, object{"n": 2})
		newest, before := a.state[levels], r.cited(a.state[levels], pdu.TypePowerLevels)
		r.events[before-1].Auth = append([]nid{newest}, r.events[before-1].Auth...)
		if r.props.StateResolution == roomversion.StateResV21 {
			// The resolution begins from nothing, so there is no mainline that the cycle is in.
			expect("power levels before topics", r, c.state, d.state)
		} else {
			expect("the mainline", r, c.state, d.state)
		}
	}
}

// Numbers can be made to refer to each other in ways that event ids cannot.
func TestHostileGraphsEndWithoutPanic(t *testing.T) {
	for _, v := range versions {
		for seed := range uint64(seeds) {
			r, states := history(t, v, seed)
			rng := rand.New(rand.NewPCG(seed, 9))
			for range 1 + rng.IntN(20) {
				e := &r.events[rng.IntN(len(r.events))]
				e.Auth = slices.Clone(e.Auth)
				for range 1 + rng.IntN(3) {
					at := rng.IntN(len(e.Auth) + 1)
					e.Auth = slices.Insert(e.Auth, at, nid(1+rng.IntN(len(r.events))))
				}
				e.Rejected = rng.IntN(4) == 0
			}
			for i := range states {
				for range rng.IntN(4) {
					n := nid(1 + rng.IntN(len(r.events)))
					stateKey, _ := r.pdu(n).StateKey()
					states[i][auth.Key{Type: r.pdu(n).Type(), StateKey: stateKey}] = n
				}
			}
			_, err := stateres.Resolve(context.Background(), v, states, r)
			if err != nil && !errors.Is(err, stateres.ErrCycle) && !errors.Is(err, stateres.ErrMissing) {
				t.Errorf("version %s, seed %d: %v", v, seed, err)
			}
		}
	}
}

func TestErrorsOfTheSourceAreReturned(t *testing.T) {
	broken := errors.New("the database is away")
	r, states := history(t, "11", 5)
	for at := 1; ; at++ {
		s := &failing{room: r, at: at, err: broken}
		_, err := stateres.Resolve(context.Background(), r.v, states, s)
		if s.at > 0 {
			if err != nil || at < 3 {
				t.Errorf("after %d calls: %v", at, err)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Errorf("call %d failed: %v", at, err)
		}
	}
}

// failing fails the call with a number.
type failing struct {
	*room
	at  int
	err error
}

func (f *failing) fails() bool { f.at--; return f.at == 0 }

func (f *failing) Events(ctx context.Context, nids []nid) ([]stateres.Event, error) {
	if f.fails() {
		return nil, f.err
	}
	return f.room.Events(ctx, nids)
}

func (f *failing) Auth(ctx context.Context, nids []nid) ([][]nid, error) {
	if f.fails() {
		return nil, f.err
	}
	return f.room.Auth(ctx, nids)
}

func TestUnknownRoomVersionsAreErrors(t *testing.T) {
	if _, err := stateres.Resolve(context.Background(), "org.example", nil, nil); err == nil {
		t.Error("a room version that nobody knows was resolved")
	}
}
