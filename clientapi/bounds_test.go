package clientapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/clientapi/accounts"
	"github.com/matrix-org/dendrite/clientapi/storage"
	"github.com/matrix-org/dendrite/clientapi/tokens"
	"github.com/matrix-org/dendrite/clientapi/uia"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/sqlutil"
)

// count is a number that the database has.
func (s *server) count(query string, args ...any) (n int) {
	s.t.Helper()
	statement := s.db.Stmt(query)
	err := s.db.ReadOne(s.t.Context(), "count", func(ctx context.Context, tx *sqlutil.Tx) error {
		return statement.QueryRow(ctx, tx, args...).Scan(&n)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *server) store() *storage.Store {
	s.t.Helper()
	store, err := storage.Open(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

func TestSessionsOfAuthenticationAreBounded(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		alice := s.register("alice")
		long := object{"devices": []string{strings.Repeat("x", 900_000)}}
		for _, n := range []int{uia.MostOfUser + 5, 10 * uia.MostOfUser} {
			for range n - 1 {
				s.want(401, "", "POST", "/delete_devices", alice, object{"devices": []string{"x"}})
			}
			last := s.want(401, "", "POST", "/delete_devices", alice, long).Get("session").Str
			if rows := s.count(`SELECT COUNT(*) FROM clientapi_sessions
				WHERE caller = '@alice:test'`); rows != uia.MostOfUser {
				t.Errorf("%d requests leave %d sessions of a user", n, rows)
			}
			s.want(200, "", "POST", "/delete_devices", alice,
				object{"devices": long["devices"], "auth": object{"type": "m.login.password",
					"identifier": object{"type": "m.id.user", "user": "alice"}, "password": "pw-alice",
					"session": last}})
		}
		begin := func(n int) {
			for range n {
				s.want(401, "", "POST", "/account/password", "", object{"new_password": "x"})
			}
		}
		begin(uia.MostOfNetwork + 5)
		if rows := s.count(`SELECT COUNT(*) FROM clientapi_sessions WHERE caller = ''`); rows != uia.MostOfNetwork {
			t.Errorf("there are %d sessions of nobody from one address", rows)
		}
		if bytes := s.count(`SELECT MAX(LENGTH(about) + LENGTH(operation) + LENGTH(flows) + LENGTH(origin))
			FROM clientapi_sessions`); bytes > 2000 {
			t.Errorf("a session has %d bytes", bytes)
		}
	})
}

// putDevices writes devices of a user, D000000 and so on, that are seen one after the other from a time on.
func (s *server) putDevices(user id.UserID, n int, seen time.Time) {
	s.t.Helper()
	store := s.store()
	err := s.db.Write(s.t.Context(), "devices", func(ctx context.Context, tx *sqlutil.Tx) error {
		for i := range n {
			if err := store.PutDevice(ctx, tx, storage.Device{UserID: user, DeviceID: id.DeviceID(fmt.Sprintf("D%06d", i)),
				LastSeenMS: seen.UnixMilli() + int64(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestDevicesOfAUserAreBounded(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		for _, n := range []int{accounts.MaxDevices, 10 * accounts.MaxDevices} {
			s.putDevices("@alice:test", n, time.UnixMilli(0)) // long ago
			token := s.login("alice", object{"device_id": "NEW"}).Get("access_token").Str
			s.want(200, "", "GET", "/account/whoami", token, nil)
			devices := s.want(200, "", "GET", "/devices", token, nil).Get("devices").Array()
			if len(devices) != accounts.MaxDevices {
				t.Errorf("of %d devices a login leaves %d", n, len(devices))
			}
			newest := fmt.Sprintf("D%06d", n-1)
			s.want(200, "", "GET", "/devices/"+newest, token, nil)
			s.want(404, "M_NOT_FOUND", "GET", "/devices/D000000", token, nil)
		}
	})
}

func TestRefreshedTokensAreBounded(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		s.register("alice")
		answer := s.login("alice", object{"refresh_token": true, "device_id": "PHONE"})
		for _, n := range []int{tokens.MostRefreshed, 2 * tokens.MostRefreshed} {
			for range n {
				answer = s.want(200, "", "POST", "/refresh", "",
					object{"refresh_token": answer.Get("refresh_token").Str})
				s.want(200, "", "GET", "/account/whoami", answer.Get("access_token").Str, nil)
			}
			if rows := s.count(`SELECT COUNT(*) FROM clientapi_tokens
				WHERE device_id = 'PHONE'`); rows > tokens.MostRefreshed+2 {
				t.Errorf("%d refreshes leave %d tokens of a device", n, rows)
			}
		}
	})
}

func TestReportsOfAUserAreBounded(t *testing.T) {
	each(t, nil, func(t *testing.T, s *server) {
		store := s.store()
		for _, n := range []int{10, 100} {
			for i := range n {
				for _, who := range []id.UserID{"@alice:test", "@bob:test"} {
					r := storage.Report{Reporter: who, ReportedMS: time.Now().UnixMilli(), Reason: fmt.Sprint(i)}
					if err := store.AddReport(t.Context(), &r, 7); err != nil {
						t.Fatal(err)
					}
				}
			}
			all, err := store.Reports(t.Context(), 1<<60, 1000)
			if err != nil || len(all) != 14 || all[0].Reason != fmt.Sprint(n-1) {
				t.Errorf("%d reports of two users leave %d, %v", n, len(all), err)
			}
		}
	})
}
