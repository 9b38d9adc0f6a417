package httputil

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/rpc"
)

func TestOwnerIsThatOfTheLongestPath(t *testing.T) {
	o := NewOwners([]Owned{
		{"/_matrix/client", "clientapi"},
		{"/_matrix/client/{r0|v3}/sync", "syncapi"},
		{"/_matrix/client/{r0|v3}/rooms/*/messages", "syncapi"},
		{"/_matrix/federation", "federationapi"},
	})
	for path, want := range map[string]string{
		"/_matrix/client/versions":                     "clientapi",
		"/_matrix/client/v3/sync":                      "syncapi",
		"/_matrix/client/r0/sync":                      "syncapi",
		"/_matrix/client/v3/syncs":                     "clientapi",
		"/_matrix/client/v3/rooms/!a:b/messages":       "syncapi",
		"/_matrix/client/v3/rooms/%21a%2Fb/messages":   "syncapi",
		"/_matrix/client/v3/rooms/!a:b/messages/below": "syncapi",
		"/_matrix/client/v3/rooms/!a:b/send":           "clientapi",
		"/_matrix/federation/v1/version":               "federationapi",
		"/_synapse/admin":                              "",
		"/":                                            "",
	} {
		if got := o.Of(path); got != want {
			t.Errorf("%s belongs to %q, not %q", path, got, want)
		}
	}
}

const secret = "known to all"

// door makes a front door to a component that listens at these addresses.
func door(t *testing.T, urls ...string) *httptest.Server {
	t.Helper()
	client, err := rpc.NewClient(rpc.ClientOptions{Secret: secret, Peers: map[string][]string{"syncapi": urls}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	d := NewFrontDoor(FrontDoorDeps{Owners: NewOwners([]Owned{{"/sync", "syncapi"}, {"/keys", "keyserver"}}), Client: client, Secret: secret, Log: quiet()})
	r := router(t, Route{Method: "GET", Path: "/here", Name: "here", Handler: says("here")})
	r.Otherwise(d)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return server
}

// behind runs a component's internal listener.
func behind(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func fetch(t *testing.T, method, url, body string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text), answer.Header
}

func TestFrontDoorPassesRequestsOn(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	server := door(t, gone.URL, behind(t, func(w http.ResponseWriter, r *http.Request) {
		if !rpc.Authorized(r, secret) {
			t.Error("a request without the secret")
		}
		if r.Header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("for %q", r.Header.Get("X-Forwarded-For"))
		}
		cors(w.Header())
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	}))
	for range 5 {
		code, text, header := fetch(t, "PUT", server.URL+"/sync/%21a%2Fb?since=s1", "body")
		if code != http.StatusTeapot || text != "PUT /sync/%21a%2Fb?since=s1 body" {
			t.Errorf("got %d %s", code, text)
		}
		if n := len(header.Values("Access-Control-Allow-Origin")); n != 1 {
			t.Errorf("a header comes %d times", n)
		}
	}
	if code, text, _ := fetch(t, "GET", server.URL+"/here", ""); code != 200 || text != "here" {
		t.Errorf("got %d %s", code, text)
	}
	for _, path := range []string{"/nobody", "/keys"} { // the second has an owner, and no listener
		if code, text, _ := fetch(t, "GET", server.URL+path, ""); code != 404 || !strings.Contains(text, "M_UNRECOGNIZED") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}

func TestFrontDoorPassesByReplicasThatAreStarting(t *testing.T) {
	starting := behind(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "starting", http.StatusServiceUnavailable) })
	ready := behind(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "busy" {
			WriteError(w, mxerr.Unavailable("busy"))
			return
		}
		_, _ = io.WriteString(w, "ready")
	})
	both, alone := door(t, starting, ready), door(t, starting)
	for range 10 {
		if code, text, _ := fetch(t, "GET", both.URL+"/sync", ""); code != 200 || text != "ready" {
			t.Errorf("got %d %s", code, text)
		}
	}
	// What a ready replica answers is the answer, and a body that was read cannot be sent again.
	if code, text, _ := fetch(t, "GET", both.URL+"/sync?busy", ""); code != 503 || !strings.Contains(text, "busy") {
		t.Errorf("got %d %s", code, text)
	}
	if code, text, _ := fetch(t, "PUT", alone.URL+"/sync", "body"); code != 503 || !strings.Contains(text, "M_UNKNOWN") {
		t.Errorf("got %d %s", code, text)
	}
}

func TestFrontDoorStreamsAndEndsWithTheClient(t *testing.T) {
	ended := make(chan struct{})
	server := door(t, behind(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/sync", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is cut off
	if line, err := bufio.NewReader(answer.Body).ReadString('\n'); line != "first\n" || err != nil {
		t.Errorf("got %q, %v before the answer has ended", line, err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the request goes on without its client")
	}
}

func TestWhatWasPassedOnIsNotPassedOnAgain(t *testing.T) {
	r := router(t)
	r.Otherwise(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed on again") }))
	if w := ask(r.Local(), "GET", "/sync", ""); w.Code != 404 {
		t.Errorf("got %d", w.Code)
	}
}
