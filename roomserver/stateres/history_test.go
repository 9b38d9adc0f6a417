package stateres_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
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

type (
	nid   = stateres.EventNID
	state = stateres.StateSet
)

// room has all events of a room, and is a Source that counts what it is asked for.
type room struct {
	t      testing.TB
	v      id.RoomVersion
	props  *roomversion.Properties
	rng    *rand.Rand
	id     id.RoomID
	events []stateres.Event // by number, from 1
	parent id.EventID

	calls, loaded, walked int
	asked                 map[nid]bool // as an event
	askedAuth             map[nid]bool
	gone, goneAuth        nid // pretends not to have it
}

type object = map[string]any

const (
	creator = id.UserID("@u0:one")
	users   = 8 // of random histories
)

func userN(i int) id.UserID { return id.UserID(fmt.Sprintf("@u%d:one", i)) }

// branch is one fork of the room: its state, and how deep it is.
type branch struct {
	state state
	depth int64
}

func (b branch) fork() branch { return branch{maps.Clone(b.state), b.depth} }

// newRoom makes a room with its creator in it, who lets everybody join, and one user of power level 100 and two of 50.
func newRoom(t testing.TB, v id.RoomVersion, seed uint64) (*room, branch) {
	t.Helper()
	props, _ := roomversion.Get(v)
	r := &room{t: t, v: v, props: props, rng: rand.New(rand.NewPCG(seed, 7))}
	b := branch{state: state{}}
	if !props.RoomIDIsCreateHash {
		r.id = "!room:one"
	}
	create := r.must(&b, pdu.TypeCreate, "", creator, object{"creator": creator, "room_version": v})
	r.id, r.parent = r.pdu(create).RoomID(), r.pdu(create).ID()
	r.join(&b, creator)
	r.parent = "$parent:one"
	if props.HashIDs() {
		r.parent = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	}
	r.must(&b, pdu.TypePowerLevels, "", creator, r.levels(50))
	r.must(&b, pdu.TypeJoinRules, "", creator, object{"join_rule": "public"})
	return r, b
}

// levels are the first power levels, with another level of user 3.
func (r *room) levels(user3 int) object {
	levels := object{string(userN(1)): 100, string(userN(2)): 50, string(userN(3)): user3}
	if !r.props.PrivilegedCreators {
		levels[string(creator)] = 100
	}
	return object{"users": levels}
}

func (r *room) pdu(n nid) *pdu.Event { return r.events[n-1].PDU }

func (r *room) join(b *branch, user id.UserID) {
	r.t.Helper()
	r.must(b, pdu.TypeMember, string(user), user, object{"membership": "join"})
}

func (r *room) must(b *branch, eventType, key string, sender id.UserID, content any) nid {
	r.t.Helper()
	n := r.send(b, eventType, key, sender, content)
	if n == 0 {
		r.t.Fatalf("%s of %s by %s is not allowed", eventType, key, sender)
	}
	return n
}

// send adds a state event to a branch if the rules allow it there; 0 if not.
func (r *room) send(b *branch, eventType, key string, sender id.UserID, content any) nid {
	r.t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		r.t.Fatal(err)
	}
	// Times repeat and go backwards, so that orderings come down to event ids.
	p := pdu.Proto{RoomID: r.id, Type: eventType, StateKey: &key, Sender: sender, Content: raw, Depth: b.depth + 1,
		OriginServerTS: int64(1000 + len(r.events)/4 - r.rng.IntN(4))}
	if eventType != pdu.TypeCreate {
		p.PrevEvents = []id.EventID{r.parent}
	}
	needed, err := auth.NeededForProto(r.v, p)
	if err != nil {
		r.t.Fatal(err)
	}
	var cited []nid
	for _, key := range needed {
		if n, is := b.state[key]; is {
			cited = append(cited, n)
			p.AuthEvents = append(p.AuthEvents, r.pdu(n).ID())
		}
	}
	e := r.build(p)
	if auth.Check(e, r.view(b.state)) != nil {
		return 0
	}
	n := nid(len(r.events) + 1)
	r.events = append(r.events, stateres.Event{NID: n, PDU: e, Auth: cited})
	b.state[auth.Key{Type: eventType, StateKey: key}] = n
	b.depth++
	return n
}

