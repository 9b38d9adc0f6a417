package budget

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// pushRule gives alice a rule of her own.
func (s *server) pushRule() {
	s.t.Helper()
	at := slices.IndexFunc(s.routes, func(r httputil.Route) bool { return r.Name == "put_push_rule" })
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPut, "/", strings.NewReader(`{"pattern":"word","actions":["notify"]}`))
	_, err := s.routes[at].Handler(r.Context(), httputil.NewRequest(r, httputil.Caller{UserID: alice, DeviceID: "D"},
		map[string]string{"kind": "content", "ruleId": "word"}))
	must(s.t, err)
}

// A room of a bridge has thousands of users whom nobody is behind. Another one who joins, and what is said after that,
// costs the same however many there are, even where a member has push rules of their own.
func TestTheBudgetOfARoomOfGhosts(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		s.pushRule()
		type cost struct{ rooms, sync sqlutil.Count }
		costs := make(map[int]cost)
		for _, ghosts := range []int{30, 300} {
			res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("create", ghosts)), Creator: alice,
				Preset: "public_chat"})
			must(t, err)
			join := func(n int) error {
				_, err := s.room.JoinRoom(t.Context(), api.JoinRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("join", ghosts, n)),
					RoomIDOrAlias: string(res.RoomID), UserID: id.UserID(fmt.Sprintf("@ghost%d:here", n))})
				return err
			}
			together(t, ghosts, join)
			s.say(res.RoomID, 0)
			s.applied()
			best := cost{sqlutil.Count{Rows: 1 << 20}, sqlutil.Count{Rows: 1 << 20}}
			for n := range 8 { // once a second each also looks whether another process has written
				rooms, sync := s.rooms.Count(), s.sync.Count()
				must(t, join(ghosts+n))
				s.say(res.RoomID, 1+n)
				s.applied()
				if c := s.rooms.Count().Since(rooms); c.Rows < best.rooms.Rows {
					best.rooms = c
				}
				if c := s.sync.Count().Since(sync); c.Rows < best.sync.Rows {
					best.sync = c
				}
			}
			costs[ghosts] = best
		}
		t.Logf("a join and a message, by ghosts: %+v", costs) // the statements of syncapi with those that waited for it
		few, many := costs[30], costs[300]
		if many.rooms.Rows > few.rooms.Rows+10 || many.sync.Rows > few.sync.Rows+10 {
			t.Errorf("a join and a message read %d and %d rows with 30 ghosts, %d and %d with 300", few.rooms.Rows, few.sync.Rows,
				many.rooms.Rows, many.sync.Rows)
		}
	})
}
