package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"github.com/matrix-org/dendrite/common/mxerr"
	"github.com/matrix-org/dendrite/common/sqlutil"
	"github.com/matrix-org/dendrite/common/txguard"
)

type greeting struct {
	Name string          `json:"name"`
	Raw  json.RawMessage `json:"raw,omitempty"`
}

// AffinityKey lets calls for the same name go to the same replica.
func (g greeting) AffinityKey() string { return g.Name }

type contract struct {
	Greet Call[greeting, greeting]
}

func greet(f func(context.Context, greeting) (greeting, error)) *contract { return &contract{Greet: f} }

const secret = "known to all components"

// serve runs a component and returns the host and port of its internal listener.
func serve(t *testing.T, api *contract) string {
	t.Helper()
	r := mux.NewRouter()
	if err := Serve(r, "/rpc/greeter", "greeter", api, Options{Secret: secret}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func dial(t *testing.T, secret string, addresses ...string) *contract {
	t.Helper()
	urls := make([]string, len(addresses))
	for i, a := range addresses {
		urls[i] = "http://" + a
	}
	client, err := NewClient(ClientOptions{Secret: secret, Peers: map[string][]string{"greeter": urls}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	peer := new(contract)
	if err := Dial(client, "greeter", peer); err != nil {
		t.Fatal(err)
	}
	return peer
}

// both runs a test with the component in the same process and in another.
func both(t *testing.T, api *contract, body func(t *testing.T, peer *contract)) {
	t.Run("local", func(t *testing.T) {
		peer := new(contract)
		if err := Local("greeter", nil, api, peer); err != nil {
			t.Fatal(err)
		}
		body(t, peer)
	})
	t.Run("remote", func(t *testing.T) { body(t, dial(t, secret, serve(t, api))) })
}

func TestCallCarriesRequestAndResponse(t *testing.T) {
	raw := json.RawMessage(`{"a":"<&>","n":9007199254740993}`)
	both(t, greet(func(_ context.Context, g greeting) (greeting, error) {
		return greeting{Name: "hello " + g.Name, Raw: g.Raw}, nil
	}), func(t *testing.T, peer *contract) {
		got, err := peer.Greet(t.Context(), greeting{Name: "you", Raw: raw})
		if err != nil || got.Name != "hello you" || string(got.Raw) != string(raw) {
			t.Errorf("got %s %s, %v", got.Name, got.Raw, err)
		}
	})
}

func TestMatrixErrorCrossesUnchanged(t *testing.T) {
	sent := mxerr.New(http.StatusForbidden, "M_FORBIDDEN", "not you").With("soft_logout", true).With("n", 9007199254740993)
	both(t, greet(func(context.Context, greeting) (greeting, error) { return greeting{}, sent }), func(t *testing.T, peer *contract) {
		_, err := peer.Greet(t.Context(), greeting{})
		got, is := mxerr.As(err)
		if !is {
			t.Fatalf("got %v", err)
		}
		want, _ := json.Marshal(sent)
		text, _ := json.Marshal(got)
		if got.Status != sent.Status || string(text) != string(want) {
			t.Errorf("got %d %s, not %d %s", got.Status, text, sent.Status, want)
		}
	})
}

func TestErrorsKeepTheirKinds(t *testing.T) {
	for name, sent := range map[string]error{"deadline": context.DeadlineExceeded, "unavailable": mxerr.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			both(t, greet(func(context.Context, greeting) (greeting, error) { return greeting{}, sent }), func(t *testing.T, peer *contract) {
				if _, err := peer.Greet(t.Context(), greeting{}); !errors.Is(err, sent) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestOtherErrorsAndPanicsAreOpaque(t *testing.T) {
	for name, call := range map[string]func(context.Context, greeting) (greeting, error){
		"error": func(context.Context, greeting) (greeting, error) { return greeting{}, errors.New("a defect") },
		"panic": func(context.Context, greeting) (greeting, error) { panic("a defect") },
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			peer := dial(t, secret, serve(t, greet(func(ctx context.Context, g greeting) (greeting, error) {
				calls.Add(1)
				return call(ctx, g)
			})))
			_, err := peer.Greet(t.Context(), greeting{})
			got, is := errors.AsType[*Error](err)
			if !is || got.Operation != "greeter.Greet" || !strings.Contains(got.Message, "a defect") {
				t.Errorf("got %v", err)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("it was called %d times", n)
			}
		})
	}
}

func TestDeadlineCrosses(t *testing.T) {
	both(t, greet(func(ctx context.Context, _ greeting) (greeting, error) {
		at, has := ctx.Deadline()
		if left := time.Until(at); !has || left > time.Minute || left < time.Minute/2 {
			return greeting{}, errors.New("the deadline is another one")
		}
		return greeting{}, nil
	}), func(t *testing.T, peer *contract) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := peer.Greet(ctx, greeting{}); err != nil {
			t.Error(err)
		}
	})
}

func TestCallEndsAtItsDeadline(t *testing.T) {
	both(t, greet(func(ctx context.Context, _ greeting) (greeting, error) {
		<-ctx.Done()
		return greeting{}, ctx.Err()
	}), func(t *testing.T, peer *contract) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := peer.Greet(ctx, greeting{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPeerThatIsAwayIsUnavailable(t *testing.T) {
	gone := httptest.NewServer(nil)
	address := strings.TrimPrefix(gone.URL, "http://")
	gone.Close()
	for name, peer := range map[string]*contract{"refuses": dial(t, secret, address), "has no address": dial(t, secret)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := peer.Greet(ctx, greeting{}); !errors.Is(err, mxerr.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCallIsRepeatedAtOtherReplicasAndUntilOneIsReady(t *testing.T) {
	gone := httptest.NewServer(nil)
	away := strings.TrimPrefix(gone.URL, "http://")
	gone.Close()
	var refused atomic.Int32
	ready := serve(t, greet(func(_ context.Context, g greeting) (greeting, error) { return g, nil }))
	starting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refused.Add(1) <= 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		r.URL.Host, r.RequestURI, r.URL.Scheme = ready, "", "http"
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		data, err := readAll(answer.Body, answer.ContentLength)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(data)
	}))
	defer starting.Close()
	peer := dial(t, secret, away, strings.TrimPrefix(starting.URL, "http://"))
	got, err := peer.Greet(t.Context(), greeting{Name: "you"})
	if err != nil || got.Name != "you" {
		t.Errorf("got %v, %v", got, err)
	}
	if n := refused.Load(); n != 4 {
		t.Errorf("%d attempts, not 4", n)
	}
}

func TestCallIsRepeatedIfItsAnswerBreaksOff(t *testing.T) {
	var asked []string
	answers := greet(func(_ context.Context, g greeting) (greeting, error) {
		asked = append(asked, g.Name)
		return g, nil
	})
	r := mux.NewRouter()
	if err := Serve(r, "/rpc/greeter", "greeter", answers, Options{Secret: secret}); err != nil {
		t.Fatal(err)
	}
	dies := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if len(asked) > 0 {
			r.ServeHTTP(w, request)
			return
		}
		r.ServeHTTP(httptest.NewRecorder(), request) // it is done, and only half of the answer is sent
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"name":`))
	}))
	defer dies.Close()
	got, err := dial(t, secret, strings.TrimPrefix(dies.URL, "http://")).Greet(t.Context(), greeting{Name: "key"})
	if err != nil || got.Name != "key" || !slices.Equal(asked, []string{"key", "key"}) {
		t.Errorf("got %v, %v after %q", got, err, asked)
	}
}

// bomb cannot be encoded.
type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("a defect") }

func TestResponseThatPanicsIsNotAskedForAgain(t *testing.T) {
	calls := 0
	api := &struct{ Explode Call[greeting, bomb] }{func(context.Context, greeting) (bomb, error) {
		calls++
		return bomb{}, nil
	}}
	r := mux.NewRouter()
	if err := Serve(r, "/rpc/bombs", "bombs", api, Options{Secret: secret}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()
	client, err := NewClient(ClientOptions{Secret: secret, Peers: map[string][]string{"bombs": {server.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	peer := &struct{ Explode Call[greeting, bomb] }{}
	if err := Dial(client, "bombs", peer); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := peer.Explode(ctx, greeting{}); err == nil || ctx.Err() != nil || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestOnlyWhoKnowsTheSecretMayCall(t *testing.T) {
	api := greet(func(_ context.Context, g greeting) (greeting, error) { return g, nil })
	if _, err := dial(t, "a guess", serve(t, api)).Greet(t.Context(), greeting{}); err == nil || !strings.Contains(err.Error(), "internal_secret") {
		t.Errorf("got %v", err)
	}
	r := mux.NewRouter()
	if err := Serve(r, "/rpc/greeter", "greeter", api, Options{}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	defer server.Close()
	if _, err := dial(t, "", strings.TrimPrefix(server.URL, "http://")).Greet(t.Context(), greeting{}); err == nil {
		t.Error("a listener without a secret lets everybody call")
	}
}

func TestCallInsideATransactionFails(t *testing.T) {
	db, err := sqlutil.Open(t.Context(), sqlutil.Options{ConnectionString: "file:" + filepath.Join(t.TempDir(), "test.db")}, sqlutil.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the test is over
	both(t, greet(func(context.Context, greeting) (greeting, error) {
		t.Error("it was called")
		return greeting{}, nil
	}), func(t *testing.T, peer *contract) {
		err := db.Write(t.Context(), "mistake", func(ctx context.Context, _ *sqlutil.Tx) error {
			_, err := peer.Greet(ctx, greeting{})
			return err
		})
		if guarded, is := errors.AsType[*txguard.Error](err); !is || guarded.Transaction != "mistake" {
			t.Errorf("got %v", err)
		}
	})
}

func TestContractMustBeFilled(t *testing.T) {
	if err := Serve(mux.NewRouter(), "/rpc/greeter", "greeter", new(contract), Options{Secret: secret}); err == nil {
		t.Error("an empty contract is served")
	}
	if err := Local("greeter", nil, new(contract), new(contract)); err == nil {
		t.Error("an empty contract is filled from")
	}
	if err := Local("greeter", nil, greet(nil), new(struct{ Greet Call[int, int] })); err == nil {
		t.Error("a contract is filled from another kind")
	}
}

func TestAffinityMovesOnlyTheKeysOfAReplicaThatLeaves(t *testing.T) {
	order := func(key string, addresses ...string) []string {
		a, err := NewAddresses("greeter", nil)
		if err != nil {
			t.Fatal(err)
		}
		a.urls, a.current, a.asked = nil, slices.Clone(addresses), time.Now()
		slices.SortFunc(a.current, func(x, y string) int { return compareWeight(x, y, key) })
		return a.current
	}
	all := []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"}
	first := make(map[string]int)
	for k := range 300 {
		key := "room" + string(rune('a'+k%26)) + strings.Repeat("x", k)
		before := order(key, all...)[0]
		first[before]++
		if after := order(key, all[:2]...)[0]; before != all[2] && after != before {
			t.Fatalf("%s moved from %s to %s", key, before, after)
		}
	}
	for _, a := range all {
		if first[a] < 50 {
			t.Errorf("%s has %d of 300 keys", a, first[a])
		}
	}
}

func TestEveryAddressOfAHostIsAReplica(t *testing.T) {
	a, err := NewAddresses("greeter", []string{"http://greeter.internal:7771"})
	if err != nil {
		t.Fatal(err)
	}
	a.lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}, nil
	}
	got, err := a.Order(t.Context(), "")
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"10.0.0.1:7771", "10.0.0.2:7771"}) {
		t.Errorf("got %v, %v", got, err)
	}
	a.Failed("10.0.0.1:7771")
	for range 10 {
		if got, err := a.Order(t.Context(), ""); err != nil || got[0] != "10.0.0.2:7771" {
			t.Errorf("got %v, %v although the first has failed", got, err)
		}
	}
	if _, err := NewAddresses("greeter", []string{"https://greeter.internal/path"}); err == nil {
		t.Error("an address that is none is accepted")
	}
}
