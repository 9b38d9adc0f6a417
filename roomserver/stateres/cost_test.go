package stateres_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/pdu"
	"github.com/matrix-org/dendrite/roomserver/auth"
	"github.com/matrix-org/dendrite/roomserver/stateres"
)

// contest is two states of a room with n conflicted events: topics that nobody removed, members that one side kicked, and one
// change of the power levels on each side for every hundred of them. The other members of the room are not contested.
func contest(t testing.TB, v id.RoomVersion, n, uncontested int) (*room, []state) {
	t.Helper()
	r, base := newRoom(t, v, 1)
	for i := 1; i < 4; i++ {
		r.join(&base, userN(i))
	}
	for i := range n/4 + uncontested {
		r.join(&base, userN(100+i))
	}
	sides := []branch{base.fork(), base.fork()}
	for i := range n / 4 {
		for side := range sides {
			if i%25 == 0 {
				r.must(&sides[side], pdu.TypePowerLevels, "", creator, r.levels(20+(i/25+side)%20))
			}
			r.must(&sides[side], "m.room.topic", string(userN(i))[1:], userN(1+side), object{"topic": side})
		}
		r.must(&sides[0], pdu.TypeMember, string(userN(100+i)), userN(2), object{"membership": "leave"})
		r.must(&sides[1], pdu.TypeMember, string(userN(100+i)), userN(100+i), object{"membership": "join", "displayname": "x"})
	}
	r.reset()
	return r, []state{sides[0].state, sides[1].state}
}

func TestCostGrowsWithTheConflict(t *testing.T) {
	for _, v := range []id.RoomVersion{"1", "11", "12"} {
		type cost struct {
			calls, loaded, walked int
			allocated             float64
			took                  time.Duration
		}
		var costs [2]cost
		for i, n := range []int{400, 4000} {
			r, states := contest(t, v, n, 0)
			r.resolve(states...)
			c := cost{calls: r.calls, loaded: r.loaded, walked: r.walked}
			r.asked, r.askedAuth = nil, nil
			c.took = time.Hour
			c.allocated = testing.AllocsPerRun(8, func() {
				began := time.Now()
				r.resolve(states...)
				c.took = min(c.took, time.Since(began))
			})
			if c.loaded > len(r.events) || c.walked > 3*len(r.events) {
				t.Errorf("version %s: %d events were loaded and the auth events of %d asked for, of a room of %d", v, c.loaded, c.walked, len(r.events))
			}
			costs[i] = c
		}
		small, large := costs[0], costs[1]
		if large.loaded > 11*small.loaded || large.walked > 11*small.walked || large.allocated > 12*small.allocated {
			t.Errorf("version %s: ten times the conflict costs %+v, not %+v", v, large, small)
		}
		// Ten times n log n is less than 14 times, and twice that with colder memory. A quadratic step takes a hundred times.
		if large.took > 60*small.took {
			t.Errorf("version %s: ten times the conflict takes %v, not %v", v, large.took, small.took)
		}
	}
}

// One generation of auth events is asked for at a time, so a chain of power levels costs a call for each. Nothing else does.
func TestCallsGrowWithTheDepthOfAuthChainsOnly(t *testing.T) {
	for _, v := range versions {
		var calls [2]int
		for i, n := range []int{10, 200} {
			r, base := newRoom(t, v, 1)
			for i := 1; i < 4; i++ {
				r.join(&base, userN(i))
			}
			sides := []branch{base.fork(), base.fork(), base.fork()}
			for i := range n {
				r.must(&sides[i%3], "m.room.topic", string(userN(i / 6))[1:], userN(1+i%3), object{"n": i})
			}
			r.reset()
			r.resolve(sides[0].state, sides[1].state, sides[2].state)
			calls[i] = r.calls
		}
		if calls[1] > calls[0] || calls[1] > 16 {
			t.Errorf("version %s: %d calls for 10 events, %d for 200", v, calls[0], calls[1])
		}
	}
}

