package outgoing

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/registration"
)

// newClient makes a Client that may reach this machine, or not.
func newClient(t *testing.T, local bool, caFiles ...string) *Client {
	t.Helper()
	var c config.Network
	if local {
		c.AllowPrivate.ApplicationServices = []string{"127.0.0.0/8"}
	}
	c.CAFiles = caFiles
	policy, err := netpolicy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return New(component.Deps{Outgoing: policy.Client})
}

// service starts a service that keeps the requests it gets.
func newService(t *testing.T, answer http.HandlerFunc) (*registration.Registration, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Method+" "+r.RequestURI)
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return &registration.Registration{ID: "irc", URL: server.URL, HSToken: "hs_secret"}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

func TestARequestHasTheTokenInItsHeaderAndEscapedNames(t *testing.T) {
	var authorization, body string
	r, got := newService(t, func(w http.ResponseWriter, r *http.Request) {
		text := make([]byte, 100)
		n, _ := r.Body.Read(text)
		authorization, body = r.Header.Get("Authorization"), string(text[:n])
		_, _ = w.Write([]byte(`{}`))
	})
	r.URL += "/bridge" // a path in front, as reverse proxies have
	path := "/_matrix/app/v1/rooms/" + url.PathEscape("#a/b?c%#d:x.y")
	status, answer, err := newClient(t, true).Do(context.Background(), r, http.MethodPut, path, "/rooms/x", url.Values{"a b": {"&"}}, []byte(`{"a":1}`))
	if err != nil || status != 200 || string(answer) != `{}` {
		t.Fatalf("answer %d %s %v", status, answer, err)
	}
	if want := []string{"PUT /bridge/_matrix/app/v1/rooms/%23a%2Fb%3Fc%25%23d:x.y?a+b=%26"}; !slices.Equal(got(), want) {
		t.Errorf("requests %q, not %q", got(), want)
	}
	if authorization != "Bearer hs_secret" || body != `{"a":1}` {
		t.Errorf("authorization %q, body %q", authorization, body)
	}
	r.LegacyToken = true
	if _, _, err := newClient(t, true).Do(context.Background(), r, http.MethodGet, "/x", "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if last := got()[1]; last != "GET /bridge/x?access_token=hs_secret" || authorization != "Bearer hs_secret" {
		t.Errorf("with legacy_token: %s, %s", last, authorization)
	}
}

func TestTheLegacyPathIsTriedWhereTheServiceHasNoOther(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	cases := []struct {
		name, method string
		first        http.HandlerFunc
		falls        bool
	}{
		{"404 of a transaction", "PUT", answer(404, `{"errcode":"M_NOT_FOUND"}`), true},
		{"404 without errcode", "GET", answer(404, `Cannot GET /`), true},
		{"404 with an errcode is an answer", "GET", answer(404, `{"errcode":"COM.EXAMPLE.MYAPPSERVICE_NOT_FOUND"}`), false},
		{"405", "PUT", answer(405, ``), true},
		{"501", "PUT", answer(501, ``), true},
		{"400 M_UNRECOGNIZED", "PUT", answer(400, `{"errcode":"M_UNRECOGNIZED"}`), true},
		{"500 could have done it", "PUT", answer(500, `{"errcode":"M_UNKNOWN"}`), false},
		{"502", "PUT", answer(502, ``), false},
		{"403", "PUT", answer(403, `{"errcode":"M_FORBIDDEN"}`), false},
		{"302", "PUT", answer(302, ``), false},
		{"200", "PUT", answer(200, `{"errcode":"M_UNRECOGNIZED"}`), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, got := newService(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/_matrix/app/v1/") {
					c.first(w, r)
				} else {
					answer(200, `{"legacy":true}`)(w, r)
				}
			})
			_, body, err := newClient(t, true).Do(context.Background(), r, c.method, "/_matrix/app/v1/transactions/1", "/transactions/1", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if fell := string(body) == `{"legacy":true}`; fell != c.falls || fell && len(got()) != 2 || !fell && len(got()) != 1 {
				t.Errorf("legacy: %v, not %v; requests %q", fell, c.falls, got())
			}
		})
	}
}

func TestWhichPathAServiceHasIsRememberedForAnHour(t *testing.T) {
	var mu sync.Mutex
	has := "/transactions/"
	r, got := newService(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(r.URL.Path, has) {
			w.WriteHeader(404)
		}
	})
	set := func(to string) {
		mu.Lock()
		defer mu.Unlock()
		has = to
	}
	c := newClient(t, true)
	now := time.Now()
	c.now = func() time.Time { return now }
	const modern, legacy = "/_matrix/app/v1/transactions/1", "/transactions/1"
	expect := func(what string, status int, paths ...string) {
		t.Helper()
		before := len(got())
		answered, _, err := c.Do(context.Background(), r, "PUT", modern, legacy, nil, nil)
		for i := range paths {
			paths[i] = "PUT " + paths[i]
		}
		if requests := got()[before:]; err != nil || answered != status || !slices.Equal(requests, paths) {
			t.Errorf("%s: %d %v, requests %q, not %q", what, answered, err, requests, paths)
		}
	}
	expect("unknown", 200, modern, legacy)
	expect("legacy is known", 200, legacy)
	now = now.Add(tryAnew / 2)
	expect("legacy is known half an hour later", 200, legacy)
	now = now.Add(tryAnew / 2)
	expect("after an hour the new one is tried, whatever was used meanwhile", 200, modern, legacy)
	set("/_matrix/app/v1/")
	expect("the service was updated", 200, legacy, modern)
	expect("the new one is known", 200, modern)
	set("/transactions/")
	expect("what knew the new one is not asked elsewhere", 404, modern)
	now = now.Add(tryAnew)
	expect("but after an hour", 200, modern, legacy)
	set("/nowhere")
	expect("neither", 404, legacy, modern)
}

