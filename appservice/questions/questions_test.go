package questions

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/common/id"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
	"github.com/matrix-org/dendrite/common/rpc"
)

// asked answers in place of services, and keeps what they were asked.
type asked struct {
	answer func(ctx context.Context, service, path string, nth int) (int, error)

	mu  sync.Mutex
	got []string // service and path
}

func (a *asked) Do(ctx context.Context, r *registration.Registration, method, path, legacyPath string, _ url.Values, _ []byte) (int, []byte, error) {
	a.mu.Lock()
	a.got = append(a.got, r.ID+" "+path)
	nth := len(a.got)
	a.mu.Unlock()
	if method != "GET" || "/_matrix/app/v1"+legacyPath != path {
		return 0, nil, errors.New("that is not how to ask")
	}
	status, err := a.answer(ctx, r.ID, path, nth)
	return status, []byte(`{}`), err
}

func (a *asked) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

func always(status int) func(context.Context, string, string, int) (int, error) {
	return func(context.Context, string, string, int) (int, error) { return status, nil }
}

// newService makes a Service with two services, of which each has the aliases and users with its name and those with
// "both", and one without a url that has all.
func newService(t *testing.T, answer func(ctx context.Context, service, path string, nth int) (int, error)) (*Service, *asked) {
	t.Helper()
	var all []*registration.Registration
	for _, name := range []string{"one", "two", "none"} {
		r := &registration.Registration{ID: name, URL: "http://" + name, ASToken: "as_" + name, HSToken: "hs", Sender: id.NewUserID(name, "here")}
		regex := "_(" + name + "|both)_.*"
		if name == "none" {
			r.URL, regex = "", "_.*"
		}
		r.Users, r.Aliases = []registration.Namespace{{Regex: "@" + regex}}, []registration.Namespace{{Regex: "#" + regex}}
		all = append(all, r)
	}
	set, err := registration.NewSet("here", all)
	if err != nil {
		t.Fatal(err)
	}
	a := &asked{answer: answer}
	log := logrus.New()
	log.SetOutput(t.Output())
	s := New(registration.NewHolder(set), a, logrus.NewEntry(log), time.Now)
	s.pause = time.Millisecond
	return s, a
}

func TestOnlyServicesWithTheNameInANamespaceAreAsked(t *testing.T) {
	for name, c := range map[string]struct {
		alias, user string
		by          string
		requests    []string
	}{
		"alias of one":       {alias: "#_one_x/y:here", requests: []string{"one /_matrix/app/v1/rooms/%23_one_x%2Fy:here"}},
		"user of two":        {user: "@_two_x:here", requests: []string{"two /_matrix/app/v1/users/@_two_x:here"}},
		"of both":            {user: "@_both_x:here", requests: []string{"one /_matrix/app/v1/users/@_both_x:here", "two /_matrix/app/v1/users/@_both_x:here"}},
		"of none with a url": {user: "@_other:here"},
		"of nobody":          {alias: "#room:here"},
		"of another server":  {user: "@_one_x:elsewhere"},
		"who asks":           {user: "@_both_x:here", by: "one", requests: []string{"two /_matrix/app/v1/users/@_both_x:here"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, a := newService(t, always(404))
			var answer api.QueryAnswer
			var err error
			if c.user != "" {
				answer, err = s.QueryUser(t.Context(), api.QueryUserRequest{UserID: id.UserID(c.user), By: c.by})
			} else {
				answer, err = s.QueryAlias(t.Context(), api.QueryAliasRequest{Alias: id.RoomAlias(c.alias), By: c.by})
			}
			if err != nil || answer.Exists || !slices.Equal(a.requests(), c.requests) {
				t.Errorf("%v %v; requests %q, not %q", answer, err, a.requests(), c.requests)
			}
		})
	}
}

func TestTheFirstServiceThatHasItEndsTheQuestion(t *testing.T) {
	s, a := newService(t, always(200))
	answer, err := s.QueryAlias(t.Context(), api.QueryAliasRequest{Alias: "#_both_x:here"})
	if err != nil || !answer.Exists || len(a.requests()) != 1 {
		t.Errorf("%v %v, requests %q", answer, err, a.requests())
	}
}

