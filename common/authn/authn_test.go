package authn

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matrix-org/dendrite/common/httputil"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
)

func TestGoodAnswersAreKeptForAMomentAndErrorsAreNot(t *testing.T) {
	asked := 0
	var fail error
	a := New(func(context.Context, string, id.UserID, id.DeviceID) (httputil.Caller, error) {
		asked++
		return httputil.Caller{UserID: "@u:s", DeviceID: "D"}, fail
	}, time.Minute, nil)
	now := time.Now()
	a.now = func() time.Time { return now }
	r := httptest.NewRequest("GET", "/", nil)
	ask := func() error {
		_, err := a.Authenticate(t.Context(), "token", r)
		return err
	}
	fail = errors.New("no")
	if first, second := ask(), ask(); first == nil || second == nil || asked != 2 {
		t.Fatalf("an error was kept: asked %d times", asked)
	}
	fail = nil
	if err := errors.Join(ask(), ask()); err != nil || asked != 3 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	now = now.Add(MaxTTL)
	if err := ask(); err != nil || asked != 4 {
		t.Fatalf("an answer was kept for longer than %s", MaxTTL)
	}
	a.Forget("@u:s", "other")
	if err := ask(); err != nil || asked != 4 {
		t.Fatal("another device's answer was forgotten")
	}
	a.Forget("@u:s", "")
	if err := ask(); err != nil || asked != 5 {
		t.Fatal("a forgotten answer was given")
	}
}

func TestAnAnswerUnderWayWhenItIsForgottenIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		a := New(func(context.Context, string, id.UserID, id.DeviceID) (httputil.Caller, error) {
			asked.Add(1)
			<-release
			return httputil.Caller{UserID: "@u:s"}, nil
		}, MaxTTL, nil)
		r := httptest.NewRequest("GET", "/", nil)
		var all sync.WaitGroup
		ask := func() {
			all.Go(func() {
				if _, err := a.Authenticate(t.Context(), "token", r); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		ask()
		ask()
		if asked.Load() != 1 {
			t.Errorf("asked %d times for one answer", asked.Load())
		}
		a.Forget("@u:s", "")
		ask()
		if asked.Load() != 2 {
			t.Error("a request after the revocation waits for an answer from before")
		}
		close(release)
		all.Wait()
	})
}

func TestWhatIsKeptOfARequestIsSmall(t *testing.T) {
	if size := len(newKey("token", "@u:s", id.DeviceID(strings.Repeat("x", 60000)))); size > 32 {
		t.Errorf("%d bytes are kept", size)
	}
	different := make(map[key]bool)
	for _, parts := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "", "bc"}, {"1:a", "b", "c"}} {
		different[newKey(parts[0], id.UserID(parts[1]), id.DeviceID(parts[2]))] = true
	}
	if len(different) != 6 {
		t.Errorf("%d keys of 6", len(different))
	}
}

func TestAnswersAboutServicesEndWithTheRegistrations(t *testing.T) {
	set := func() *registration.Set {
		s, err := registration.NewSet("s", nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	services := registration.NewHolder(set())
	asked := 0
	a := New(func(_ context.Context, token string, user id.UserID, device id.DeviceID) (httputil.Caller, error) {
		asked++
		return httputil.Caller{UserID: user, DeviceID: device, AppService: token}, nil
	}, MaxTTL, services)
	now := time.Now()
	a.now = func() time.Time { return now }
	for _, c := range []struct{ token, query, device string }{
		{"service", "user_id=@u:s&device_id=D", "D"},
		{"service", "user_id=@u:s&org.matrix.msc3202.device_id=E", "E"},
		{"service", "user_id=@u:s&org.matrix.msc3202.device_id=F&device_id=G", "G"},
		{"", "user_id=@u:s", ""},
	} {
		r := httptest.NewRequest("GET", "/?"+c.query, nil)
		ask := func(times int) {
			t.Helper()
			before := asked
			for range 2 {
				caller, err := a.Authenticate(t.Context(), c.token, r)
				if err != nil || caller.UserID != "@u:s" || caller.DeviceID != id.DeviceID(c.device) {
					t.Errorf("%s: %+v, %v", c.query, caller, err)
				}
			}
			if asked-before != times {
				t.Errorf("%s: asked %d times, want %d", c.query, asked-before, times)
			}
		}
		ask(1)
		services.Replace(set())
		if c.token != "" {
			ask(1)
		} else {
			ask(0)
		}
	}
}

// A query that is cut off by a fault must not turn a user of a service into the service's own.
func TestAServiceWhoseQueryCannotBeReadIsRefused(t *testing.T) {
	a := New(func(_ context.Context, token string, user id.UserID, _ id.DeviceID) (httputil.Caller, error) {
		if token == "service" {
			return httputil.Caller{UserID: "@bot:s", AppService: token}, nil
		}
		return httputil.Caller{UserID: "@u:s"}, nil
	}, MaxTTL, nil)
	for _, query := range []string{"user_id=@a%zz:s", "user_id=@a;b:s", "user_id=@a:s%", "x=1&user_id%=@a:s"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		for range 2 { // the second could be from the cache
			if caller, err := a.Authenticate(t.Context(), "service", r); !mxerr.Is(err, "M_INVALID_PARAM") {
				t.Errorf("%s: %+v, %v", query, caller, err)
			}
			if _, err := a.Authenticate(t.Context(), "user", r); err != nil {
				t.Errorf("%s of a user: %v", query, err)
			}
		}
	}
}
