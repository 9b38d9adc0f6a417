package syncapi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"

	"github.com/tidwall/gjson"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/syncapi/devicelists"
)

// listsModel is what the lists of every user must be, from what happened.
type listsModel struct {
	rooms   []id.RoomID
	members map[id.RoomID]map[id.UserID]string
	moments []moment // after each step
}

// moment is who saw whom, and whose keys have changed since the moment before.
type moment struct {
	sees    map[[2]id.UserID]bool // viewer, seen
	updated map[[2]id.UserID]bool
}

func (m *listsModel) step(users []id.UserID, updated map[[2]id.UserID]bool) {
	sees := make(map[[2]id.UserID]bool)
	for _, viewer := range users {
		sees[[2]id.UserID{viewer, viewer}] = true
		for _, room := range m.members {
			for user, membership := range room {
				if room[viewer] == "join" && (membership == "join" || membership == "invite") {
					sees[[2]id.UserID{viewer, user}] = true
				}
			}
		}
	}
	m.moments = append(m.moments, moment{sees, updated})
}

// lists are those of a viewer between two moments.
func (m *listsModel) lists(viewer id.UserID, users []id.UserID, since, upTo int) string {
	var candidates []devicelists.Candidate
	for _, user := range users {
		pair := [2]id.UserID{viewer, user}
		c := devicelists.Candidate{UserID: user, Then: m.moments[since].sees[pair], Now: m.moments[upTo].sees[pair]}
		for _, one := range m.moments[since+1 : upTo+1] {
			c.Updated = c.Updated || one.updated[pair]
		}
		candidates = append(candidates, c)
	}
	l := devicelists.Of(candidates)
	return fmt.Sprint(l.Changed, l.Left)
}

func listed(answer gjson.Result) string {
	texts := func(list gjson.Result) (all []string) {
		for _, one := range list.Array() {
			all = append(all, one.Str)
		}
		return all
	}
	return fmt.Sprint(texts(answer.Get("changed")), texts(answer.Get("left")))
}

func (w *world) keyChanges(user id.UserID, from, to string) gjson.Result {
	w.t.Helper()
	query := url.Values{"from": {from}, "to": {to}}
	result, err := w.call(user, "keys_changes", nil, query.Encode(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// What a sync is answered from memory, what it is answered from the database, and what GET /keys/changes says is the
// same, and what a model says, for tokens of every age.
func TestDeviceListsAreThoseOfTheModel(t *testing.T) {
	seed := test.Seed(t)
	each(t, func(t *testing.T, w *world) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test
		const rooms = 5
		steps := test.Soak(60, 1000)
		var users []id.UserID
		for i := range 6 {
			users = append(users, id.UserID(fmt.Sprintf("@user%d:example.org", i)))
		}
		m := &listsModel{members: make(map[id.RoomID]map[id.UserID]string)}
		for i := range rooms {
			room := id.RoomID(fmt.Sprintf("!room%d:example.org", i))
			w.rooms.create(room, users[i])
			m.rooms = append(m.rooms, room)
			m.members[room] = map[id.UserID]string{users[i]: "join"}
		}
		m.step(users, nil)
		both := [2]*world{w, w}
		tokens := make(map[id.UserID]map[int]string)
		for _, user := range users {
			tokens[user] = map[int]string{0: next(w.get(user, ""))}
		}
		for step := 1; step <= steps; step++ {
			updated := make(map[[2]id.UserID]bool)
			for range 1 + random.IntN(3) {
				m.act(w, random, users, updated)
			}
			m.step(users, updated)
			switch random.IntN(25) {
			case 0:
				both = [2]*world{w.reopened(), w}
			case 1:
				if !w.shared {
					both = w.replicas()
				}
			}
			for _, user := range users {
				if random.IntN(3) == 0 {
					continue
				}
				since := m.tokenFor(random, tokens[user], step)
				at := both[random.IntN(2)]
				answer := at.get(user, tokens[user][since])
				want := m.lists(user, users, since, step)
				if got := listed(answer.Get("device_lists")); got != want {
					t.Fatalf("step %d: %s since %d: %s, want %s", step, user, since, got, want)
				}
				tokens[user][step] = next(answer)
				changes := at.keyChanges(user, tokens[user][since], next(answer))
				if got := listed(changes); got != want {
					t.Fatalf("step %d: changes of %s since %d: %s, want %s", step, user, since, got, want)
				}
			}
		}
	})
}

// tokenFor chooses the newest token of a user, or an old one.
func (m *listsModel) tokenFor(random *rand.Rand, tokens map[int]string, step int) (since int) {
	var all []int
	for at := range tokens {
		if at < step {
			all = append(all, at)
		}
	}
	slices.Sort(all)
	if random.IntN(3) > 0 {
		return all[len(all)-1]
	}
	return all[random.IntN(len(all))]
}

func (m *listsModel) act(w *world, random *rand.Rand, users []id.UserID, updated map[[2]id.UserID]bool) {
	user, other := users[random.IntN(len(users))], users[random.IntN(len(users))]
	room := m.rooms[random.IntN(len(m.rooms))]
	switch n := random.IntN(12); {
	case n < 4: // any membership follows on any other here
		membership := []string{"join", "join", "invite", "leave", "ban", "knock"}[random.IntN(6)]
		if membership == "leave" && m.members[room][user] == "" {
			return
		}
		w.rooms.member(room, other, user, membership)
		m.members[room][user] = membership
	case n < 6:
		w.rooms.member(room, user, user, "join")
		m.members[room][user] = "join"
	case n == 6:
		if m.members[room][user] == "join" {
			w.rooms.say(room, other, "a state is reset", reset(user))
			delete(m.members[room], user)
		}
	case n == 7:
		w.rooms.say(room, other, "hello")
	case n == 8:
		w.users.append(user, record{clientapi.TypeSignedUsers,
			&clientapi.OutputSignedUsers{UserID: user, Signed: []id.UserID{other}}})
		updated[[2]id.UserID{user, other}] = true
	default:
		w.users.append(user, listOf(user))
		for _, viewer := range users {
			updated[[2]id.UserID{viewer, user}] = true
		}
	}
}

// Of who is erased nothing is kept but that their keys have changed: others must hear of the end.
func TestOthersHearOfTheKeysOfWhoIsErased(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.rooms.create(room1, alice)
		w.rooms.member(room1, bob, bob, "join")
		w.users.append(alice, countsOf(alice, "DEValice", map[string]int{"signed_curve25519": 1}), record{
			clientapi.TypeSignedUsers, &clientapi.OutputSignedUsers{UserID: alice, Signed: []id.UserID{bob}}})
		since := next(w.get(bob, ""))
		w.users.append(alice, listOf(alice), goneOf(alice, ""),
			record{clientapi.TypeErased, &clientapi.OutputErased{UserID: alice}})
		for _, at := range []*world{w, w.reopened()} {
			if got := listed(at.get(bob, since).Get("device_lists")); got != "[@alice:example.org] []" {
				t.Errorf("bob is told %s", got)
			}
		}
		for table, user := range map[string]string{"syncapi_device_keys": "user_id", "syncapi_device_lists": "viewer"} {
			var n int
			err := w.db.ReadOne(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
				count := w.db.Stmt(`SELECT COUNT(*) FROM ` + table + ` WHERE ` + user + ` = $1`)
				return count.QueryRow(ctx, tx, alice).Scan(&n)
			})
			if err != nil || n > 0 {
				t.Errorf("%s has %d rows of alice, %v", table, n, err)
			}
		}
	})
}