func TestTheSizeOfTheRoomCostsNothing(t *testing.T) {
	for _, v := range []id.RoomVersion{"1", "11", "12"} {
		var loaded, asked [2]int
		for i, members := range []int{50, 1000} {
			r, states := contest(t, v, 40, members)
			unconflicted, conflicted := split(states)
			u := &unconflictedPart{entries: unconflicted, room: r}
			if _, err := stateres.ResolveConflicted(context.Background(), v, conflicted, u, r); err != nil {
				t.Fatal(err)
			}
			loaded[i], asked[i] = r.loaded, u.asked
		}
		if loaded[0] != loaded[1] || asked[0] != asked[1] {
			t.Errorf("version %s: %d events are loaded in a small room and %d in a large one, %d and %d entries looked up",
				v, loaded[0], loaded[1], asked[0], asked[1])
		}
	}
}

func split(states []state) (state, []state) {
	unconflicted := maps.Clone(states[0])
	maps.DeleteFunc(unconflicted, func(key auth.Key, n nid) bool {
		return slices.ContainsFunc(states, func(s state) bool { return s[key] != n })
	})
	var conflicted []state
	for _, s := range states {
		s = maps.Clone(s)
		maps.DeleteFunc(s, func(key auth.Key, _ nid) bool { return unconflicted[key] != 0 })
		conflicted = append(conflicted, s)
	}
	return unconflicted, conflicted
}

// unconflictedPart is a stateres.Unconflicted that counts.
type unconflictedPart struct {
	entries state
	room    *room
	asked   int
}

func (u *unconflictedPart) Get(_ context.Context, keys []auth.Key) (map[auth.Key]nid, error) {
	u.asked += len(keys)
	found := map[auth.Key]nid{}
	for _, key := range keys {
		if n, is := u.entries[key]; is {
			found[key] = n
		}
	}
	return found, nil
}

func (u *unconflictedPart) Covers(ctx context.Context, candidates []nid) (map[nid]bool, error) {
	return stateres.Covers(ctx, slices.Collect(maps.Values(u.entries)), candidates, u.room)
}

func TestResolveConflictedIsResolve(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		unconflicted, conflicted := split(states)
		have, err := stateres.ResolveConflicted(context.Background(), r.v, conflicted, &unconflictedPart{entries: unconflicted, room: r}, r)
		if err != nil {
			t.Fatal(err)
		}
		for key := range have {
			if unconflicted[key] != 0 {
				t.Errorf("%v is not conflicted, and has an entry", key)
			}
		}
		maps.Copy(have, unconflicted)
		if want := r.resolve(states...); !maps.Equal(have, want) {
			t.Error(r.describe(have, want))
		}
	})
}

func TestCovers(t *testing.T) {
	forEachHistory(t, func(t *testing.T, r *room, states []state) {
		entries := slices.Collect(maps.Values(states[0]))
		want := set{}
		for _, n := range entries {
			maps.Copy(want, r.chain(n))
		}
		var candidates []nid
		for i := range r.events {
			if r.rng.IntN(2) == 0 {
				candidates = append(candidates, nid(i+1))
			}
		}
		maps.DeleteFunc(want, func(n nid, _ bool) bool { return !slices.Contains(candidates, n) })
		have, err := stateres.Covers(context.Background(), entries, candidates, r)
		if err != nil || !maps.Equal(have, want) {
			t.Errorf("%v are covered, want %v; %v", have, want, err)
		}
		r.reset()
		if have, err := stateres.Covers(context.Background(), entries, nil, r); err != nil || len(have) > 0 || r.calls > 0 {
			t.Errorf("of no candidates %v are covered, in %d calls; %v", have, r.calls, err)
		}
	})
}

func BenchmarkResolve10k(b *testing.B) {
	for _, v := range []id.RoomVersion{"1", "11", "12"} {
		b.Run("v"+string(v), func(b *testing.B) {
			r, states := contest(b, v, 10_000, 0)
			r.asked, r.askedAuth = nil, nil
			b.ReportAllocs()
			for b.Loop() {
				r.resolve(states...)
			}
		})
	}
}
