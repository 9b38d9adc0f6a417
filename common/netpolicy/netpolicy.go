// Package netpolicy makes the connections that leave the server, and refuses those that it must not make.
//
// Whom the server connects to is often decided by others: a server name in a federation request, the URL of a pusher or of a
// link in a message. None of them may reach what only this machine can: loopback, private and link-local networks, unless the
// operator lists the network for that purpose. The check is made on the address that is dialled, after the host's name is
// looked up, so that a name whose address changes in between leads nowhere else.
package netpolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/matrix-org/dendrite/common/config"
	"github.com/matrix-org/dendrite/common/txguard"
)

// Purpose is what a connection is made for. Each has a list of its own in network.allow_private.
type Purpose string

// The purposes.
const (
	Federation          Purpose = "federation"
	Push                Purpose = "push"
	ApplicationServices Purpose = "application_services"
	Previews            Purpose = "previews"
)

const (
	connectTimeout = 10 * time.Second
	headerTimeout  = 60 * time.Second
	requestTimeout = 3 * time.Minute // the whole of a request, its body included
	maxIdle        = 2
	// pingAfter is how long a connection of HTTP/2 may be silent before it is pinged, and pingTimeout how long the answer
	// may take. One whose other end is gone would be used until TCP gives up, which takes a quarter of an hour.
	pingAfter       = 15 * time.Second
	pingTimeout     = 10 * time.Second
	maxRedirections = 5
)

// Policy decides over outgoing connections.
type Policy struct {
	allowed map[Purpose][]netip.Prefix
	hosts   map[string]string
	roots   *x509.CertPool
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// New reads the network section and its certificate files.
func New(c config.Network) (*Policy, error) {
	p := &Policy{allowed: make(map[Purpose][]netip.Prefix), hosts: c.Hosts,
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}}
	for purpose, list := range map[Purpose][]string{Federation: c.AllowPrivate.Federation, Push: c.AllowPrivate.Push,
		ApplicationServices: c.AllowPrivate.ApplicationServices, Previews: c.AllowPrivate.Previews} {
		for _, s := range list {
			network, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("network.allow_private.%s: %w", purpose, err)
			}
			p.allowed[purpose] = append(p.allowed[purpose], network)
		}
	}
	if len(c.CAFiles) == 0 {
		return p, nil
	}
	var err error
	if p.roots, err = x509.SystemCertPool(); err != nil {
		return nil, fmt.Errorf("reading the system's certificates: %w", err)
	}
	for _, file := range c.CAFiles {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("network.ca_files: %w", err)
		}
		if !p.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("network.ca_files: %s has no certificate in PEM form", file)
		}
	}
	return p, nil
}

// Client makes an HTTP client for a purpose. It uses no proxy of the environment: a proxy would dial in place of the policy.
func (p *Policy) Client(purpose Purpose) *http.Client {
	return &http.Client{
		Timeout:   requestTimeout,
		Transport: &guarded{p.Transport(purpose, p.TLS())},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
				return fmt.Errorf("%s sends on to a connection that is not encrypted", via[len(via)-1].URL.Host)
			}
			if len(via) > maxRedirections {
				return fmt.Errorf("more than %d redirections", maxRedirections)
			}
			return nil
		},
	}
}

// TLS is the configuration of outgoing TLS: the system's certificates and those of network.ca_files.
func (p *Policy) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots}
}

// Transport makes a transport for a purpose with a TLS configuration of the caller's.
func (p *Policy) Transport(purpose Purpose, c *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return p.Dial(ctx, purpose, network, address)
		},
		TLSClientConfig:        c,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// guarded refuses requests inside a database transaction.
type guarded struct{ *http.Transport }

func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := txguard.Check(r.Context(), "a request to "+r.URL.Host); err != nil {
		return nil, err
	}
	return g.Transport.RoundTrip(r)
}

// Error says that the policy forbids an address.
type Error struct {
	Purpose Purpose
	Address netip.Addr
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is a private address: list its network in network.allow_private.%s if %[2]s may reach it", e.Address, e.Purpose)
}

// Dial connects to host:port. The static hosts table comes before DNS; an entry there is the operator's word, so that its
// address is not checked.
func (p *Policy) Dial(ctx context.Context, purpose Purpose, network, address string) (net.Conn, error) {
	if err := txguard.Check(ctx, "a connection to "+address); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	dialer := net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}
	if fixed, has := p.hosts[host]; has {
		if _, _, err := net.SplitHostPort(fixed); err != nil {
			fixed = net.JoinHostPort(fixed, port)
		}
		return dialer.DialContext(ctx, network, fixed)
	}
	// The kernel is asked to connect only after this has seen the address, whatever the resolver said before.
	dialer.Control = func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		return p.Check(purpose, to.Addr())
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return dialer.DialContext(ctx, network, net.JoinHostPort(ip.String(), port))
	}
	addresses, err := p.resolve(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("looking up %s: %w", host, err)
	}
	err = fmt.Errorf("%s has no address", host)
	for _, ip := range addresses {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, network, net.JoinHostPort(ip.Unmap().String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// Check tells whether a purpose may reach an address.
func (p *Policy) Check(purpose Purpose, address netip.Addr) error {
	address = address.Unmap().WithZone("")
	contains := func(n netip.Prefix) bool { return n.Contains(address) }
	if !slices.ContainsFunc(special[:], contains) || slices.ContainsFunc(p.allowed[purpose], contains) {
		return nil
	}
	return &Error{purpose, address}
}

// special are the networks that are not part of the public Internet (IANA, Special-Purpose Address Registries), those through
// which IPv6 reaches IPv4 included: what they stand for could be any address.
var special = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("::ffff:0:0:0/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("100:0:0:1::/64"), netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"), netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("ff00::/8"),
}
