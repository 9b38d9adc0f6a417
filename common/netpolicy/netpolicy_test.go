package netpolicy

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/txguard"
)

func policy(t *testing.T, c config.Network) *Policy {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAddressesOutsideTheInternetAreForbidden(t *testing.T) {
	p := policy(t, config.Network{AllowPrivate: config.AllowPrivate{Push: []string{"10.1.0.0/16", "fd00::/8"}}})
	for address, want := range map[string]bool{
		"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "10.1.2.3": false, "100.64.0.1": false, "169.254.169.254": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "224.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
		"::ffff:0:7f00:1": false, "::ffff:0:10.0.0.1": false, "64:ff9b:1::7f00:1": false, "100:0:0:1::1": false,
		"2001::1": false, "fec0::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00::1": false, "ff02::1": false,
		"1.1.1.1": true, "172.32.0.1": true, "2606:4700::1111": true, "::ffff:1.1.1.1": true,
	} {
		var forbidden *Error
		err := p.Check(Federation, netip.MustParseAddr(address))
		if (err == nil) != want || err != nil && !errors.As(err, &forbidden) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "fd00::1": true, "::ffff:10.1.2.3": true, "127.0.0.1": false} {
		if err := p.Check(Push, netip.MustParseAddr(address)); (err == nil) != want {
			t.Errorf("%s for push: %v", address, err)
		}
	}
}

func TestTheAddressThatIsDialledCounts(t *testing.T) {
	reached := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	defer inside.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(inside.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	p := policy(t, config.Network{})
	p.resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "innocent.example", "localhost"} {
		var forbidden *Error
		if _, err := p.Client(Previews).Get("http://" + host + ":" + port); !errors.As(err, &forbidden) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if reached != 0 {
		t.Error("it was reached")
	}
}

func TestRedirectionsLeadNowhereElse(t *testing.T) {
	var secret, open *httptest.Server
	secret = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirection was followed") }))
	defer secret.Close()
	open = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secret.URL, http.StatusFound) }))
	defer open.Close()
	// The operator's word lets the first host be reached, and no other.
	p := policy(t, config.Network{Hosts: map[string]string{"pusher.example": strings.TrimPrefix(open.URL, "http://")}})
	var forbidden *Error
	if _, err := p.Client(Push).Get("http://pusher.example/"); !errors.As(err, &forbidden) {
		t.Errorf("got %v", err)
	}
}

// A redirection from https to http would send what was to be encrypted in the clear: with 307, the body too.
func TestNothingThatIsEncryptedIsSentOnInTheClear(t *testing.T) {
	allowed := config.Network{AllowPrivate: config.AllowPrivate{Push: []string{"127.0.0.0/8"}}}
	reached := 0
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	defer plain.Close()
	for _, secure := range []bool{true, false} {
		first := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL, http.StatusTemporaryRedirect))
		if secure {
			first.StartTLS()
		} else {
			first.Start()
		}
		defer first.Close()
		p := policy(t, allowed)
		p.roots = x509.NewCertPool()
		if secure {
			p.roots.AddCert(first.Certificate())
		}
		answer, err := p.Client(Push).Post(first.URL, "application/json", strings.NewReader("{}"))
		if err == nil {
			err = answer.Body.Close()
		}
		if (err != nil) != secure || (reached == 0) != secure {
			t.Errorf("from https %v: %v, reached %d times", secure, err, reached)
		}
	}
}

func TestAllowedNetworksAndFixedHostsAreReached(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for url, c := range map[string]config.Network{
		server.URL:              {AllowPrivate: config.AllowPrivate{Federation: []string{"127.0.0.0/8"}}},
		"http://other.example/": {Hosts: map[string]string{"other.example": address}},
	} {
		answer, err := policy(t, c).Client(Federation).Get(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		_ = answer.Body.Close()
	}
}

func TestNothingLeavesInsideATransaction(t *testing.T) {
	ctx := txguard.Mark(t.Context(), "a test")
	r, err := http.NewRequestWithContext(ctx, "GET", "http://192.0.2.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	var inside *txguard.Error
	if _, err := policy(t, config.Network{}).Client(Push).Do(r); !errors.As(err, &inside) {
		t.Errorf("got %v", err)
	}
}
