package budget

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// toDevices is PUT /sendToDevice with content for device D of each user.
func (s *server) toDevices(txn string, users []id.UserID, content func(n int) string) {
	s.t.Helper()
	messages := make(map[id.UserID]map[string]json.RawMessage)
	for n, user := range users {
		messages[user] = map[string]json.RawMessage{"D": json.RawMessage(content(n))}
	}
	body, err := json.Marshal(map[string]any{"messages": messages})
	must(s.t, err)
	at := slices.IndexFunc(s.routes, func(r httputil.Route) bool { return r.Name == "send_to_device" })
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodPut, "/", strings.NewReader(string(body)))
	_, err = s.routes[at].Handler(r.Context(), httputil.NewRequest(r, httputil.Caller{UserID: alice, DeviceID: "D"},
		map[string]string{"eventType": "m.room.encrypted", "txnId": txn}))
	must(s.t, err)
}

// One PUT to 100 devices is one commit, and the statements for it do not depend on how many there are: the request's
// key, the position, deleted devices, and one insert. A sync that brings a message costs one statement, and one more,
// which nobody waits for, when the device says that it has it. After that nothing costs anything.
func TestTheBudgetOfMessagesToDevices(t *testing.T) {
	databases(t, func(t *testing.T, s *server) {
		var users []id.UserID
		since := make(map[id.UserID]string)
		poll := func(user id.UserID) int {
			t.Helper()
			answer := s.poll(t.Context(), user, "since="+since[user])
			since[user] = answer.Get("next_batch").Str
			return len(answer.Get("to_device.events").Array())
		}
		for n := range 100 {
			users = append(users, id.UserID(fmt.Sprintf("@user%d:here", n)))
		}
		own := func(n int) string { return fmt.Sprintf(`{"ciphertext":%d}`, n) }
		s.toDevices("warm", users, own)
		for _, user := range users {
			for range 3 {
				poll(user)
			}
		}
		s.settled()

		want := map[sqlutil.Dialect]int64{sqlutil.Postgres: 4, sqlutil.SQLite: 3 + 7}[s.sync.Dialect()] // 16 rows at a time
		// cost is that of the cheapest try: once a second it is also looked whether another process has written.
		cost := func(what string, most int64, tries ...func()) {
			t.Helper()
			least := sqlutil.Count{Statements: 1 << 30}
			for _, try := range tries {
				before := s.sync.Count()
				try()
				if got := s.sync.Count().Since(before); got.Statements < least.Statements {
					least = got
				}
			}
			t.Logf("%s: %+v", what, least)
			if least.Statements > most {
				t.Errorf("%s costs %+v, want %d statements", what, least, most)
			}
		}
		all := func(messages int) {
			t.Helper()
			for _, user := range users {
				if n := poll(user); n != messages {
					t.Fatalf("%s gets %d messages, want %d", user, n, messages)
				}
			}
		}
		put := func(txn string) func() { return func() { s.toDevices(txn, users, own) } }
		cost("a PUT to 100 devices", want, put("one"), put("two"))
		cost("the syncs of 100 devices that bring two", 105, func() { all(2) })
		cost("the syncs that acknowledge them", 105, func() { all(0); s.settled() })
		cost("syncs that bring nothing", 0, func() { all(0) }, func() { all(0) })
		same := func(int) string { return `{"x":"` + strings.Repeat("x", 1000) + `"}` }
		large := func(txn string) func() { return func() { s.toDevices(txn, users, same) } }
		large("ids")()
		cost("a PUT of one large content to 100 devices", want+1, large("three"), large("four"))
		all(3)
		all(0)
		s.settled()
		s.stop()
		s.start() // nothing is known in memory
		s.quiet()
		var first, next []func()
		for _, user := range users[:3] {
			s.poll(t.Context(), user, "") // what is known of the user, in memory; and of rooms, which are none
			first = append(first, func() { poll(user); s.settled() })
			next = append(next, func() { poll(user); s.settled() })
		}
		cost("the first sync of a device after a start", 1, first...)
		cost("the next", 0, next...)
	})
}

// settled waits until nothing is written any more.
func (s *server) settled() {
	s.t.Helper()
	for quietSince, last := time.Now(), s.sync.Count(); time.Since(quietSince) < 50*time.Millisecond; {
		if now := s.sync.Count(); now != last {
			quietSince, last = time.Now(), now
		}
	}
}