func TestSilentServicesAreAskedSeveralTimes(t *testing.T) {
	failing := errors.New("connection refused")
	for name, c := range map[string]struct {
		statuses []int // 0: no answer
		exists   bool
		code     int // of the error
		asked    int
	}{
		"it comes back":       {statuses: []int{0, 502, 200}, exists: true, asked: 3},
		"it stays away":       {statuses: []int{0, 0, 0, 200}, code: 408, asked: 3},
		"it is broken":        {statuses: []int{500, 500, 500}, code: 408, asked: 3},
		"it has no time":      {statuses: []int{429, 404}, asked: 2},
		"it sends elsewhere":  {statuses: []int{302, 302, 302}, code: 408, asked: 3},
		"it does not know us": {statuses: []int{403}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, a := newService(t, func(_ context.Context, _, _ string, nth int) (int, error) {
				if status := c.statuses[nth-1]; status != 0 {
					return status, nil
				}
				return 0, failing
			})
			answer, err := s.QueryUser(t.Context(), api.QueryUserRequest{UserID: "@_one_x:here"})
			e, _ := mxerr.As(err)
			if answer.Exists != c.exists || len(a.requests()) != c.asked || (err != nil) != (c.code != 0) ||
				c.code != 0 && (e == nil || e.Status != c.code || e.Code != "M_UNKNOWN") {
				t.Errorf("%v %v after %d requests", answer, err, len(a.requests()))
			}
		})
	}
}

func TestASilentServiceDoesNotHideTheNext(t *testing.T) {
	s, _ := newService(t, func(ctx context.Context, service, _ string, _ int) (int, error) {
		if service == "two" {
			return 200, nil
		}
		<-ctx.Done()
		return 0, ctx.Err()
	})
	s.wait = 200 * time.Millisecond
	answer, err := s.QueryUser(t.Context(), api.QueryUserRequest{UserID: "@_both_x:here"})
	if err != nil || !answer.Exists {
		t.Errorf("%v %v", answer, err)
	}
}

func TestAServiceThatHangsIsWaitedForSoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, a := newService(t, func(ctx context.Context, _, _ string, _ int) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		s.pause = pause
		began := time.Now()
		_, err := s.QueryAlias(t.Context(), api.QueryAliasRequest{Alias: "#_one_x:here"})
		if e, is := mxerr.As(err); !is || e.Status != 408 || len(a.requests()) != attempts {
			t.Errorf("%v after %d requests", err, len(a.requests()))
		}
		if took := time.Since(began); took != MaxWait || took >= rpc.DefaultTimeout {
			t.Errorf("it took %s, not %s, which is less than callers wait", took, MaxWait)
		}
	})
}

func TestTheSameQuestionIsUnderWayOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s, a := newService(t, func(context.Context, string, string, int) (int, error) {
			<-release
			return 200, nil
		})
		ask := func(ctx context.Context) (api.QueryAnswer, error) {
			return s.QueryUser(ctx, api.QueryUserRequest{UserID: "@_one_x:here"})
		}
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := ask(first); !errors.Is(err, context.Canceled) {
				t.Errorf("who has gone: %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			all.Go(func() {
				if answer, err := ask(t.Context()); err != nil || !answer.Exists {
					t.Errorf("%v %v", answer, err)
				}
			})
		}
		synctest.Wait()
		leave() // the others get their answer all the same
		synctest.Wait()
		close(release)
		all.Wait()
		if n := len(a.requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// Who has looked for an alias before it was made may ask for it just after: the service is not asked again.
func TestThatAServiceHasMadeItIsRememberedForAMoment(t *testing.T) {
	s, a := newService(t, always(200))
	now := time.Now()
	s.now = func() time.Time { return now }
	for i, want := range []int{1, 1, 2} {
		answer, err := s.QueryAlias(t.Context(), api.QueryAliasRequest{Alias: "#_one_x:here"})
		if n := len(a.requests()); err != nil || !answer.Exists || n != want {
			t.Errorf("question %d: %v %v after %d requests, not %d", i, answer, err, n, want)
		}
		now = now.Add(MadeFor / 2 * time.Duration(i+1))
	}
}

func TestThatAServiceDeclinesIsRememberedForAMoment(t *testing.T) {
	s, a := newService(t, always(404))
	now := time.Now()
	s.now = func() time.Time { return now }
	expect := func(what string, requests int) {
		t.Helper()
		if answer, err := s.QueryUser(t.Context(), api.QueryUserRequest{UserID: "@_one_x:here"}); err != nil || answer.Exists {
			t.Errorf("%s: %v %v", what, answer, err)
		}
		if n := len(a.requests()); n != requests {
			t.Errorf("%s: %d requests, not %d", what, n, requests)
		}
	}
	expect("first", 1)
	now = now.Add(DeclinedFor - 1)
	expect("just after", 1)
	now = now.Add(1)
	expect("later", 2)
	// Names that nobody has do not make the process grow.
	for i := range 200 {
		name := strings.Repeat("x", 200) + strings.Repeat("y", i)
		if _, err := s.QueryAlias(t.Context(), api.QueryAliasRequest{Alias: id.RoomAlias("#_one_" + name + ":here")}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.kept.Bytes(); n > keptBytes {
		t.Errorf("%d bytes are remembered", n)
	}
}
