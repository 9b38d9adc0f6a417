package ping

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sirupsen/logrus"

	"github.com/matrix-org/dendrite/appservice/api"
	"github.com/matrix-org/dendrite/appservice/outgoing"
	"github.com/matrix-org/dendrite/common/component"
	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/netpolicy"
	"github.com/matrix-org/dendrite/common/registration"
)

// newPing makes a Service that knows one application service with a URL, and counts whom it has told to be alive.
func newPing(t *testing.T, url string) (s *Service, alive *[]string) {
	t.Helper()
	var c config.Network
	c.AllowPrivate.ApplicationServices = []string{"127.0.0.0/8"}
	policy, err := netpolicy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	set, err := registration.NewSet("here", []*registration.Registration{{ID: "irc", URL: url, ASToken: "as_secret", HSToken: "hs_secret", Sender: "@bot:here"}})
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(t.Output())
	alive = new([]string)
	return &Service{Services: registration.NewHolder(set), Client: outgoing.New(component.Deps{Outgoing: policy.Client}), Wait: MaxWait,
		Log: logrus.NewEntry(log), Alive: func(_ context.Context, req api.NoteAliveRequest) (api.Empty, error) {
			*alive = append(*alive, req.Service)
			return api.Empty{}, nil
		}}, alive
}

func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return server.URL
}

func TestAPingThatIsAnsweredWakesWhatWaits(t *testing.T) {
	var got string
	s, alive := newPing(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.RequestURI + " " + string(body)
	}))
	answer, err := s.Ping(t.Context(), api.PingRequest{Service: "irc", TransactionID: "meow"})
	if err != nil || answer.DurationMS < 0 || answer.DurationMS > MaxWait.Milliseconds() {
		t.Fatalf("%v %v", answer, err)
	}
	if got != `POST /_matrix/app/v1/ping {"transaction_id":"meow"}` || len(*alive) != 1 || (*alive)[0] != "irc" {
		t.Errorf("request %s; alive: %q", got, *alive)
	}
	if _, err := s.Ping(t.Context(), api.PingRequest{Service: "irc"}); err != nil || !strings.HasSuffix(got, " {}") {
		t.Errorf("without a transaction id: %s, %v", got, err)
	}
	s.Alive = func(context.Context, api.NoteAliveRequest) (api.Empty, error) {
		return api.Empty{}, errors.New("no database")
	}
	if _, err := s.Ping(t.Context(), api.PingRequest{Service: "irc"}); err != nil {
		t.Errorf("the service has answered, but: %v", err)
	}
}

func TestAPingThatFailsTellsWhyAndChangesNothing(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("é", maxBody)
	for name, c := range map[string]struct {
		url    string
		status int
		code   string
		fields map[string]any
	}{
		"no url":                               {"", 400, "M_URL_NOT_SET", nil},
		"nobody is there":                      {nobody, 502, "M_CONNECTION_FAILED", nil},
		"a private address that is not listed": {"http://10.0.0.1:1", 502, "M_CONNECTION_FAILED", nil},
		"it hangs": {serve(t, func(_ http.ResponseWriter, r *http.Request) {
			// Only who has read the body hears that the client has gone.
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}), 504, "M_CONNECTION_TIMEOUT", nil},
		"wrong token": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"errcode":"M_FORBIDDEN"}`))
		}), 502, "M_BAD_STATUS", map[string]any{"status": 403, "body": `{"errcode":"M_FORBIDDEN"}`}},
		"elsewhere": {serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, nobody, http.StatusTemporaryRedirect)
		}), 502, "M_BAD_STATUS",
			map[string]any{"status": 307, "body": ""}},
		"bad text": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = w.Write([]byte("a\xff\xfeb"))
		}), 502, "M_BAD_STATUS", map[string]any{"status": 500, "body": "a\uFFFDb"}},
		"long text": {serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = w.Write([]byte("x" + long))
		}), 502, "M_BAD_STATUS", map[string]any{"status": 404}},
	} {
		t.Run(name, func(t *testing.T) {
			s, alive := newPing(t, c.url)
			if c.code == "M_CONNECTION_TIMEOUT" {
				s.Wait = 100 * time.Millisecond
			}
			_, err := s.Ping(t.Context(), api.PingRequest{Service: "irc"})
			e, is := mxerr.As(err)
			if !is || e.Status != c.status || e.Code != c.code || len(*alive) > 0 {
				t.Fatalf("%v; alive: %q", err, *alive)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a token in %v", err)
			}
			for field, want := range c.fields {
				if e.Fields[field] != want {
					t.Errorf("%s is %v, not %v", field, e.Fields[field], want)
				}
			}
			if body, has := e.Fields["body"].(string); has && (len(body) > maxBody+3 || !utf8.ValidString(body)) {
				t.Errorf("a body of %d bytes, valid: %v", len(body), utf8.ValidString(body))
			}
		})
	}
}

func TestAPingOfNobody(t *testing.T) {
	s, _ := newPing(t, "")
	if _, err := s.Ping(t.Context(), api.PingRequest{Service: "other"}); !mxerr.Is(err, "M_NOT_FOUND") {
		t.Errorf("error %v", err)
	}
}
