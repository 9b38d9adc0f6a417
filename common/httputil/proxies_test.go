package httputil

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
)

func proxies(t *testing.T, list ...string) Proxies {
	t.Helper()
	p, err := config.Networks(list)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddressOfAClientBehindProxies(t *testing.T) {
	trusted := proxies(t, "127.0.0.0/8", "::1", "172.16.0.0/12", "2001:db8:1::/48")
	for _, test := range []struct{ peer, forwarded, want string }{
		{"127.0.0.1:1", "198.51.100.7", "198.51.100.7"},
		{"127.0.0.1:1", "1.2.3.4, 198.51.100.7", "198.51.100.7"},
		{"10.1.2.3:1", "198.51.100.7", "10.1.2.3"}, // a private network is not a proxy yet
		{"203.0.113.5:1", "198.51.100.7", "203.0.113.5"},
		{"172.18.0.1:1", "1.2.3.4, 198.51.100.7, 172.18.0.9, 127.0.0.1", "198.51.100.7"}, // through three of ours
		{"127.0.0.1:1", "nonsense", "127.0.0.1"},
		// What is left of it anybody may have written.
		{"127.0.0.1:1", "198.51.100.7, nonsense, 172.18.0.9", "172.18.0.9"},
		{"127.0.0.1:1", "172.18.0.8, 172.18.0.9", "172.18.0.8"}, // a client in our own network
		{"127.0.0.1:1", "", "127.0.0.1"},
		{"127.0.0.1:1", ",,", "127.0.0.1"},
		{"[::1]:1", "", "::1"},
		{"[::1]:1", "2001:db8:2::7", "2001:db8:2::7"},
		{"[2001:db8:1::1]:1", "[2001:db8:2::7]:443", "2001:db8:2::7"},
		{"[::ffff:127.0.0.1]:1", "198.51.100.7:1234", "198.51.100.7"},
		{"127.0.0.1:1", "::ffff:198.51.100.7", "198.51.100.7"},
		{"127.0.0.1:1", "[2001:db8:2::7]", "2001:db8:2::7"},
		{"[fe80::1%eth0]:1", "198.51.100.7", "fe80::1"},
		{"127.0.0.1:1", "1.2.3.4\n198.51.100.7", "198.51.100.7"}, // a client's line, and below it the proxy's
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.peer
		for _, line := range strings.Split(test.forwarded, "\n") {
			r.Header.Add(headerForwarded, line)
		}
		if got, err := trusted.Client(r); err != nil || got.String() != test.want {
			t.Errorf("%s through %s: %s, not %s", test.forwarded, test.peer, got, test.want)
		}
		if _, err := Proxies(nil).Client(r); err != nil {
			t.Error(err)
		}
	}
	for _, wrong := range []string{"", "x", "10.0.0.0/33", "10.0.0.1:80", "example.org"} {
		if _, err := config.Networks([]string{wrong}); err == nil {
			t.Errorf("%q is a proxy", wrong)
		}
	}
}

func TestWhoPassesARequestOnSaysWhereItIsFrom(t *testing.T) {
	where := Route{Method: "GET", Path: "/a", Name: "a", Handler: func(_ context.Context, r *Request) (any, error) {
		return ClientAddress(r.Request), nil
	}}
	r, err := NewRouter([]Route{where}, RouterDeps{Log: quiet(), Proxies: proxies(t, "127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	behind, err := NewRouter([]Route{where}, RouterDeps{Log: quiet(), Proxies: proxies(t, "192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	// The peer is at 192.0.2.1.
	for want, handlers := range map[string][]http.Handler{`"192.0.2.1"`: {r}, `"198.51.100.7"`: {behind, r.Local()}} {
		for _, handler := range handlers {
			if w := ask(handler, "GET", "/a", "", headerForwarded, "198.51.100.7"); w.Body.String() != want {
				t.Errorf("from %s, not %s", w.Body, want)
			}
		}
	}
}

func TestOneSubscriberOfIPv6HasOneLimit(t *testing.T) {
	for address, want := range map[string]string{
		"198.51.100.7": "198.51.100.7", "::ffff:198.51.100.7": "::ffff:198.51.100.7", "": "",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64"} {
		if got := Network(address); got != want {
			t.Errorf("%s is limited as %s, not %s", address, got, want)
		}
	}
}
