package budget

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	clientapi "github.com/matrix-org/dendrite/clientapi/api"
	"github.com/matrix-org/dendrite/common/eventlog"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/roomserver/api"
)

// userLog is clientapi's log, without clientapi.
type userLog struct {
	t     *testing.T
	db    *sqlutil.DB
	log   *eventlog.Log
	topic *eventlog.Topic
}

func (u *userLog) relay(ctx context.Context, transport eventlog.Transport) error {
	if u == nil {
		return nil
	}
	return transport.Relay(ctx, u.log)
}

// follows makes the server follow a log of users, which is in the database of rooms.
func (s *server) follows() {
	s.t.Helper()
	s.stop()
	u := &userLog{t: s.t, db: s.rooms}
	var err error
	u.log, err = eventlog.New(s.t.Context(), u.db, "fakeclient", eventlog.Options{Sole: true})
	must(s.t, err)
	u.topic, err = u.log.Topic(s.t.Context(), clientapi.Topic, nil)
	must(s.t, err)
	s.users = u
	s.start()
	s.quiet()
}

func (u *userLog) append(user id.UserID, kind string, message any) {
	u.t.Helper()
	must(u.t, u.db.Write(u.t.Context(), "test", func(ctx context.Context, tx *sqlutil.Tx) error {
		u.topic.Append(ctx, tx, string(user), kind, message)
		return nil
	}))
}

// silent is a sync that tells nobody of its user, and hears of nobody.
func silent(since, timeout string) string {
	return url.Values{"since": {since}, "timeout": {timeout}, "set_presence": {"offline"},
		"filter": {`{"presence":{"not_types":["*"]}}`}}.Encode()
}

// sleepers are users whose long polls wait.
type sleepers struct {
	s     *server
	since []string
}

func (s *sleepers) user(n int) id.UserID { return id.UserID(fmt.Sprintf("@user%d:here", n)) }

// cost counts the statements of syncapi for what happens and for all answers about it.
func (s *sleepers) cost(t *testing.T, happens func(), check func(answer gjson.Result) error) sqlutil.Count {
	t.Helper()
	type answered struct {
		n      int
		answer gjson.Result
	}
	answers := make(chan answered, len(s.since))
	for n, since := range s.since {
		go func() { answers <- answered{n, s.s.poll(t.Context(), s.user(n), silent(since, "60000"))} }()
	}
	time.Sleep(300 * time.Millisecond) // all sleep
	before := s.s.sync.Count()
	happens()
	for range s.since {
		one := <-answers
		must(t, check(one.answer))
		s.since[one.n] = one.answer.Get("next_batch").Str
	}
	return s.s.sync.Count().Since(before)
}

func changedIs(want string) func(gjson.Result) error {
	return func(answer gjson.Result) error {
		if got := answer.Get("device_lists.changed").Raw; got != want {
			return fmt.Errorf("changed: %s, want %s", got, want)
		}
		return nil
	}
}

// What all who share a room hear of a change of keys, or of one who has come, does not cost a statement each.
func TestTheBudgetOfDeviceLists(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		s.follows()
		create := api.CreateRoomRequest{RequestKey: "create", Creator: alice, Preset: "public_chat"}
		res, err := s.room.CreateRoom(t.Context(), create)
		must(t, err)
		all := &sleepers{s: s, since: make([]string, 50)}
		join := func(user id.UserID) error {
			_, err := s.room.JoinRoom(t.Context(), api.JoinRoomRequest{RequestKey: api.RequestKey(user),
				RoomIDOrAlias: string(res.RoomID), UserID: user})
			return err
		}
		together(t, len(all.since), func(n int) error { return join(all.user(n)) })
		s.applied()
		for n := range all.since {
			all.since[n] = s.poll(t.Context(), all.user(n), silent("", "0")).Get("next_batch").Str
		}
		updated, came, idle := sqlutil.Count{Statements: 1000}, sqlutil.Count{Statements: 1000}, sqlutil.Count{Statements: 1000}
		for i := range 3 { // once a second each also looks whether another process has written
			least(&updated, all.cost(t, func() {
				list := &clientapi.OutputDeviceList{UserID: alice, StreamID: int64(i + 1), PrevID: int64(i)}
				s.users.append(alice, clientapi.TypeDeviceList, list)
			}, changedIs(`["@alice:here"]`)), 0)
			newcomer := id.UserID(fmt.Sprintf("@newcomer%d:here", i))
			least(&came, all.cost(t, func() { must(t, join(newcomer)) }, changedIs(fmt.Sprintf("[%q]", newcomer))), 0)
			before := s.sync.Count()
			for n := range all.since {
				all.since[n] = s.poll(t.Context(), all.user(n), silent(all.since[n], "0")).Get("next_batch").Str
			}
			least(&idle, s.sync.Count().Since(before), 0)
		}
		t.Logf("%d statements for a change of keys, %d for one who comes", updated.Statements, came.Statements)
		if most := int64(6); updated.Statements > most {
			t.Errorf("a change of keys costs %d statements with 50 who hear of it, want at most %d", updated.Statements, most)
		}
		if most := int64(10); came.Statements > most {
			t.Errorf("a join costs %d statements with 50 who hear of it, want at most %d", came.Statements, most)
		}
		if idle.Statements != 0 {
			t.Errorf("50 syncs with nothing new cost %d statements, want none", idle.Statements)
		}
	})
}
