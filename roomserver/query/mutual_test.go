package query_test

import (
	"slices"
	"testing"

	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/roomserver/api"
	. "github.com/matrix-org/dendrite/test/roomtest"
)

// Pages have each room that both are in once, and all of them how many there are.
func TestMutualRooms(t *testing.T) {
	Databases(t, func(t *testing.T, w *World) {
		var want []id.RoomID
		for i := range 7 {
			room := w.Room("shared")
			switch i {
			case 0: // Bob is not in it
			case 1:
				w.Do(api.ActionInvite, room, Alice, Bob)
			default:
				w.Join(room, Bob)
				want = append(want, room)
			}
		}
		w.Do(api.ActionLeave, want[0], Bob, Bob)
		want = want[1:]
		slices.Sort(want)
		var last id.RoomID
		for limit := 0; limit < 6; limit++ {
			req := api.QueryMutualRoomsRequest{UserID: Bob, Other: Alice, Limit: limit}
			var got []id.RoomID
			for range 10 {
				page := Must(w, w.QueryMutualRooms, req)
				if page.Count != int64(len(want)) || limit > 0 && len(page.Rooms) > limit {
					t.Errorf("a page of %d has %d of %d rooms", limit, len(page.Rooms), page.Count)
				}
				got = append(got, page.Rooms...)
				if req.After = page.Next; req.After == "" {
					break
				}
			}
			last = got[len(got)-1]
			slices.Sort(got) // databases have their own orders
			if !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %v, want %v", limit, got, want)
			}
		}
		if none := Must(w, w.QueryMutualRooms, api.QueryMutualRoomsRequest{UserID: Bob, Other: Alice,
			After: last}); len(none.Rooms) > 0 || none.Count != int64(len(want)) {
			t.Errorf("after the last one: %+v", none)
		}
		Fails(w, "M_INVALID_PARAM", w.QueryMutualRooms, api.QueryMutualRoomsRequest{UserID: Bob, Other: Bob})
	})
}