func TestRedirectionsAreNotFollowed(t *testing.T) {
	secret, asked := newService(t, func(http.ResponseWriter, *http.Request) {})
	r, _ := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", secret.URL)
		w.WriteHeader(307)
	})
	status, _, err := newClient(t, true).Do(context.Background(), r, "PUT", "/x", "", nil, []byte(`{}`))
	if err != nil || status != 307 || len(asked()) > 0 {
		t.Errorf("status %d, %v; requests elsewhere: %q", status, err, asked())
	}
}

func TestPrivateAddressesAreNotReachedUnlessListed(t *testing.T) {
	r, got := newService(t, func(http.ResponseWriter, *http.Request) {})
	_, _, err := newClient(t, false).Do(context.Background(), r, "GET", "/x", "", nil, nil)
	var forbidden *netpolicy.Error
	if !errors.As(err, &forbidden) || len(got()) > 0 {
		t.Errorf("error %v, requests %q", err, got())
	}
}

func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	r, _ := newService(t, func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	status, answer, err := newClient(t, true).Do(context.Background(), r, "GET", "/x", "", nil, nil)
	if err != nil || status != 200 || len(answer) != MaxAnswer {
		t.Errorf("status %d, %d bytes, %v", status, len(answer), err)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	r, _ := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 4<<10))
		}
	})
	if status, _, err := newClient(t, true).Do(context.Background(), r, "GET", "/x", "", nil, nil); err == nil {
		t.Errorf("status %d for 400 KiB of headers", status)
	}
}

// slow answers a byte at a time, with or without headers, and never ends.
func slow(t *testing.T, headers string) *registration.Registration {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				// A client takes what comes before its request for no answer.
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				if _, err := conn.Write([]byte(headers)); err != nil {
					return
				}
				for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return &registration.Registration{ID: "slow", URL: "http://" + l.Addr().String(), HSToken: "hs_secret", LegacyToken: true}
}

func TestSlowAnswersEndAtTheDeadlineWithoutTellingTheToken(t *testing.T) {
	for name, headers := range map[string]string{"headers": "HTTP/1.1 200 OK\r\nX-A: ", "body": "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, true)
			c.wait = 200 * time.Millisecond
			_, _, err := c.Do(context.Background(), slow(t, headers), "PUT", "/x", "", nil, nil)
			if !TimedOut(err) || strings.Contains(fmt.Sprint(err), "hs_secret") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestErrorsTellNoToken(t *testing.T) {
	r := &registration.Registration{ID: "gone", URL: "http://127.0.0.1:1", HSToken: "hs_secret", LegacyToken: true}
	_, _, err := newClient(t, true).Do(context.Background(), r, "PUT", "/x", "", nil, nil)
	if err == nil || strings.Contains(err.Error(), "hs_secret") || TimedOut(err) {
		t.Errorf("error %v", err)
	}
	if _, _, err := newClient(t, true).Do(context.Background(), &registration.Registration{ID: "x"}, "PUT", "/x", "", nil, nil); !errors.Is(err, ErrNoURL) {
		t.Errorf("without a url: %v", err)
	}
}

func TestQuestionsThatHangKeepNeitherTransactionsNorOtherServicesWaiting(t *testing.T) {
	release := make(chan struct{})
	var hanging sync.WaitGroup
	hanging.Add(maxQuestions)
	r, got := newService(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			hanging.Done()
			<-release
		}
	})
	other, _ := newService(t, func(http.ResponseWriter, *http.Request) {})
	other.ID = "other"
	c := newClient(t, true)
	var done sync.WaitGroup
	for range maxQuestions {
		done.Go(func() {
			if _, _, err := c.Do(context.Background(), r, "GET", "/x", "", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	hanging.Wait()
	// The next question waits in vain, and is never sent.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Do(ctx, r, "GET", "/x", "", nil, nil); !TimedOut(err) {
		t.Errorf("one question more: %v", err)
	}
	for _, to := range []*registration.Registration{r, other} {
		if _, _, err := c.Do(context.Background(), to, "PUT", "/x", "", nil, nil); err != nil {
			t.Errorf("transaction to %s: %v", to.ID, err)
		}
	}
	close(release)
	done.Wait()
	if n := len(got()); n != maxQuestions+1 {
		t.Errorf("%d requests, not %d", n, maxQuestions+1)
	}
}

func TestHTTPSWithCertificatesOfTheOperator(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &registration.Registration{ID: "tls", URL: server.URL, HSToken: "hs_secret"}
	if _, _, err := newClient(t, true).Do(context.Background(), r, "GET", "/x", "", nil, nil); err == nil {
		t.Error("a certificate that nobody knows was trusted")
	}
	if status, _, err := newClient(t, true, file).Do(context.Background(), r, "GET", "/x", "", nil, nil); err != nil || status != 200 {
		t.Errorf("with ca_files: %d %v", status, err)
	}
}

func TestAServiceThatMovesIsReachedWhereItIs(t *testing.T) {
	before, _ := newService(t, func(http.ResponseWriter, *http.Request) {})
	after, got := newService(t, func(http.ResponseWriter, *http.Request) {})
	c := newClient(t, true)
	for _, r := range []*registration.Registration{before, after} {
		if _, _, err := c.Do(context.Background(), r, "GET", "/x", "", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(got()) != 1 {
		t.Errorf("requests at the new place: %q", got())
	}
}