// build gives the events of old room versions ids that depend on the seed alone.
func (r *room) build(p pdu.Proto) *pdu.Event {
	r.t.Helper()
	e, err := pdu.Build(r.v, p, pdu.Signer{ServerName: "one", KeyID: "ed25519:1", PrivateKey: ed25519.NewKeyFromSeed(make([]byte, 32))})
	if err == nil && !r.props.HashIDs() {
		eventID := id.EventID(fmt.Sprintf("$%016x:one", r.rng.Uint64()))
		e, err = pdu.ParseTrusted(r.v, eventID, bytes.ReplaceAll(e.JSON(), []byte(e.ID()), []byte(eventID)))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// view is a state as the authorization rules see it.
func (r *room) view(s state) auth.Map {
	m := make(auth.Map, len(s))
	for key, n := range s {
		m[key] = r.pdu(n)
	}
	return m
}

// step tries a random event.
func (r *room) step(b *branch) {
	r.t.Helper()
	sender, target := userN(r.rng.IntN(users)), userN(r.rng.IntN(users))
	member := func(sender id.UserID, membership string) {
		r.send(b, pdu.TypeMember, string(target), sender, object{"membership": membership, "n": r.rng.IntN(1000)})
	}
	switch r.rng.IntN(10) {
	case 0, 1:
		member(target, "join")
	case 2:
		member(target, "leave")
	case 3:
		member(sender, []string{"leave", "ban", "invite"}[r.rng.IntN(3)])
	case 4, 5, 6:
		var content object
		if err := json.Unmarshal(r.pdu(b.state[auth.Key{Type: pdu.TypePowerLevels}]).Content(), &content); err != nil {
			r.t.Fatal(err)
		}
		if level := 25 * r.rng.IntN(5); r.rng.IntN(3) == 0 {
			content[[]string{"ban", "kick", "invite", "state_default"}[r.rng.IntN(4)]] = min(level, 75)
		} else {
			content["users"].(object)[string(target)] = level
		}
		r.send(b, pdu.TypePowerLevels, "", sender, content)
	case 7:
		r.send(b, pdu.TypeJoinRules, "", sender, object{"join_rule": []string{"public", "invite"}[r.rng.IntN(2)], "n": r.rng.IntN(1000)})
	default:
		r.send(b, []string{"m.room.topic", "m.some"}[r.rng.IntN(2)], []string{"", "x"}[r.rng.IntN(2)], sender, object{"n": r.rng.IntN(1000)})
	}
}

// history is a random room, and the states of its forks.
func history(t testing.TB, v id.RoomVersion, seed uint64) (*room, []state) {
	t.Helper()
	r, first := newRoom(t, v, seed)
	for i := 1; i < 6; i++ {
		r.join(&first, userN(i))
	}
	branches := []branch{first}
	for range 20 + r.rng.IntN(60) {
		at := r.rng.IntN(len(branches))
		switch n := r.rng.IntN(20); {
		case n == 0 && len(branches) < 5:
			branches = append(branches, branches[at].fork())
		case n == 1 && len(branches) > 2:
			with := (at + 1) % len(branches)
			merged, err := stateres.Resolve(context.Background(), v, []state{branches[at].state, branches[with].state}, r)
			if err != nil {
				t.Fatal(err)
			}
			branches[at] = branch{merged, max(branches[at].depth, branches[with].depth) + 1}
			branches = slices.Delete(branches, with, with+1)
		default:
			r.step(&branches[at])
		}
	}
	for len(branches) < 2 {
		branches = append(branches, branches[0].fork())
		for range 10 {
			r.step(&branches[0])
			r.step(&branches[1])
		}
	}
	var states []state
	for _, b := range branches {
		states = append(states, b.state)
	}
	r.reset()
	return r, states
}

func (r *room) reset() {
	r.calls, r.loaded, r.walked = 0, 0, 0
	r.asked, r.askedAuth = map[nid]bool{}, map[nid]bool{}
}

// Events implements stateres.Source.
func (r *room) Events(_ context.Context, nids []nid) ([]stateres.Event, error) {
	r.calls++
	var found []stateres.Event
	for _, n := range nids {
		if n <= 0 || int(n) > len(r.events) {
			r.t.Fatalf("event number %d is asked for", n)
		}
		if r.asked != nil {
			r.asked[n] = true
		}
		if n != r.gone {
			found = append(found, r.events[n-1])
		}
	}
	r.loaded += len(found)
	r.rng.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found, nil
}

// Auth implements stateres.Source.
func (r *room) Auth(_ context.Context, nids []nid) ([][]nid, error) {
	r.calls++
	r.walked += len(nids)
	found := make([][]nid, 0, len(nids))
	for _, n := range nids {
		if r.askedAuth != nil {
			r.askedAuth[n] = true
		}
		if n != r.goneAuth {
			found = append(found, r.events[n-1].Auth)
		}
	}
	return found, nil
}

// renumbered is the same room with other numbers, and the states in them; back gives the old number.
func (r *room) renumbered(states []state) (other *room, renamed []state, back func(state) state) {
	order := r.rng.Perm(len(r.events)) // old index to new index
	other = &room{t: r.t, v: r.v, props: r.props, rng: r.rng, id: r.id, events: make([]stateres.Event, len(r.events))}
	to := func(n nid) nid { return nid(order[n-1] + 1) }
	from := make([]nid, len(r.events))
	for i, e := range r.events {
		e.NID, e.Auth = to(e.NID), slices.Clone(e.Auth)
		for j, n := range e.Auth {
			e.Auth[j] = to(n)
		}
		r.rng.Shuffle(len(e.Auth), func(i, j int) { e.Auth[i], e.Auth[j] = e.Auth[j], e.Auth[i] })
		other.events[e.NID-1], from[e.NID-1] = e, nid(i+1)
	}
	rename := func(s state, with func(nid) nid) state {
		renamed := state{}
		for key, n := range s {
			renamed[key] = with(n)
		}
		return renamed
	}
	for _, s := range states {
		renamed = append(renamed, rename(s, to))
	}
	return other, renamed, func(s state) state { return rename(s, func(n nid) nid { return from[n-1] }) }
}

// describe writes a difference between two states.
func (r *room) describe(have, want state) string {
	var b bytes.Buffer
	for key, n := range have {
		if want[key] != n {
			fmt.Fprintf(&b, "%v: have %d, want %d\n", key, n, want[key])
		}
	}
	for key, n := range want {
		if have[key] == 0 {
			fmt.Fprintf(&b, "%v: have none, want %d\n", key, n)
		}
	}
	return b.String()
}
