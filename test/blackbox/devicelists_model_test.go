package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// Users who do whatever comes to their minds with devices, keys and memberships: every sync names exactly those whose
// keys the client must fetch, and those whom it does not see any more, from any token that the client has had; who
// waits is woken for that and for nothing else; and what clients know by that is what the server has.
func TestSyncsTellOfDeviceListsExactly(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		steps := map[deploy.Kind]int{deploy.MonolithSQLite: 400, deploy.MonolithPostgres: 80, deploy.Polylith: 80}
		chance := rand.New(rand.NewPCG(test.Seed(t), 8<<32))
		for range test.Soak(1, 50) {
			newListWorld(t, d, chance).live(steps[d.kind])
		}
	})
}

// spell is what somebody's membership of a room is from a time on.
type spell struct {
	from       int
	membership string
}

// listWorld is users with devices, their rooms, and what the test knows of both.
type listWorld struct {
	t      *testing.T
	chance *rand.Rand
	log    []string
	users  []*keyUser
	views  []*tracker
	rooms  []string
	clock  int
	is     map[string]map[string][]spell // by room and user
	told   map[string][]int              // by user, when all who see them must be told
	alone  map[string]map[string][]int   // by user, when they alone must be told of another
}

func newListWorld(t *testing.T, d *deployment, chance *rand.Rand) *listWorld {
	w := &listWorld{t: t, chance: chance, is: make(map[string]map[string][]spell), told: make(map[string][]int),
		alone: make(map[string]map[string][]int)}
	for _, name := range []string{"alice", "bob", "carol", "dave", "erin", "frank"} {
		u := newKeyUser(d.user(t, name), chance)
		w.users, w.alone[u.userID] = append(w.users, u), make(map[string][]int)
		for range 3 {
			w.views = append(w.views, &tracker{client: u.client, chance: chance, filter: pick(chance, trackerFilters())})
		}
	}
	return w
}

// live lets the world go on for some steps.
func (w *listWorld) live(steps int) {
	w.t.Helper()
	for step := range steps {
		for range w.chance.IntN(4) {
			w.act()
		}
		for range 2 {
			w.syncOf(pick(w.chance, w.views))
		}
		if w.chance.IntN(8) == 0 {
			w.wake(pick(w.chance, w.views))
		}
		if w.t.Failed() {
			w.t.Fatalf("at step %d, after:\n%s", step, strings.Join(w.log[max(0, len(w.log)-80):], "\n"))
		}
	}
	for _, v := range w.views {
		w.syncOf(v)
	}
}

// act has somebody do something, and notes what comes of it. It returns whether that is one step for the server.
func (w *listWorld) act() (atOnce bool) {
	w.t.Helper()
	ctx, u, other := w.t.Context(), pick(w.chance, w.users), pick(w.chance, w.users)
	w.clock++
	var what string
	atOnce = true
	switch {
	case w.chance.IntN(2) == 0:
		signed := w.hasSigned(u)
		c := u.actOnKeys(ctx, w.users)
		if what = c.what; c.told {
			w.told[u.userID] = append(w.told[u.userID], w.clock)
			what += ", which others must know"
		}
		if !c.reset {
			signed = nil
		}
		if c.other != "" {
			signed = []string{c.other}
		}
		for _, other := range signed {
			w.alone[u.userID][other] = append(w.alone[u.userID][other], w.clock)
		}
	case len(w.rooms) < 3 || w.chance.IntN(40) == 0:
		room, now := u.makeRoom(ctx, other)
		what, atOnce = fmt.Sprintf("%s makes %s: %v", u.localpart, room, now), false
		w.rooms, w.is[room] = append(w.rooms, room), make(map[string][]spell)
		w.became(room, now)
	default:
		room := pick(w.chance, w.rooms[max(0, len(w.rooms)-5):])
		var now []became
		what, now = u.actOnRoom(ctx, room, other, w.membership)
		w.became(room, now)
	}
	w.log = append(w.log, fmt.Sprintf("%d: %s", w.clock, what))
	return atOnce
}

// hasSigned lists whose master keys are shown to a user with the user's signature.
func (w *listWorld) hasSigned(u *keyUser) (all []string) {
	for _, other := range w.users {
		if u.cross != nil && other.cross != nil &&
			u.signed[other.userID] == u.cross.user.public()+" "+other.cross.master.public() {
			all = append(all, other.userID)
		}
	}
	return all
}

