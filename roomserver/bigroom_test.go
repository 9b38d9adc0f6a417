package roomserver_test

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	"github.com/matrix-org/dendrite/test/roomtest"
)

// changes is how many state events a big room has had besides its members.
const changes = 2000

// BenchmarkBigRoom tells what operations cost in rooms of 1,000 and 20,000 members: sends, state changes and joins must cost the same in
// both, whole states and lists of members as much for each member. "kB" is what the database has grown by for each, with its indexes,
// "walkB" what Postgres has logged.
func BenchmarkBigRoom(b *testing.B) {
	for _, members := range []int{1000, 20_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			roomtest.DatabasesOf(b, func(b *testing.B, w *roomtest.World) { bigRoom(b, w, members) })
		})
	}
}

func bigRoom(b *testing.B, w *roomtest.World, members int) {
	room := w.Room("shared")
	user := func(i int) id.UserID { return id.UserID(fmt.Sprintf("@member%d:here", i)) }
	var group errgroup.Group
	group.SetLimit(64)
	for i := range members {
		group.Go(func() error {
			_, err := w.JoinRoom(b.Context(), api.JoinRoomRequest{UserID: user(i), RoomIDOrAlias: string(room),
				Profile: api.Profile{DisplayName: fmt.Sprint("Member ", i), AvatarURL: "mxc://here/abcdefghijklmnopqrstuvwx"}})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	n := 0
	change := func() {
		n++
		w.Set(room, roomtest.Alice, "org.example.state", fmt.Sprint("key", n%500), fmt.Sprintf(`{"value":"changed for the %dth time"}`, n))
	}
	for range changes {
		change()
	}
	late := 0
	for _, c := range []struct {
		name string
		each int // entries that an answer has
		run  func()
	}{
		{"send", 1, func() { w.Say(room, roomtest.Alice, "a message of usual length, which says something") }},
		{"state change", 1, change},
		{"profile change", 1, func() {
			n++
			w.Set(room, user(n%members), "m.room.member", string(user(n%members)), fmt.Sprintf(`{"membership":"join","displayname":"Name %d"}`, n))
		}},
		{"join", 1, func() {
			w.Join(room, id.UserID(fmt.Sprintf("@late%d:here", late)))
			late++
		}},
		{"one state event", 1, func() {
			roomtest.Must(w, w.QueryState, api.QueryStateRequest{Viewer: api.Viewer{UserID: roomtest.Alice}, RoomID: room,
				Keys: []api.StateKeyTuple{{Type: "org.example.state", StateKey: "key1"}}})
		}},
		{"state", members, func() {
			roomtest.Must(w, w.QueryState, api.QueryStateRequest{Viewer: api.Viewer{UserID: roomtest.Alice}, RoomID: room})
		}},
		{"members", members, func() {
			roomtest.Must(w, w.QueryMembers, api.QueryMembersRequest{Viewer: api.Viewer{UserID: roomtest.Alice}, RoomID: room, Membership: "join"})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w.T = b
			c.run() // caches are warm
			size, wal := w.Size()
			b.ResetTimer()
			for range b.N {
				c.run()
			}
			b.StopTimer()
			after, walAfter := w.Size()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.each)/1e3, "µs/entry")
			rooms := roomtest.Must(w, w.QueryRooms, api.QueryRoomsRequest{RoomIDs: []id.RoomID{room}}).Rooms
			if joined := rooms[0].Joined; joined != int64(1+members+late) {
				b.Fatalf("%d members are joined, of %d", joined, 1+members+late)
			}
			if c.each == 1 && b.N > 50 {
				b.ReportMetric(float64(after-size)/float64(b.N)/1e3, "kB/op")
				b.ReportMetric(float64(walAfter-wal)/float64(b.N)/1e3, "walkB/op")
			}
		})
	}
}
