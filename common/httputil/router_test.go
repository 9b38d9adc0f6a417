package httputil

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/registration"
)

// tokens knows the users of tests: a token is the user's name.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, token string, _ *http.Request) (Caller, error) {
	switch token {
	case "alice", "bob":
		return Caller{UserID: "@alice:test"}, nil
	case "guest":
		return Caller{UserID: "@1:test", Guest: true}, nil
	case "unlimited":
		return Caller{UserID: "@bridge:test", AppService: "irc", Unlimited: true}, nil
	}
	return Caller{}, mxerr.New(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "nobody has this token")
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

func router(t *testing.T, routes ...Route) *Router {
	t.Helper()
	limits := NewLimits(config.RateLimits{ByName: map[string]config.RateLimit{"slow": {PerSecond: 0.001, Burst: 2}}})
	services, err := registration.NewSet("test", []*registration.Registration{{ID: "free", ASToken: "free", Sender: "@free:test"},
		{ID: "limited", ASToken: "limited", Sender: "@limited:test", RateLimited: true}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRouter(routes, RouterDeps{Auth: tokens{}, Limits: limits, Services: registration.NewHolder(services), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// says makes a handler that tells its name and the variables of the path.
func says(name string, vars ...string) Handler {
	return func(_ context.Context, r *Request) (any, error) {
		text := name
		for _, v := range vars {
			text += " " + v + "=" + r.Var(v)
		}
		return Raw{ContentType: "text/plain", Body: []byte(text)}, nil
	}
}

func ask(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutesAreFoundBySegments(t *testing.T) {
	r := router(t,
		Route{Method: "GET", Path: "/rooms/{room}/state", Name: "all", Handler: says("all", "room")},
		Route{Method: "GET", Path: "/rooms/{room}/state/{type}/{key}", Name: "one", Handler: says("one", "room", "type", "key")},
		Route{Method: "GET", Path: "/rooms/{room}/state/{type}/", Name: "empty", Handler: says("empty", "type")},
		Route{Method: "GET", Path: "/rooms/mine/state", Name: "mine", Handler: says("mine")},
		Route{Method: "GET", Path: "/{r0|v3}/sync", Name: "sync", Handler: says("sync")},
		Route{Method: "PUT", Path: "/v3/sync", Name: "put", Handler: says("put")},
	)
	for _, test := range []struct{ method, path, want string }{
		{"GET", "/rooms/!a:b/state", "all room=!a:b"},
		{"GET", "/rooms/%21a%3Ab/state", "all room=!a:b"},
		{"GET", "/rooms/mine/state", "mine"},
		{"GET", "/rooms/mine/state/m.room.name/x", "one room=mine type=m.room.name key=x"}, // the literal leads nowhere
		{"GET", "/rooms/!a:b/state/m.room.name/a%2Fb", "one room=!a:b type=m.room.name key=a/b"},
		{"GET", "/rooms/!a:b/state/m.room.name/", "one room=!a:b type=m.room.name key="},
		{"GET", "/r0/sync", "sync"},
		{"GET", "/v3/sync", "sync"},
		{"PUT", "/v3/sync", "put"},
		{"GET", "/v4/sync", "404 M_UNRECOGNIZED"},
		{"GET", "/rooms/!a:b", "404 M_UNRECOGNIZED"},
		{"GET", "/rooms/!a:b/state/x/y/z", "404 M_UNRECOGNIZED"},
		{"DELETE", "/v3/sync", "405 M_UNRECOGNIZED"},
	} {
		w := ask(r, test.method, test.path, "")
		got := w.Body.String()
		if w.Code != 200 {
			m := errcode(t, w)
			got = fmt.Sprint(w.Code, " ", m)
		}
		if got != test.want && !(strings.HasSuffix(test.path, "/") && got == "empty type=m.room.name") {
			t.Errorf("%s %s: %q, not %q", test.method, test.path, got, test.want)
		}
	}
}

func errcode(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var m struct{ Errcode, Error string }
	if err := Unmarshal(w.Body.Bytes(), &m); err != nil || m.Error == "" {
		t.Errorf("no error of Matrix: %q", w.Body)
	}
	if w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("an error of type %s", w.Header().Get("Content-Type"))
	}
	return m.Errcode
}

func TestRoutesThatCannotBeToldApartAreRefused(t *testing.T) {
	for _, paths := range [][2]string{{"/a/{b}", "/a/{c}"}, {"/{v1|v3}/a", "/v3/a"}} {
		routes := []Route{{Method: "GET", Path: paths[0], Handler: says("")}, {Method: "GET", Path: paths[1], Handler: says("")}}
		if _, err := NewRouter(routes, RouterDeps{}); err == nil {
			t.Errorf("%v are both accepted", paths)
		}
	}
}

func TestEveryAnswerHasTheHeadersForBrowsers(t *testing.T) {
	r := router(t, Route{Method: "GET", Path: "/a", Name: "a", Auth: AuthUser, Handler: says("a")})
	for _, w := range []*httptest.ResponseRecorder{
		ask(r, "OPTIONS", "/a", ""), ask(r, "OPTIONS", "/nothing", ""), ask(r, "GET", "/a", ""), ask(r, "GET", "/nothing", ""),
		ask(r, "GET", "/a", "", "Authorization", "Bearer alice"),
	} {
		h := w.Header()
		if h.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
			t.Errorf("%d with %v", w.Code, h)
		}
	}
	if w := ask(r, "OPTIONS", "/a", ""); w.Code != 200 {
		t.Errorf("a preflight is answered with %d", w.Code)
	}
}

func TestCallersAreAdmitted(t *testing.T) {
	who := func(_ context.Context, r *Request) (any, error) { return Object{"user": r.Caller.UserID}, nil }
	r := router(t,
		Route{Method: "GET", Path: "/none", Name: "none", Handler: who},
		Route{Method: "GET", Path: "/optional", Name: "optional", Auth: AuthOptional, Handler: who},
		Route{Method: "GET", Path: "/user", Name: "user", Auth: AuthUser, Handler: who},
		Route{Method: "GET", Path: "/guest", Name: "guest", Auth: AuthGuest, Handler: who},
	)
	for _, test := range []struct {
		path, token string
		code        int
		want        string
	}{
		{"/none", "", 200, ""}, {"/none", "wrong", 200, ""},
		{"/optional", "", 200, ""}, {"/optional", "alice", 200, ""}, {"/optional", "wrong", 401, "M_UNKNOWN_TOKEN"},
		{"/user", "", 401, "M_MISSING_TOKEN"}, {"/user", "wrong", 401, "M_UNKNOWN_TOKEN"}, {"/user", "alice", 200, ""},
		{"/user", "guest", 403, "M_GUEST_ACCESS_FORBIDDEN"},
		{"/guest", "guest", 200, ""}, {"/guest", "", 401, "M_MISSING_TOKEN"},
	} {
		in := []*httptest.ResponseRecorder{ask(r, "GET", test.path, ""), nil}
		if test.token != "" {
			in = []*httptest.ResponseRecorder{ask(r, "GET", test.path, "", "Authorization", "Bearer "+test.token),
				ask(r, "GET", test.path, "", "Authorization", "bearer "+test.token), ask(r, "GET", test.path+"?access_token="+test.token, "")}
		}
		for _, w := range in {
			if w == nil {
				continue
			}
			if w.Code != test.code || test.want != "" && errcode(t, w) != test.want {
				t.Errorf("%s as %q: %d %s", test.path, test.token, w.Code, w.Body)
			}
		}
	}
}

func TestRateLimitSaysWhenToComeBack(t *testing.T) {
	r := router(t,
		Route{Method: "GET", Path: "/slow", Name: "slow", Auth: AuthOptional, Limit: "slow", Handler: says("slow")},
		Route{Method: "GET", Path: "/free", Name: "free", Limit: "no such limit", Handler: says("free")})
	get := func(token string) *httptest.ResponseRecorder {
		return ask(r, "GET", "/slow", "", "Authorization", "Bearer "+token)
	}
	for range 2 {
		if w := get("alice"); w.Code != 200 {
			t.Fatalf("got %d", w.Code)
		}
	}
	w := get("bob") // the same user
	if w.Code != 429 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "retry_after_ms") || errcode(t, w) != "M_LIMIT_EXCEEDED" {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := get("guest"); w.Code != 200 {
		t.Errorf("another user is limited: %d", w.Code)
	}
	for range 4 {
		if w := get("unlimited"); w.Code != 200 {
			t.Errorf("who has no limits is limited: %d", w.Code)
		}
		if w := ask(r, "GET", "/free", ""); w.Code != 200 {
			t.Errorf("what has no limit is limited: %d", w.Code)
		}
	}
}

func TestAServiceIsKnownWhereNobodyIsAsked(t *testing.T) {
	r := router(t, Route{Method: "GET", Path: "/slow", Name: "slow", Limit: "slow", Handler: func(_ context.Context, r *Request) (any, error) {
		if r.Service == nil {
			return Object{"service": "", "token": r.HasToken()}, nil
		}
		return Object{"service": r.Service.ID, "token": r.HasToken()}, nil
	}})
	for _, c := range []struct {
		token, want string
		limited     bool
	}{
		{"free", `{"service":"free","token":true}`, false}, {"limited", `{"service":"limited","token":true}`, true},
		{"alice", `{"service":"","token":true}`, true}, // by the address
	} {
		for i := range 4 {
			w := ask(r, "GET", "/slow", "", "Authorization", "Bearer "+c.token)
			if limited := w.Code == 429; limited != (c.limited && i >= 2) || !limited && w.Body.String() != c.want {
				t.Errorf("request %d of %s: %d %s, want %s", i, c.token, w.Code, w.Body, c.want)
			}
		}
	}
}

func TestBodiesThatAreNoJSONAreRefused(t *testing.T) {
	var got struct {
		Name string
		List []string
		N    int
	}
	r := router(t, Route{Method: "POST", Path: "/a", Name: "a", MaxBody: 1000, Handler: func(_ context.Context, r *Request) (any, error) {
		got.Name = ""
		return nil, r.JSON(&got)
	}})
	for _, test := range []struct {
		body, want string
		code       int
	}{
		{`{"name":"x"}`, "", 200}, {"", "", 200}, {" \n{}\n ", "", 200},
		{`{"name":`, "M_NOT_JSON", 400}, {`hello`, "M_NOT_JSON", 400}, {"{\"name\":\"\xff\"}", "M_NOT_JSON", 400}, {`{} {}`, "M_NOT_JSON", 400},
		{`[]`, "M_BAD_JSON", 400}, {`"x"`, "M_BAD_JSON", 400}, {`null`, "M_BAD_JSON", 400},
		{`{"name":1}`, "M_BAD_JSON", 400}, {`{"list":{}}`, "M_BAD_JSON", 400}, {`{"n":1.5}`, "M_BAD_JSON", 400},
		{`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "M_BAD_JSON", 400},
		{`{"a":"` + strings.Repeat("[", 200) + `"}`, "", 200},
		{`{"name":"` + strings.Repeat("x", 1000) + `"}`, "M_TOO_LARGE", 413},
	} {
		w := ask(r, "POST", "/a", test.body)
		if w.Code != test.code || test.want != "" && errcode(t, w) != test.want {
			t.Errorf("%.40q: %d %s", test.body, w.Code, w.Body)
		}
		if test.want == "" && w.Body.String() != "{}" {
			t.Errorf("%q is answered with %q", test.body, w.Body)
		}
	}
	// A body whose length is not told.
	request := httptest.NewRequest("POST", "/a", io.MultiReader(strings.NewReader(`{"name":"`), strings.NewReader(strings.Repeat("x", 2000)+`"}`)))
	request.ContentLength = -1
	w := httptest.NewRecorder()
	if r.ServeHTTP(w, request); w.Code != 413 {
		t.Errorf("a long body: %d", w.Code)
	}
}

func TestErrorsOfHandlers(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		code int
		want string
	}{
		"of Matrix":   {fmt.Errorf("wrapped: %w", mxerr.NotFound("no such thing")), 404, "M_NOT_FOUND"},
		"a defect":    {errors.New("the password is hunter2"), 500, "M_UNKNOWN"},
		"unavailable": {fmt.Errorf("wrapped: %w", mxerr.ErrUnavailable), 503, "M_UNKNOWN"},
		"deadline":    {context.DeadlineExceeded, 503, "M_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			r := router(t, Route{Method: "GET", Path: "/a", Name: "a", Handler: func(context.Context, *Request) (any, error) { return nil, test.err }})
			w := ask(r, "GET", "/a", "")
			if w.Code != test.code || errcode(t, w) != test.want && test.code != 503 {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Error("what went wrong is told to the client")
			}
		})
	}
	r := router(t, Route{Method: "GET", Path: "/a", Name: "a", Handler: func(context.Context, *Request) (any, error) { panic("hunter2") }})
	if w := ask(r, "GET", "/a", ""); w.Code != 500 || errcode(t, w) != "M_UNKNOWN" {
		t.Errorf("a panic: %d %s", w.Code, w.Body)
	}
}

func TestAnswers(t *testing.T) {
	r := router(t,
		Route{Method: "GET", Path: "/json", Name: "json", Handler: func(context.Context, *Request) (any, error) { return Object{"a": "<&>"}, nil }},
		Route{Method: "GET", Path: "/stream", Name: "stream", Handler: func(context.Context, *Request) (any, error) {
			return Stream(func(w http.ResponseWriter) error {
				_, err := io.WriteString(w, "a stream")
				return err
			}), nil
		}},
		Route{Method: "GET", Path: "/raw", Name: "raw", Handler: func(context.Context, *Request) (any, error) {
			return Raw{Status: 201, ContentType: "image/png", Body: []byte("png")}, nil
		}})
	if w := ask(r, "GET", "/json", ""); w.Body.String() != `{"a":"<&>"}` || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %v %s", w.Header(), w.Body)
	}
	if w := ask(r, "HEAD", "/json", ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "11" {
		t.Errorf("HEAD: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := ask(r, "GET", "/stream", ""); w.Body.String() != "a stream" {
		t.Errorf("got %s", w.Body)
	}
	if w := ask(r, "GET", "/raw", ""); w.Code != 201 || w.Body.String() != "png" || w.Header().Get("Content-Type") != "image/png" {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestParametersOfTheQuery(t *testing.T) {
	q := NewRequest(httptest.NewRequest("GET", "/?n=5&neg=-1&word=x&yes=true&no=false&maybe=1&ms=1500&long=99999999999", nil), Caller{}, map[string]string{"room": "!a:b", "user": "@a:b", "event": "$x"})
	if n, err := q.QueryInt("n", 1); n != 5 || err != nil {
		t.Error(n, err)
	}
	if n, err := q.QueryInt("none", 7); n != 7 || err != nil {
		t.Error(n, err)
	}
	for _, name := range []string{"neg", "word"} {
		if _, err := q.QueryInt(name, 0); !mxerr.Is(err, "M_INVALID_PARAM") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if yes, err := q.QueryBool("yes"); !yes || err != nil {
		t.Error(yes, err)
	}
	if _, err := q.QueryBool("maybe"); !mxerr.Is(err, "M_INVALID_PARAM") {
		t.Error(err)
	}
	if d, err := q.QueryMillis("ms", time.Minute); d != 1500*time.Millisecond || err != nil {
		t.Error(d, err)
	}
	if d, err := q.QueryMillis("long", time.Minute); d != time.Minute || err != nil {
		t.Error(d, err)
	}
	if room, err := q.RoomID("room"); room != "!a:b" || err != nil {
		t.Error(room, err)
	}
	if _, err := q.RoomID("user"); !mxerr.Is(err, "M_INVALID_PARAM") {
		t.Error(err)
	}
	if user, err := q.UserID("user"); user != "@a:b" || err != nil {
		t.Error(user, err)
	}
	if event, err := q.EventID("event"); event != "$x" || err != nil {
		t.Error(event, err)
	}
}

func TestPathsAndQueriesAreText(t *testing.T) {
	r := router(t, Route{Method: "GET", Path: "/a/{x}", Name: "a", Handler: says("a", "x")})
	for target, want := range map[string]int{"/a/%00": 400, "/a/%ff": 400, "/a/b?c=%00": 400, "/a/b?c=%ff": 400, "/a/b?c=\xff": 400, "/a/b?%ff=c": 400,
		"/a/%E2%82%AC?c=%E2%82%AC": 200, "/a/b?c=d": 200} {
		w := ask(r, "GET", target, "")
		if w.Code != want || want == 400 && errcode(t, w) != "M_INVALID_PARAM" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}
