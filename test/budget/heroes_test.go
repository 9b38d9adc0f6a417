package budget

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// A lazily loading client that syncs a room without a name gets the members who name it, and nobody reads all the
// others for that.
func TestTheBudgetOfHeroes(t *testing.T) {
	lazy := "filter=" + url.QueryEscape(`{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":3}}}`)
	dir := t.TempDir()
	s := newServer(t, "file:"+filepath.Join(dir, "rooms.db"), "file:"+filepath.Join(dir, "sync.db"))
	cost := make(map[int]int64)
	for _, members := range []int{40, 400} {
		owner := id.UserID(fmt.Sprintf("@owner%d:here", members))
		res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{
			RequestKey: api.RequestKey("create" + owner), Creator: owner, Preset: "public_chat"})
		must(t, err)
		join := func(n int) error {
			user := id.UserID(fmt.Sprintf("@user%d:here", n))
			key := api.RequestKey(fmt.Sprint("join", members, n))
			_, err := s.room.JoinRoom(t.Context(), api.JoinRoomRequest{
				RequestKey: key, RoomIDOrAlias: string(res.RoomID), UserID: user})
			return err
		}
		var want []string
		for n := range api.MaxHeroes {
			must(t, join(n))
			want = append(want, fmt.Sprintf("@user%d:here", n))
		}
		together(t, members-api.MaxHeroes, func(n int) error { return join(api.MaxHeroes + n) })
		s.applied()
		least := int64(1000)
		for range 2 { // once a second it is also looked whether another process has written
			s.stop()
			s.start() // nothing is known in memory
			s.quiet()
			before := s.rooms.Count()
			answer := s.poll(t.Context(), owner, lazy)
			least = min(least, s.rooms.Count().Since(before).Statements)
			var got []string
			for _, hero := range answer.Get("rooms.join.*.summary.m\\.heroes").Array() {
				got = append(got, hero.Str)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("heroes of %d members: %v, want %v", members, got, want)
			}
		}
		cost[members] = least
	}
	t.Log("statements by members:", cost)
	if cost[40] != cost[400] {
		t.Errorf("the roomserver needs %v statements, by members, for a sync that shows heroes", cost)
	}
}
