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

// A room of a bridge has thousands of users whom nobody is behind. Who they all are is not read again when another one joins,
// even where a member has push rules of their own.
func TestTheBudgetOfARoomOfGhosts(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		s.pushRule()
		const joins = 8
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
			before := s.sync.Count()
			for n := range joins {
				must(t, join(ghosts+n))
				s.say(res.RoomID, 1+n)
				s.applied()
			}
			// Once a second it is also looked whether another process has written.
			cost := s.sync.Count().Since(before)
			if reads := cost.Transactions - cost.Commits; reads >= joins/2 {
				t.Errorf("with %d ghosts, %d joins and messages read %d times who is in the room", ghosts, joins, reads)
			}
		}
	})
}