func (w *listWorld) became(room string, now []became) {
	for _, b := range now {
		w.is[room][b.userID] = append(w.is[room][b.userID], spell{w.clock, b.membership})
	}
}

// membership is what somebody's is now.
func (w *listWorld) membership(room, userID string) string {
	return w.membershipAt(room, userID, w.clock)
}

func (w *listWorld) membershipAt(room, userID string, clock int) (is string) {
	for _, s := range w.is[room][userID] {
		if s.from <= clock {
			is = s.membership
		}
	}
	return is
}

// seen lists whom a user sees at a time, themselves among them, in order.
func (w *listWorld) seen(userID string, clock int) []string {
	var all []string
	for _, other := range w.users {
		sees := other.userID == userID || slices.ContainsFunc(w.rooms, func(room string) bool {
			is := w.membershipAt(room, other.userID, clock)
			return w.membershipAt(room, userID, clock) == "join" && (is == "join" || is == "invite")
		})
		if sees {
			all = append(all, other.userID)
		}
	}
	slices.Sort(all)
	return all
}

// expected is what a sync must say now to a user who has seen everything up to a time.
func (w *listWorld) expected(userID string, since int) (changed, left []string) {
	before, now := w.seen(userID, since), w.seen(userID, w.clock)
	changed, left = []string{}, []string{}
	after := func(times []int) bool { return len(times) > 0 && times[len(times)-1] > since }
	for _, other := range now {
		if !slices.Contains(before, other) || after(w.told[other]) || after(w.alone[userID][other]) {
			changed = append(changed, other)
		}
	}
	for _, other := range before {
		if !slices.Contains(now, other) {
			left = append(left, other)
		}
	}
	return changed, left
}

// syncOf syncs a client, and compares what it is told and what it has then with what the test knows.
func (w *listWorld) syncOf(v *tracker) {
	w.t.Helper()
	ctx := w.t.Context()
	if w.chance.IntN(12) == 0 {
		v.restart()
	}
	before := v.page()
	answer, err := v.follow(ctx, w.clock, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	what := fmt.Sprintf("sync of %s, since %q of %d, to %s", v.localpart, before.since, before.clock, v.page().since)
	w.log = append(w.log, fmt.Sprintf("%d: %s: %s", w.clock, what, answer.Get("device_lists").Raw))
	if before.since != "" {
		w.exact(what, v.userID, before.clock, answer.Get("device_lists"))
		changes := v.must("GET", at("keys", "changes")+"?from="+before.since+"&to="+v.page().since, nil)
		w.exact("the keys/changes of the "+what, v.userID, before.clock, changes)
	}
	if err := v.compare(ctx, w.seen(v.userID, w.clock)); err != nil {
		w.t.Errorf("%s: %v", what, err)
	}
}

func (w *listWorld) exact(what, userID string, since int, lists gjson.Result) {
	w.t.Helper()
	changed, left := w.expected(userID, since)
	same(w.t, what+": changed", userIDs(lists.Get("changed")), changed)
	same(w.t, what+": left", userIDs(lists.Get("left")), left)
}

// wake has a client sleep in a sync while somebody does something, of which it is told at once if it must be.
func (w *listWorld) wake(v *tracker) {
	w.t.Helper()
	w.syncOf(v)
	since := w.clock
	nothingElse := object{"room": object{"rooms": []string{}}, "presence": object{"types": []string{}}}
	woken := v.poll(v.page().since, filtered(nothingElse)...)
	began := time.Now()
	atOnce := w.act()
	changed, left := w.expected(v.userID, since)
	must := len(changed)+len(left) > 0
	if !must {
		v.must("PUT", at("user", v.userID, "account_data", "x.wake"), object{"n": w.clock})
	}
	lists := woken().Get("device_lists")
	if took := time.Since(began); took > longest/2 {
		w.t.Errorf("%s sleeps for %v in a sync that must tell of %v and %v", v.localpart, took, changed, left)
	}
	if atOnce {
		w.exact("the sync that woke "+v.localpart, v.userID, since, lists)
	}
}
