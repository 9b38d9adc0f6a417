package budget

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/sync/errgroup"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// poll is GET /sync.
func (s *server) poll(ctx context.Context, user id.UserID, query string) gjson.Result {
	s.t.Helper()
	at := slices.IndexFunc(s.routes, func(r httputil.Route) bool { return r.Name == "sync" })
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/?"+query, nil)
	answer, err := s.routes[at].Handler(ctx, httputil.NewRequest(r, httputil.Caller{UserID: user, DeviceID: "D"}, nil))
	if ctx.Err() == nil {
		must(s.t, err)
	}
	raw, _ := answer.(httputil.Raw)
	return gjson.ParseBytes(raw.Body)
}

// together does n things, many at a time.
func together(t *testing.T, n int, do func(n int) error) {
	t.Helper()
	var all errgroup.Group
	all.SetLimit(50)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	must(t, all.Wait())
}

// quiet waits until consumers have taken their partitions.
func (s *server) quiet() {
	s.t.Helper()
	for looks := int64(100); looks > 10; {
		before := s.sync.Count()
		time.Sleep(time.Second)
		looks = s.sync.Count().Since(before).Statements
	}
}

// A sync with an old token costs the same few statements, however many rooms its user is in and however many have changed.
func TestTheBudgetOfASyncOfManyRooms(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		// After a start two of them are for the device: what it has of keys and messages.
		const most, many = 14, 500
		rooms := make([]id.RoomID, many)
		together(t, many, func(n int) error {
			res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("create", n)), Creator: alice, Preset: "public_chat"})
			rooms[n] = res.RoomID
			return err
		})
		since := s.poll(t.Context(), alice, "").Get("next_batch").Str
		together(t, many, func(n int) error { return s.send(rooms[n], n) })
		s.applied()
		cost := sqlutil.Count{Statements: 1000}
		var answer gjson.Result
		for range 3 { // once a second it is also looked whether another process has written
			s.stop()
			s.start() // nothing is known in memory
			s.quiet()
			before := s.sync.Count()
			answer = s.poll(t.Context(), alice, "since="+since)
			least(&cost, s.sync.Count().Since(before), 0)
			if got := len(answer.Get("rooms.join").Map()); got != many {
				t.Fatalf("%d rooms have changed, want %d", got, many)
			}
		}
		t.Logf("%d statements", cost.Statements)
		if cost.Statements > most {
			t.Errorf("a sync with an old token costs %d statements, want at most %d", cost.Statements, most)
		}
		since = answer.Get("next_batch").Str
		cost = sqlutil.Count{Statements: 1000}
		for range 3 {
			before := s.sync.Count()
			since = s.poll(t.Context(), alice, "since="+since).Get("next_batch").Str
			least(&cost, s.sync.Count().Since(before), 0)
		}
		if cost.Statements != 0 {
			t.Errorf("a sync with nothing new costs %d statements, want none", cost.Statements)
		}
	})
}

// count counts the rows of every table.
func count(t *testing.T, db *sqlutil.DB) map[string]int64 {
	t.Helper()
	rows := make(map[string]int64)
	must(t, db.ReadOne(t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
		list := db.Stmt(`SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`)
		if db.Dialect() == sqlutil.SQLite {
			list = db.Stmt(`SELECT name FROM sqlite_master WHERE type = 'table'`)
		}
		found, err := list.Query(ctx, tx)
		tables, err := sqlutil.Collect(found, err, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
		for _, table := range tables {
			var n int64
			if err == nil {
				err = db.Stmt("SELECT COUNT(*) FROM "+table).QueryRow(ctx, tx).Scan(&n)
			}
			rows[table] = n
		}
		return err
	}))
	return rows
}

// What a message writes does not depend on how many are in the room.
func TestTheRowsOfAMessage(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		wrote := make(map[int]map[string]int64)
		for _, members := range []int{10, 1000} {
			res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("create", members)), Creator: alice, Preset: "public_chat"})
			must(t, err)
			together(t, members-1, func(n int) error {
				user := id.UserID(fmt.Sprintf("@user%d:here", n))
				_, err := s.room.JoinRoom(t.Context(), api.JoinRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("join", members, n)), RoomIDOrAlias: string(res.RoomID), UserID: user})
				return err
			})
			s.say(res.RoomID, 0)
			s.applied()
			before := [2]map[string]int64{count(t, s.rooms), count(t, s.sync)}
			s.say(res.RoomID, 1)
			s.applied()
			grown := make(map[string]int64)
			for i, db := range []*sqlutil.DB{s.rooms, s.sync} {
				for table, n := range count(t, db) {
					if n != before[i][table] {
						grown[table] = n - before[i][table]
					}
				}
			}
			wrote[members] = grown
		}
		if !maps.Equal(wrote[10], wrote[1000]) || wrote[10]["syncapi_timeline"] != 1 || wrote[10]["roomserver_events"] != 1 {
			t.Errorf("a message to 10 writes %v, to 1000 %v", wrote[10], wrote[1000])
		}
	})
}

// Long polls that wait cost nothing.
func TestTheBudgetOfLongPolls(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		res, err := s.room.CreateRoom(t.Context(), api.CreateRoomRequest{RequestKey: "create", Creator: alice, Preset: "public_chat"})
		must(t, err)
		const polls = 100
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		together(t, polls, func(n int) error {
			user := id.UserID(fmt.Sprintf("@user%d:here", n))
			_, err := s.room.JoinRoom(t.Context(), api.JoinRoomRequest{RequestKey: api.RequestKey(fmt.Sprint("join", n)), RoomIDOrAlias: string(res.RoomID), UserID: user})
			return err
		})
		for n := range polls {
			user := id.UserID(fmt.Sprintf("@user%d:here", n))
			all.Go(func() {
				since := ""
				for ctx.Err() == nil { // until the joins and who came online are told
					since = s.poll(ctx, user, "timeout=60000&since="+since).Get("next_batch").Str
				}
			})
		}
		time.Sleep(2 * time.Second) // all have come to rest
		const seconds = 3
		before := s.sync.Count()
		time.Sleep(seconds * time.Second)
		cost := s.sync.Count().Since(before)
		cancel()
		all.Wait()
		// Consumers look once a second what an operator wants of them, and for heads that another process has moved.
		if cost.Statements > 8*seconds {
			t.Errorf("%d polls that wait cost %d statements in %d s", polls, cost.Statements, seconds)
		}
	})
}
