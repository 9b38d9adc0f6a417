package blackbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/matrix-org/dendrite/common/test"
	"github.com/matrix-org/dendrite/test/deploy"
)

// Many users act at once, and clients follow. At the end each client knows what the server has, of those whom it sees.
func TestClientsFollowDeviceListsInACrowd(t *testing.T) {
	run(t, func(t *testing.T, d *deployment) {
		acts := map[deploy.Kind]int{deploy.MonolithSQLite: 600, deploy.MonolithPostgres: 300, deploy.Polylith: 300}
		seed := test.Seed(t)
		for i := range test.Soak(1, 50) {
			crowd(t, d, seed+uint64(i), acts[d.kind], 0)
		}
	})
}

// The same while processes are killed.
func killDeviceLists(t *testing.T, d *deployment, seed uint64) {
	crowd(t, d, seed, test.Soak(600, 6000), test.Soak(4, 20))
}

// crowd has users act so often, while so many processes are killed.
func crowd(t *testing.T, d *deployment, seed uint64, acts, kills int) {
	t.Helper()
	work := newToil(t)
	var users []*keyUser
	for i := range 8 {
		users = append(users, newKeyUser(d.user(t, fmt.Sprintf("crowd%d", i)), rand.New(rand.NewPCG(seed, 9<<32+uint64(i)))))
	}
	var rooms []string
	for i := range 5 {
		room, _ := users[i].makeRoom(t.Context(), users[i+1])
		rooms = append(rooms, room)
	}
	var quiet atomic.Bool
	var syncs atomic.Int64
	var own []*tracker
	for i, u := range users {
		v := &tracker{client: u.client, chance: u.chance, filter: trackerFilters()[i%len(trackerFilters())]}
		own = append(own, v)
		work.work(func(ctx context.Context, _ int) error {
			u.actSomehow(ctx, users, rooms)
			if u.chance.IntN(2) == 0 {
				return nil
			}
			syncs.Add(1)
			_, err := v.follow(ctx, 0, 0)
			return err
		})
	}
	for i := range users {
		chance := rand.New(rand.NewPCG(seed, 10<<32+uint64(i)))
		v := &tracker{client: users[i].client, chance: chance, filter: pick(chance, trackerFilters())}
		work.beside(func(ctx context.Context) error { return v.followAll(ctx, &quiet, &syncs) })
	}
	work.under(d, rand.New(rand.NewPCG(seed, 11<<32)), acts, kills, "clientapi", "syncapi", "roomserver")
	work.await("all is done", &work.workers)
	quiet.Store(true)
	for _, v := range own {
		work.beside(func(ctx context.Context) error { return v.followAll(ctx, &quiet, &syncs) })
	}
	work.await("all clients know it", &work.others)
	t.Logf("%d acts, %d syncs", acts, syncs.Load())
}

// actSomehow changes a device, a key or a membership. Nobody knows what others are: some of what is tried is refused.
func (u *keyUser) actSomehow(ctx context.Context, users []*keyUser, rooms []string) {
	if u.chance.IntN(2) == 0 {
		u.actOnKeys(ctx, users)
	} else {
		u.actOnRoom(ctx, pick(u.chance, rooms), pick(u.chance, users), func(string, string) string { return "" })
	}
}

// followAll syncs until all is quiet, and compares what the client has then with what the server has.
func (v *tracker) followAll(ctx context.Context, quiet *atomic.Bool, syncs *atomic.Int64) error {
	for {
		last, timeout := quiet.Load(), 0
		if !last {
			timeout = v.chance.IntN(1000)
			if v.chance.IntN(12) == 0 {
				v.restart()
			}
		}
		before := v.page()
		answer, err := v.follow(ctx, 0, timeout)
		if err != nil {
			return err
		}
		syncs.Add(1)
		if !last {
			continue
		}
		if err := v.compareAll(ctx); err != nil {
			return fmt.Errorf("since %q, to %s: %s: %w", before.since, v.page().since, answer.Get("device_lists").Raw, err)
		}
		if answer, err = v.follow(ctx, 0, 0); err == nil && answer.Get("device_lists.changed.0").Exists() {
			err = errors.New("all was quiet, and a sync says " + answer.Get("device_lists").Raw)
		}
		return err
	}
}

// compareAll compares what the client has with what the server says of its user's rooms.
func (v *tracker) compareAll(ctx context.Context) error {
	rooms, _, err := v.insist(ctx, "GET", at("joined_rooms"), nil)
	if err != nil {
		return err
	}
	seen := map[string]bool{v.userID: true}
	for _, room := range rooms.Get("joined_rooms").Array() {
		members, _, err := v.insist(ctx, "GET", at("rooms", room.Str, "members"), nil)
		if err != nil {
			return err
		}
		for _, e := range members.Get("chunk").Array() {
			if is := e.Get("content.membership").Str; is == "join" || is == "invite" {
				seen[e.Get("state_key").Str] = true
			}
		}
	}
	return v.compare(ctx, slices.Sorted(maps.Keys(seen)))
}
